// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who is at the other end of a socket, as the kernel says.
//!
//! Invariant: the number is the one that the process has here, or nothing if it has none.

#![expect(unsafe_code, reason = "SO_PEERCRED: rustix cannot give a process number of 0")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Who called `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// The process; none if it is of a PID namespace that is not seen from here.
    pub(super) pid: Option<u32>,
    /// Its user at that time.
    pub(super) uid: u32,
}

impl Peer {
    /// Of a connected socket.
    pub(super) fn of(socket: &OwnedFd) -> io::Result<Self> {
        let mut who = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
        let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
        // SAFETY: `who` and `len` are ours, and `len` is the size of `who`, beyond which nothing is written.
        let asked = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut who).cast(),
                &raw mut len,
            )
        };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { pid: u32::try_from(who.pid).ok().filter(|pid| *pid != 0), uid: who.uid })
    }
}
