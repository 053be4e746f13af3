// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! send, recv, sendmsg, recvmsg and their kin.
//!
//! Invariant: a stream has neither names nor control data: nothing is taken from there, and nothing put.

use std::ffi::{c_int, c_uint, c_void};
use std::time::Instant;

use libc::{mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use rustix::io::Errno;

use super::data::{receive, send};
use super::{duration, fail, int, quietly};
use crate::sock::end_of;
use crate::{arguments, passing, real, table, touched};

// SAFETY of the entry points: see `data`.

#[unsafe(export_name = "send")]
unsafe extern "C" fn send_c(
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's buffer.
    let ours = send(fd, &unsafe { arguments::bytes(buffer, len) }, flags);
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::send(fd, buffer, len, flags) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's buffer.
    let ours = send(fd, &unsafe { arguments::bytes(buffer, len) }, flags);
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::sendto(fd, buffer, len, flags, to, to_len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recv(fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's buffer.
    let ours = receive(fd, &mut unsafe { arguments::room(buffer, len) }, flags);
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::recv(fd, buffer, len, flags) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if len > room {
        // SAFETY: it ends the program.
        return unsafe { real::__recv_chk(fd, buffer, len, room, flags) };
    }
    // SAFETY: the caller's arguments.
    unsafe { recv(fd, buffer, len, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's buffer.
    let ours = receive(fd, &mut unsafe { arguments::room(buffer, len) }, flags);
    let Some(n) = ours else {
        // SAFETY: the caller's arguments.
        return unsafe { real::recvfrom(fd, buffer, len, flags, from, from_len) };
    };
    if n >= 0 && !from.is_null() {
        // SAFETY: the caller's length, or null.
        unsafe { arguments::put(from_len, 0) };
    }
    n
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    if len > room {
        // SAFETY: it ends the program.
        return unsafe { real::__recvfrom_chk(fd, buffer, len, room, flags, from, from_len) };
    }
    // SAFETY: the caller's arguments.
    unsafe { recvfrom(fd, buffer, len, flags, from, from_len) }
}

/// # Safety
/// As sendmsg(2).
unsafe fn send_message(fd: c_int, message: *const msghdr, flags: c_int) -> Option<isize> {
    if !table::is_known(fd) {
        return None;
    }
    // SAFETY: the caller's message.
    let Some(header) = (unsafe { arguments::header(message) }) else {
        return Some(fail(libc::EFAULT));
    };
    // SAFETY: as above.
    match unsafe { arguments::parts(header.msg_iov, header.msg_iovlen) } {
        Some(parts) => send(fd, parts, flags),
        None => Some(fail(libc::EMSGSIZE)),
    }
}

/// # Safety
/// As recvmsg(2).
unsafe fn receive_message(fd: c_int, message: *mut msghdr, flags: c_int) -> Option<isize> {
    if !table::is_known(fd) {
        return None;
    }
    // SAFETY: the caller's message.
    let Some(header) = (unsafe { arguments::header(message) }) else {
        return Some(fail(libc::EFAULT));
    };
    // SAFETY: as above.
    let parts = unsafe { arguments::parts_mut(header.msg_iov, header.msg_iovlen) };
    let Some(parts) = parts else { return Some(fail(libc::EMSGSIZE)) };
    let n = receive(fd, parts, flags)?;
    if n >= 0 {
        let header = msghdr {
            msg_namelen: 0,
            msg_controllen: 0,
            msg_flags: flags & libc::MSG_OOB,
            ..*header
        };
        // SAFETY: the caller's message.
        unsafe { arguments::put(message, header) };
    }
    Some(n)
}

/// Before a message that may have descriptors of connections in it; what keeps it from being sent.
///
/// # Safety
/// As sendmsg(2).
unsafe fn passes(message: *const msghdr) -> Result<(), Errno> {
    // SAFETY: the caller's message.
    let control = unsafe { arguments::control(message) };
    if control.is_empty() {
        return Ok(());
    }
    quietly(|| passing::sends(control)).unwrap_or(Err(Errno::IO))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    let ours = unsafe { send_message(fd, message, flags) };
    ours.unwrap_or_else(|| {
        // SAFETY: the caller's message.
        if let Err(errno) = unsafe { passes(message) } {
            return fail(errno.raw_os_error());
        }
        // SAFETY: the caller's arguments.
        unsafe { real::sendmsg(fd, message, flags) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    let ours = unsafe { receive_message(fd, message, flags) };
    ours.unwrap_or_else(|| {
        // SAFETY: the caller's arguments.
        let received = unsafe { real::recvmsg(fd, message, flags) };
        // SAFETY: the caller's message, which the kernel has written.
        let header = || unsafe { arguments::header(message) };
        if received >= 0 && header().is_some_and(|header| header.msg_controllen > 0) {
            // It may be sockets.
            touched::has_strange_sockets();
        }
        received
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let ours = table::is_known(fd).then(|| {
        // SAFETY: the caller's messages.
        let all = unsafe { arguments::slice_mut(messages, count as usize) };
        // SAFETY: as above, each.
        each(all, flags, |message, flags| unsafe { send_message(fd, &raw const *message, flags) })
    });
    ours.flatten().unwrap_or_else(|| {
        // SAFETY: the caller's messages.
        let all = unsafe { arguments::slice(messages, count as usize) };
        // SAFETY: as above, each.
        let pass = |it: &mmsghdr| unsafe { passes(&raw const it.msg_hdr) }.err();
        let refused = all.iter().enumerate().find_map(|(n, it)| Some((n, pass(it)?)));
        let count = match refused {
            Some((0, errno)) => return int(fail(errno.raw_os_error())),
            Some((n, _)) => c_uint::try_from(n).unwrap_or(count),
            None => count,
        };
        // SAFETY: the caller's arguments.
        unsafe { real::sendmmsg(fd, messages, count, flags) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    if !table::is_known(fd) {
        touched::has_strange_sockets();
        // SAFETY: the caller's arguments.
        return unsafe { real::recvmmsg(fd, messages, count, flags, timeout) };
    }
    // SAFETY: the caller's time, or null.
    let Ok(time) = duration(unsafe { arguments::value(timeout) }) else {
        return int(fail(libc::EINVAL));
    };
    let end = end_of(time);
    // SAFETY: the caller's messages.
    let all = unsafe { arguments::slice_mut(messages, count as usize) };
    let ours = each(all, flags, |message, flags| {
        // As in the kernel the time is looked at after each message.
        let over = end.is_some_and(|end| end <= Instant::now());
        let flags = if over { flags | libc::MSG_DONTWAIT } else { flags };
        // SAFETY: as above, each.
        unsafe { receive_message(fd, &raw mut *message, flags & !libc::MSG_WAITFORONE) }
    });
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::recvmmsg(fd, messages, count, flags, timeout) })
}

/// Moves message after message; how many. `None`: the connection is the next library's.
fn each(
    messages: &mut [mmsghdr],
    mut flags: c_int,
    mut go: impl FnMut(&mut msghdr, c_int) -> Option<isize>,
) -> Option<c_int> {
    let mut done = 0;
    for message in messages {
        match go(&mut message.msg_hdr, flags) {
            None if done == 0 => return None,
            Some(-1) if done == 0 => return Some(-1),
            None | Some(-1) => break,
            Some(n) => {
                message.msg_len = c_uint::try_from(n).unwrap_or(c_uint::MAX);
                done += 1;
            }
        }
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
    }
    Some(done)
}
