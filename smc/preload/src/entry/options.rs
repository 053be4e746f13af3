// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! getsockopt, setsockopt, fcntl, ioctl.
//!
//! Invariant: TCP has every option that was set.

use std::ffi::{c_int, c_ulong, c_void};

use libc::socklen_t;

use super::descriptors::is_copy;
use super::{fail, int, quietly, run};
use crate::sock::Answer;
use crate::{arguments, numbers, real, table, touched};

/// Bytes of an int option.
const INT: socklen_t = 4;
const _: () = assert!(size_of::<c_int>() == INT as usize, "an option's size");

// SAFETY of the entry points: see `data`.

#[unsafe(no_mangle)]
unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let is_ours = (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR) && table::is_known(fd);
    let error = is_ours.then(|| quietly(|| table::with_sock(fd, |file, sock| sock.error(file))));
    // SAFETY: the caller's length, or null.
    let room = unsafe { arguments::value(len) }.unwrap_or_default();
    if let Some(Some(Some(Answer::Ours(Ok(error))))) = error
        && room >= INT
    {
        // SAFETY: the caller's room.
        unsafe { arguments::put(value.cast(), error) };
        // SAFETY: the caller's length.
        unsafe { arguments::put(len, INT) };
        return 0;
    }
    // SAFETY: the caller's arguments.
    unsafe { real::getsockopt(fd, level, name, value, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    touched::sets(fd, level, name);
    let known = table::is_known(fd);
    if known {
        let may = run(|| match table::with_sock(fd, |_, sock| sock.may_set(level, name)) {
            Some(Err(error)) => Answer::Ours(Err(error)),
            Some(Ok(())) | None => Answer::Theirs,
        });
        if let Some(failed) = may {
            return int(failed);
        }
    }
    // SAFETY: the caller's arguments.
    let set = unsafe { real::setsockopt(fd, level, name, value, len) };
    if known && set == 0 {
        let number = (len >= INT).then(|| {
            // SAFETY: the caller's value, of that length.
            unsafe { arguments::value(value.cast::<c_int>()) }
        });
        quietly(|| table::with_sock(fd, |_, sock| sock.was_set(level, name, number.flatten())));
    }
    set
}

/// After a fcntl that gave `result`.
fn after_fcntl(fd: c_int, command: c_int, argument: c_ulong, result: c_int) -> c_int {
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        is_copy(result, fd);
    }
    if result >= 0 && table::is_known(fd) {
        let nonblocking = argument & libc::O_NONBLOCK.cast_unsigned() as c_ulong != 0;
        quietly(|| match command {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => numbers::copied(fd, result),
            libc::F_SETFL => numbers::set_nonblocking(fd, nonblocking),
            _ => {}
        });
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: the caller's arguments; one that was not given is not looked at.
    let result = unsafe { real::fcntl(fd, command, argument) };
    after_fcntl(fd, command, argument, result)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: the caller's arguments; one that was not given is not looked at.
    let result = unsafe { real::fcntl64(fd, command, argument) };
    after_fcntl(fd, command, argument, result)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int {
    let pointer = argument as *mut c_int;
    if table::is_known(fd) {
        let number = quietly(|| table::with_sock(fd, |file, sock| sock.number_of(file, request)));
        match number.flatten() {
            Some(Answer::Ours(Ok(number))) => {
                // SAFETY: these requests' argument points to an int.
                unsafe { arguments::put(pointer, number) };
                return 0;
            }
            Some(Answer::Ours(Err(error))) => {
                return int(fail(error.raw_os_error().unwrap_or(libc::EIO)));
            }
            Some(Answer::Theirs) | None => {}
        }
    }
    // SAFETY: the caller's arguments.
    let result = unsafe { real::ioctl(fd, request, argument) };
    if result == 0 && request == libc::FIONBIO && table::is_known(fd) {
        // SAFETY: this request's argument points to an int.
        let on = unsafe { arguments::value(pointer) }.is_some_and(|on| on != 0);
        quietly(|| numbers::set_nonblocking(fd, on));
    }
    result
}
