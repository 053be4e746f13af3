// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What C programs hand in, as Rust's slices.
//!
//! Invariant: a null pointer or an impossible length is an error, as in the kernel; everything else is the
//! caller's promise, as in C.

#![expect(unsafe_code, reason = "pointers of C programs")]

use std::ffi::c_void;
use std::io::{IoSlice, IoSliceMut};
use std::ptr;
use std::slice;

use libc::{iovec, msghdr};

/// The kernel's UIO_MAXIOV.
const PARTS: usize = 1024;

/// Elements at a pointer; nothing if it is null.
///
/// # Safety
/// `pointer` is null or points to `len` elements that live and stay as they are for `'a`.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, len: usize) -> &'a [T] {
    if pointer.is_null() || len == 0 || len > isize::MAX as usize / size_of::<T>() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(pointer, len) }
}

/// Elements at a pointer, to be written; nothing if it is null.
///
/// # Safety
/// `pointer` is null or points to `len` elements that live and are nobody else's for `'a`.
pub(crate) unsafe fn slice_mut<'a, T>(pointer: *mut T, len: usize) -> &'a mut [T] {
    if pointer.is_null() || len == 0 || len > isize::MAX as usize / size_of::<T>() {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts_mut(pointer, len) }
}

/// Bytes to be sent, as a list of one.
///
/// # Safety
/// As for [`slice`].
pub(crate) unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> [IoSlice<'a>; 1] {
    // SAFETY: the caller's promise.
    [IoSlice::new(unsafe { slice(pointer.cast(), len) })]
}

/// Room for bytes to be received, as a list of one.
///
/// # Safety
/// As for [`slice_mut`].
pub(crate) unsafe fn room<'a>(pointer: *mut c_void, len: usize) -> [IoSliceMut<'a>; 1] {
    // SAFETY: the caller's promise.
    [IoSliceMut::new(unsafe { slice_mut(pointer.cast(), len) })]
}

/// Parts to be sent; `None`: EINVAL.
///
/// # Safety
/// As for [`slice`], of `parts` and of each part.
pub(crate) unsafe fn parts<'a>(parts: *const iovec, count: usize) -> Option<&'a [IoSlice<'a>]> {
    // SAFETY: the caller's promise; an IoSlice is an iovec whose part lives.
    (count <= PARTS).then(|| unsafe { slice(parts.cast(), count) })
}

/// Parts to be filled; `None`: EINVAL.
///
/// # Safety
/// As for [`slice_mut`], of each part; the list itself is only read.
pub(crate) unsafe fn parts_mut<'a>(
    parts: *const iovec,
    count: usize,
) -> Option<&'a mut [IoSliceMut<'a>]> {
    // SAFETY: the caller's promise; an IoSliceMut is an iovec whose part lives and is its own.
    (count <= PARTS).then(|| unsafe { slice_mut(parts.cast_mut().cast(), count) })
}

/// The message's header.
///
/// # Safety
/// `message` is null or points to a header.
pub(crate) unsafe fn header<'a>(message: *const msghdr) -> Option<&'a msghdr> {
    // SAFETY: the caller's promise.
    unsafe { message.as_ref() }
}

/// The message's control data.
///
/// # Safety
/// `message` is null or points to a header, which is one of a call of sendmsg.
pub(crate) unsafe fn control<'a>(message: *const msghdr) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { header(message) }.map_or(&[], |header| {
        // SAFETY: as above.
        unsafe { slice(header.msg_control.cast(), header.msg_controllen) }
    })
}

/// A copied value; `None` if the pointer is null.
///
/// # Safety
/// `pointer` is null or points to a value.
pub(crate) unsafe fn value<T: Copy>(pointer: *const T) -> Option<T> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller's promise; it need not be aligned.
    Some(unsafe { ptr::read_unaligned(pointer) })
}

/// Writes a value, unless the pointer is null.
///
/// # Safety
/// `pointer` is null or points to room for a value.
pub(crate) unsafe fn put<T: Copy>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        // SAFETY: the caller's promise; it need not be aligned.
        unsafe { ptr::write_unaligned(pointer, value) };
    }
}
