// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a program has from the one that executed it: listeners, and connections that were accepted and not
//! used yet, as inetd and sshd pass them on.
//!
//! Invariant: a connection over which this end has sent anything, or received what is not there any more, is
//! left alone: its handshake is over, and what came of it was the other program's.
//!
//! Whether a handshake has begun is told by TCP itself: a server that has begun one has taken the proposal
//! out of the stream or has sent an answer.

#![expect(unsafe_code, reason = "TCP_INFO, which no safe crate has")]

use std::ffi::c_int;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_acceptconn;
use smc_discovery::sockopt::{State, state};

use crate::descriptor::borrow;
use crate::settings::SETTINGS;
use crate::table::File;
use crate::{process, touched, upgrade};

/// Bytes of `struct tcp_info` up to the field behind `tcpi_data_segs_out`, which Linux 4.6 has.
const INFO: usize = 160;
/// Offset of `tcpi_bytes_received`.
const RECEIVED: usize = 128;
/// Offset of `tcpi_data_segs_out`.
const SENT: usize = 156;

/// At the start of the program: takes in what it has.
pub(crate) fn look() {
    if SETTINGS.forced_tcp {
        return;
    }
    let mut found: Vec<(u64, Arc<File>)> = Vec::new();
    let descriptors = descriptors();
    if descriptors.as_ref().is_none_or(|all| all.iter().any(|fd| upgrade::is_tcp(*fd))) {
        touched::has_strange_sockets();
    }
    for fd in descriptors.unwrap_or_default() {
        let Some(state) = marked(fd) else { continue };
        if socket_acceptconn(borrow(fd)).unwrap_or(false) {
            process::has_listener();
        } else if state.peer_speaks_smc() && !state.is_offered() && is_untouched(fd) {
            // It may be for a program that this one executes in its turn.
            process::has_listener();
            // Often it is standard input and output at once.
            let socket = rustix::fs::fstat(borrow(fd)).map_or(0, |stat| stat.st_ino);
            match found.iter().find(|(it, _)| *it == socket) {
                Some((_, file)) => upgrade::inherited_again(fd, file),
                None => found.push((socket, upgrade::inherited(fd))),
            }
        }
    }
}

/// Whether a peer proposes, or is going to, on what was accepted and not used.
pub(crate) fn is_proposed(fd: c_int) -> bool {
    let speaks = |state: State| state.peer_speaks_smc() && !state.is_offered();
    marked(fd).is_some_and(speaks) && is_untouched(fd)
}

fn descriptors() -> Option<Vec<c_int>> {
    // Without /proc nothing is found, and the peer gives up its proposal.
    let entries = std::fs::read_dir("/proc/self/fd").ok()?.flatten();
    Some(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// What discovery says of a TCP socket that is marked.
fn marked(fd: c_int) -> Option<State> {
    let state = upgrade::is_tcp(fd).then(|| state(borrow(fd)).ok().flatten())?;
    state.filter(|state| state.is_marked())
}

/// Whether nothing was sent, and all that came is still there.
fn is_untouched(fd: c_int) -> bool {
    let Some((received, sent)) = counted(fd) else { return false };
    // The end of the stream counts as a byte that came, and is none that can be read.
    let is_read = |unread: u64| received == unread || (has_ended(fd) && received == unread + 1);
    sent == 0 && rustix::io::ioctl_fionread(borrow(fd)).is_ok_and(is_read)
}

/// Whether the peer sends no more.
fn has_ended(fd: c_int) -> bool {
    let tcp = borrow(fd);
    let mut fds = [PollFd::new(&tcp, PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Bytes that came, and segments with data that were sent.
fn counted(fd: c_int) -> Option<(u64, u32)> {
    let mut info = [0_u8; INFO];
    let mut len = libc::socklen_t::try_from(INFO).unwrap_or(0);
    // SAFETY: `info` and `len` are ours; no more than `len` bytes are written.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 || usize::try_from(len) != Ok(INFO) {
        return None;
    }
    let received = u64::from_ne_bytes(*info.get(RECEIVED..)?.first_chunk()?);
    let sent = u32::from_ne_bytes(*info.get(SENT..)?.first_chunk()?);
    Some((received, sent))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_connection_whose_peer_has_sent_and_ended_is_untouched_until_it_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = listener.accept().unwrap().0;
        let fd = server.as_raw_fd();
        assert!(is_untouched(fd));
        client.write_all(b"proposal").unwrap();
        server.peek(&mut [0]).unwrap();
        assert!(is_untouched(fd) && !has_ended(fd));
        client.shutdown(Shutdown::Write).unwrap();
        // It comes at once on the loopback device, but that is not promised.
        let tcp = borrow(fd);
        let mut fds = [PollFd::new(&tcp, PollFlags::RDHUP)];
        poll(&mut fds, None).unwrap();
        assert!(is_untouched(fd));
        server.read_exact(&mut [0]).unwrap();
        assert!(!is_untouched(fd));
    }
}
