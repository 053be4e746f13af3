// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! close and dup.
//!
//! Invariant: a connection is closed before its last descriptor's number is free.

use std::ffi::{c_int, c_uint};

use super::quietly;
use crate::{numbers, real, table};

// SAFETY of the entry points: see `data`.

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
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
    if flags & libc::CLOSE_RANGE_CLOEXEC.cast_signed() == 0 {
        closing_range(first, last);
    }
    // SAFETY: it takes any numbers.
    unsafe { real::close_range(first, last, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn closefrom(first: c_int) {
    let first = first.max(0).cast_unsigned();
    // SAFETY: it takes any numbers.
    unsafe { close_range(first, c_uint::MAX, 0) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: it takes any number.
    let copy = unsafe { real::dup(fd) };
    table::is_new(copy, false);
    if copy >= 0 && table::is_known(fd) {
        quietly(|| numbers::copied(fd, copy));
    }
    copy
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
        table::is_new(to, false);
    }
    if to >= 0 && table::is_known(fd) {
        quietly(|| numbers::copied(fd, to));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    replacing(fd, to);
    // SAFETY: it takes any numbers.
    replaced(fd, unsafe { real::dup2(fd, to) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    replacing(fd, to);
    // SAFETY: it takes any numbers.
    replaced(fd, unsafe { real::dup3(fd, to, flags) })
}
