// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! close and dup.
//!
//! Invariant: a connection is closed before its last descriptor's number is free; what is not the program's
//! (`ism_client::own`) is to it as a number that is not open.

use std::ffi::{c_int, c_uint};

use ism_client::own;

use super::{fail, int, quietly};
use crate::{instances, numbers, process, real, table};

// SAFETY of the entry points: see `data`.

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    if own::is_kept(fd) {
        return int(fail(libc::EBADF));
    }
    if table::is_known(fd) {
        quietly(|| numbers::closing(fd));
    }
    // SAFETY: it takes any number.
    unsafe { real::close(fd) }
}

fn closing_range(first: c_uint, last: c_uint) {
    let number = |fd| c_int::try_from(fd).unwrap_or(c_int::MAX);
    quietly(|| numbers::closing_range(number(first), number(last)));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // SAFETY: it takes any numbers.
    let act = |(first, last)| unsafe { real::close_range(first, last, flags) };
    // Ours are closed on exec as it is.
    if flags & libc::CLOSE_RANGE_CLOEXEC.cast_signed() != 0 || first > last {
        return act((first, last));
    }
    closing_range(first, last);
    own::around(first, last).map(act).find(|result| *result != 0).unwrap_or(0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn closefrom(first: c_int) {
    let first = first.max(0).cast_unsigned();
    // SAFETY: it takes any numbers.
    unsafe { close_range(first, c_uint::MAX, 0) };
}

/// `copy` is a new descriptor of what `fd` is, if it is one at all.
pub(super) fn is_copy(copy: c_int, fd: c_int) {
    table::is_new(copy, false);
    instances::is_copy(copy, fd);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: it takes any number.
    let copy = unsafe { real::dup(fd) };
    is_copy(copy, fd);
    if copy >= 0 && table::is_known(fd) {
        quietly(|| numbers::copied(fd, copy));
    }
    copy
}

/// Whether a number is as one beyond the program's limit. A child of vfork may take it: it executes a program, which
/// has none of ours.
fn is_beyond(fd: c_int, to: c_int) -> bool {
    fd != to && own::is_own(to) && quietly(process::is_borrowed) == Some(false)
}

/// Before a dup2 that will do something.
fn replacing(fd: c_int, to: c_int) {
    let is_open = || rustix::io::fcntl_getfd(crate::descriptor::borrow(fd)).is_ok();
    if fd != to && table::is_known(to) && fd >= 0 && is_open() {
        quietly(|| numbers::closing(to));
    }
}

fn replaced(fd: c_int, to: c_int) -> c_int {
    if fd != to {
        is_copy(to, fd);
    }
    if to >= 0 && table::is_known(fd) {
        quietly(|| numbers::copied(fd, to));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    if is_beyond(fd, to) {
        return int(fail(libc::EBADF));
    }
    replacing(fd, to);
    // SAFETY: it takes any numbers.
    replaced(fd, unsafe { real::dup2(fd, to) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    if is_beyond(fd, to) {
        return int(fail(libc::EBADF));
    }
    replacing(fd, to);
    // SAFETY: it takes any numbers.
    replaced(fd, unsafe { real::dup3(fd, to, flags) })
}
