// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sizes of a socket's buffers, and how many bytes are to be there (SO_RCVLOWAT), where the program has chosen them.
//!
//! Invariant: what the kernel chose by itself counts for nothing: it grows TCP's buffers as needed.

#![expect(unsafe_code, reason = "SO_BUF_LOCK and SO_RCVLOWAT, which no safe crate has")]

use std::ffi::c_int;

use rustix::net::sockopt;

use crate::descriptor::borrow;
use crate::touched;

/// `SO_BUF_LOCK` of asm-generic/socket.h, of Linux 5.14.
const SO_BUF_LOCK: c_int = 72;
/// The program has set SO_SNDBUF (`SOCK_SNDBUF_LOCK`).
const SEND: c_int = 1;
/// The program has set SO_RCVBUF (`SOCK_RCVBUF_LOCK`).
const RECEIVE: c_int = 2;

/// An option of `fd`'s at SOL_SOCKET.
fn option(fd: c_int, name: c_int) -> Option<c_int> {
    let (mut value, mut len) = (0, 4);
    // SAFETY: both are ours; no more than `len` bytes are written, which is the value's size.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len)
    };
    (result == 0).then_some(value)
}

/// What the program has set of `fd`'s buffers.
fn chosen(fd: c_int) -> c_int {
    let set = touched::is_set(touched::BUFFERS).then(|| option(fd, SO_BUF_LOCK));
    set.flatten().unwrap_or(0)
}

/// SO_RCVLOWAT, if the program may have set it.
pub(crate) fn low_water(fd: c_int) -> Option<u32> {
    let set = touched::is_set(touched::LOW_WATER).then(|| option(fd, libc::SO_RCVLOWAT));
    set.flatten().and_then(|bytes| u32::try_from(bytes).ok())
}

/// Bytes of a buffer of which the kernel says `bytes`: half of it is for its own use.
fn half(bytes: rustix::io::Result<usize>) -> Option<u32> {
    Some(u32::try_from(bytes.ok()? / 2).unwrap_or(u32::MAX))
}

/// What the program has set as SO_RCVBUF.
pub(crate) fn receive(fd: c_int) -> Option<u32> {
    let set = chosen(fd) & RECEIVE != 0;
    set.then(|| half(sockopt::socket_recv_buffer_size(borrow(fd)))).flatten()
}

/// What the program has set as SO_SNDBUF.
pub(crate) fn send(fd: c_int) -> Option<u32> {
    let set = chosen(fd) & SEND != 0;
    set.then(|| half(sockopt::socket_send_buffer_size(borrow(fd)))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_the_program_sets_is_told_and_what_the_kernel_chose_is_not() {
        // Another test of this process may begin to note what is set, just between.
        touched::start();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = socket.as_raw_fd();
        touched::sets(fd, libc::SOL_SOCKET, libc::SO_RCVBUF);
        assert_eq!((receive(fd), send(fd)), (None, None));
        sockopt::set_socket_recv_buffer_size(&socket, 20_000).unwrap();
        assert_eq!((receive(fd), send(fd)), (Some(20_000), None));
        sockopt::set_socket_send_buffer_size(&socket, 30_000).unwrap();
        assert_eq!((receive(fd), send(fd)), (Some(20_000), Some(30_000)));
    }
}
