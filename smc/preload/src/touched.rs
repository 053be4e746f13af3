// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which options the program has ever set, on whatever socket: the others need not be asked for, which takes a
//! system call for each of them and each connection.
//!
//! Invariant: what may have been set where this library does not see it counts as set: by the program that executed
//! this one, and by whoever passes sockets on.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::upgrade::is_tcp;

/// SO_RCVTIMEO, SO_SNDTIMEO.
pub(crate) const TIMEOUTS: u8 = 1;
/// SO_OOBINLINE.
pub(crate) const URGENT: u8 = 2;
/// TCP_CORK.
pub(crate) const CORK: u8 = 4;
/// SO_LINGER.
pub(crate) const LINGER: u8 = 8;
/// SO_RCVBUF, SO_SNDBUF and the like.
pub(crate) const BUFFERS: u8 = 16;

/// `SO_RCVTIMEO_NEW` and `SO_SNDTIMEO_NEW` of asm-generic/socket.h.
const NEW_TIMEOUTS: [c_int; 2] = [66, 67];

static TOUCHED: AtomicU8 = AtomicU8::new(0);

fn option(level: c_int, name: c_int) -> u8 {
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) => TIMEOUTS,
        (libc::SOL_SOCKET, name) if NEW_TIMEOUTS.contains(&name) => TIMEOUTS,
        (libc::SOL_SOCKET, libc::SO_OOBINLINE) => URGENT,
        (libc::SOL_SOCKET, libc::SO_LINGER) => LINGER,
        (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF) => BUFFERS,
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE | libc::SO_SNDBUFFORCE) => BUFFERS,
        (libc::IPPROTO_TCP, libc::TCP_CORK) => CORK,
        _ => 0,
    }
}

/// The program is about to set an option of `fd`; or this library is, whose sockets are none of TCP.
#[inline]
pub(crate) fn sets(fd: c_int, level: c_int, name: c_int) {
    let option = option(level, name);
    if TOUCHED.load(Ordering::Relaxed) & option != option && is_tcp(fd) {
        touch(option);
    }
}

/// The program has, or may have, sockets that others have set options of.
#[inline]
pub(crate) fn has_strange_sockets() {
    touch(u8::MAX);
}

fn touch(options: u8) {
    if TOUCHED.load(Ordering::Relaxed) & options != options {
        TOUCHED.fetch_or(options, Ordering::Relaxed);
    }
}

/// Whether some of these options may have been set.
#[inline]
pub(crate) fn is_set(options: u8) -> bool {
    TOUCHED.load(Ordering::Relaxed) & options != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_option_counts_once_it_was_set_and_strange_sockets_have_all() {
        let (other, _own) = UnixStream::pair().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        sets(tcp.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        sets(tcp.as_raw_fd(), libc::IPPROTO_TCP, libc::SO_LINGER);
        sets(other.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO);
        // Other tests set the others.
        assert!(!is_set(LINGER | TIMEOUTS));
        sets(tcp.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER);
        assert_eq!([LINGER, TIMEOUTS | URGENT | CORK].map(is_set), [true, false]);
        has_strange_sockets();
        assert!([TIMEOUTS, URGENT, CORK, LINGER, BUFFERS].into_iter().all(is_set));
    }
}
