// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! socket, listen, accept, connect, shutdown.
//!
//! Invariant: TCP does what was asked; what is found out about the connection comes after.

use std::ffi::c_int;

use libc::{sockaddr, socklen_t};

use super::{int, quietly, result, run};
use crate::sock::Answer;
use crate::{arguments, numbers, real, table, upgrade};

// SAFETY of the entry points: see `data`.

#[unsafe(no_mangle)]
unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: it takes any numbers.
    let fd = unsafe { real::socket(domain, kind, protocol) };
    let of_ip = matches!(domain, libc::AF_INET | libc::AF_INET6);
    let is_stream = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) == libc::SOCK_STREAM;
    table::is_new(fd, of_ip && is_stream && matches!(protocol, 0 | libc::IPPROTO_TCP));
    if table::is_known(fd) {
        quietly(|| numbers::opened(fd));
    }
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn listen(fd: c_int, backlog: c_int) -> c_int {
    quietly(|| upgrade::listen(fd));
    // SAFETY: it takes any numbers.
    unsafe { real::listen(fd, backlog) }
}

fn accepted(listener: c_int, fd: c_int, nonblocking: bool) -> c_int {
    if fd >= 0 {
        quietly(|| {
            numbers::opened(fd);
            upgrade::accepted(listener, fd, nonblocking);
        });
    }
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's arguments.
    accepted(fd, unsafe { real::accept(fd, address, len) }, false)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's arguments.
    let new = unsafe { real::accept4(fd, address, len, flags) };
    accepted(fd, new, flags & libc::SOCK_NONBLOCK != 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's address.
    let bytes = unsafe { arguments::slice(address.cast::<u8>(), len as usize) };
    let ours = run(|| {
        // SAFETY: the caller's arguments.
        let real = || result(unsafe { real::connect(fd, address, len) }).map(drop);
        Answer::Ours(upgrade::connect(fd, upgrade::address(bytes), real).map(|()| 0))
    });
    int(ours.unwrap_or(-1))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    let ours = table::is_known(fd).then(|| {
        run(|| match table::with_sock(fd, |file, sock| sock.shut(file, how)) {
            Some(Answer::Ours(result)) => Answer::Ours(result.map(|()| 0)),
            Some(Answer::Theirs) | None => Answer::Theirs,
        })
    });
    // SAFETY: it takes any numbers.
    ours.flatten().map_or_else(|| unsafe { real::shutdown(fd, how) }, int)
}
