// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A descriptor of this library's in a program that may close what is not its own, and get the number for
//! something else.
//!
//! Invariant: it is told by its device and inode before anything is done with it that a file of the program's would
//! suffer from: before it is read, written, asked, or closed.
//!
//! Under the preload the program cannot (`ism_client::own`), but by system calls that go past the C library. Not all
//! descriptors are looked at so: those of the device are not, nor by which a thread of this process wakes another;
//! and one anonymous inode (eventfds, epolls) is as another.
#![expect(unsafe_code, reason = "whose a number is has to be looked at")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::few;

/// A number, and the device and inode of what it was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    fd: RawFd,
    file: (u64, u64),
}

/// A descriptor.
#[derive(Debug)]
pub(crate) struct Own {
    /// Until it is dropped.
    fd: Option<ism_client::own::Own>,
    file: (u64, u64),
}

/// What two descriptors of one file have in common.
fn file_of(fd: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
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
        file_of(fd).is_ok_and(|file| file == self.file)
    }

    /// Closes a descriptor that this child of fork has from its parent.
    pub(crate) fn close_inherited(self) {
        if self.is_right() {
            // SAFETY: it is what it was in the parent, whose value is never used in the child, nor dropped; so
            // the number is nobody's.
            ism_client::own::close(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}

impl Own {
    /// Takes one that was just made.
    ///
    /// # Errors
    /// It cannot be told from others.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let fd = ism_client::own::Own::new(fd);
        let file = file_of(&fd)?;
        Ok(Self { fd: Some(fd), file })
    }

    pub(crate) fn name(&self) -> Name {
        Name { fd: self.number().as_raw_fd(), file: self.file }
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
            Some(fd) => drop(OwnedFd::from(fd).into_raw_fd()),
            None => {}
        }
    }
}
