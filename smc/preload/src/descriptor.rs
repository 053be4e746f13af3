// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's descriptors, borrowed by their numbers.
//!
//! Invariant: used for system calls only, so a number that the program has closed or given to something
//! else in this moment costs an error or a look at a wrong file, as it does in any program.

#![expect(unsafe_code, reason = "the program owns its descriptors; we know their numbers")]

use std::ffi::c_int;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// The descriptor with this number.
pub(crate) fn borrow<'a>(fd: c_int) -> BorrowedFd<'a> {
    // SAFETY: it is not -1, and it is only given to system calls, which check numbers.
    unsafe { BorrowedFd::borrow_raw(fd.max(0)) }
}

/// Closes a descriptor of this library's.
pub(crate) fn close_own(fd: c_int) {
    // SAFETY: the caller has checked that it is the one which this library opened, and forgets it.
    ism_client::own::close(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// A number that changes when the program closes one of several descriptors of a socket.
#[derive(Debug, Clone)]
pub(crate) struct Number(Arc<AtomicI32>);

impl Number {
    pub(crate) fn new(fd: c_int) -> Self {
        Self(Arc::new(AtomicI32::new(fd)))
    }

    pub(crate) fn get(&self) -> c_int {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, fd: c_int) {
        self.0.store(fd, Ordering::Relaxed);
    }
}

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(self.get())
    }
}
