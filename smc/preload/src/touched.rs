// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which options the program has ever set, on whatever socket: the others need not be asked for, which takes a
//! system call for each of them and each connection.
//!
//! Invariant: what one process has set counts in all that it shares sockets with by fork; what may have been set where
//! this library does not see it counts as set: by the program that executed this one, and by whoever passes sockets on.
//! What a program sets that was executed by this one, or to which this one has passed sockets on, does not count here.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use smc_ring::{Mapping, View};

use crate::upgrade::is_tcp;

/// SO_RCVTIMEO, SO_SNDTIMEO.
pub(crate) const TIMEOUTS: u8 = 1;
/// SO_OOBINLINE.
pub(crate) const URGENT: u8 = 2;
/// SO_LINGER.
pub(crate) const LINGER: u8 = 4;
/// SO_RCVBUF, SO_SNDBUF and the like.
pub(crate) const BUFFERS: u8 = 8;
/// SO_RCVLOWAT.
pub(crate) const LOW_WATER: u8 = 16;

/// `SO_RCVTIMEO_NEW` and `SO_SNDTIMEO_NEW` of asm-generic/socket.h.
const NEW_TIMEOUTS: [c_int; 2] = [66, 67];

/// In memory that children of fork share.
static SHARED: OnceLock<View> = OnceLock::new();
/// Without such memory: all.
static ALL: AtomicU32 = AtomicU32::new(u32::MAX);

/// At the start of the program.
pub(crate) fn start() {
    if let Ok(memory) = Mapping::anonymous(size_of::<AtomicU32>()) {
        SHARED.get_or_init(|| View::new(Arc::new(memory)));
    }
}

fn touched() -> &'static AtomicU32 {
    SHARED.get().and_then(|view| view.u32(0).ok()).unwrap_or(&ALL)
}

fn option(level: c_int, name: c_int) -> u8 {
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) => TIMEOUTS,
        (libc::SOL_SOCKET, name) if NEW_TIMEOUTS.contains(&name) => TIMEOUTS,
        (libc::SOL_SOCKET, libc::SO_OOBINLINE) => URGENT,
        (libc::SOL_SOCKET, libc::SO_LINGER) => LINGER,
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => LOW_WATER,
        (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF) => BUFFERS,
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE | libc::SO_SNDBUFFORCE) => BUFFERS,
        _ => 0,
    }
}

/// The program is about to set an option of `fd`; or this library is, whose sockets are none of TCP.
#[inline]
pub(crate) fn sets(fd: c_int, level: c_int, name: c_int) {
    let option = option(level, name);
    if option != 0 && !is_set_all(option) && is_tcp(fd) {
        touch(option);
    }
}

/// The program has, or may have, sockets that others have set options of.
#[inline]
pub(crate) fn has_strange_sockets() {
    touch(u8::MAX);
}

fn touch(options: u8) {
    if !is_set_all(options) {
        touched().fetch_or(options.into(), Ordering::Relaxed);
    }
}

fn is_set_all(options: u8) -> bool {
    touched().load(Ordering::Relaxed) & u32::from(options) == u32::from(options)
}

/// Whether some of these options may have been set.
#[inline]
pub(crate) fn is_set(options: u8) -> bool {
    touched().load(Ordering::Relaxed) & u32::from(options) != 0
}

#[cfg(test)]
#[expect(unsafe_code, reason = "fork")]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_option_counts_once_it_was_set_and_strange_sockets_have_all() {
        start();
        let (other, _own) = UnixStream::pair().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        sets(tcp.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE);
        sets(tcp.as_raw_fd(), libc::IPPROTO_TCP, libc::SO_LINGER);
        sets(other.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO);
        // Other tests set the others.
        assert!(!is_set(LINGER | TIMEOUTS));
        // SAFETY: the child does a system call, sets a number, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            sets(tcp.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER);
            // SAFETY: it takes any number.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: a child that was not waited for.
        assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
        assert_eq!([LINGER, TIMEOUTS | URGENT].map(is_set), [true, false]);
        has_strange_sockets();
        assert!([TIMEOUTS, URGENT, LINGER, BUFFERS, LOW_WATER].into_iter().all(is_set));
    }
}
