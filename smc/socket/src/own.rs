// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A descriptor of this library's in a program that may close what is not its own, and get the number for
//! something else.
//!
//! Invariant: it is told by its inode before anything is done with it that a file of the program's would suffer
//! from: before it is read, asked, or closed.
#![expect(unsafe_code, reason = "whose a number is has to be looked at")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::few;

/// A number, and the inode of what it was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    fd: RawFd,
    inode: u64,
}

/// A descriptor.
#[derive(Debug)]
pub(crate) struct Own {
    /// Until it is dropped.
    fd: Option<OwnedFd>,
    inode: u64,
}

impl Name {
    /// Whether the number still is what it was.
    fn is_right(self) -> bool {
        if few::is_confined() {
            // It may not ask.
            return true;
        }
        // SAFETY: it is not -1, and only given to fstat, which takes any number.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == self.inode)
    }

    /// Closes a descriptor that this child of fork has from its parent.
    pub(crate) fn close_inherited(self) {
        if self.is_right() {
            // SAFETY: it is what it was in the parent, whose value is never used in the child, nor dropped; so
            // the number is nobody's.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}

impl Own {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let inode = rustix::fs::fstat(&fd).map_or(0, |stat| stat.st_ino);
        Self { fd: Some(fd), inode }
    }

    pub(crate) fn name(&self) -> Name {
        Name { fd: self.number().as_raw_fd(), inode: self.inode }
    }

    /// The descriptor; `None`: the program has closed it.
    pub(crate) fn get(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| self.name().is_right()).map(AsFd::as_fd)
    }

    /// As [`Own::get`], but not looked at.
    pub(crate) fn number(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.as_fd(),
            // It is taken out by `drop` only.
            None => rustix::stdio::stdin(),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let is_right = self.name().is_right();
        match self.fd.take() {
            Some(fd) if is_right => drop(fd),
            // The program's by now, or closed.
            Some(fd) => drop(fd.into_raw_fd()),
            None => {}
        }
    }
}
