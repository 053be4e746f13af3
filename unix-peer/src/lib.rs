// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who is at the other end of a local socket, as the kernel says (SO_PEERCRED).
//!
//! Invariant: nothing that the other end says of itself counts; a process that has no number here has none.

#![expect(unsafe_code, reason = "getsockopt: rustix takes a process number of 0 for an error")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Who called `connect`, `listen` or `socketpair`, at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process; none if it is of a PID namespace that is not seen from here.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Peer {
    /// Of a connected socket.
    ///
    /// # Errors
    /// It is no local socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut who = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
        let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
        // SAFETY: `who` and `len` are ours, and `len` is the size of `who`, beyond which nothing is written.
        let asked = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut who).cast(),
                &raw mut len,
            )
        };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        let pid = u32::try_from(who.pid).ok().filter(|pid| *pid != 0);
        Ok(Self { pid, uid: who.uid, gid: who.gid })
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = std::fs::metadata("/proc/self").unwrap();
        let pid = Some(std::process::id());
        assert_eq!(Peer::of(&one).unwrap(), Peer { pid, uid: own.uid(), gid: own.gid() });
    }

    /// The kernel gives numbers of nobody's for it.
    #[test]
    fn a_socket_of_the_network_has_nobody() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(Peer::of(&socket).is_ok_and(|who| who.pid.is_none() && who.uid == u32::MAX));
    }
}
