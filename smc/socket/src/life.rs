// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which processes of a family live: each has a byte of a file locked, and the system unlocks it.
//!
//! Invariant: a process that is said to have ended touches the family's memory no more, unless it has closed
//! descriptors that are not its own. So what a lock protected when its holder ended is not looked at again (`channel`).
//!
//! The lock goes with the process's descriptors: at its end and when it executes another program, after its
//! memory. It means the same in every PID namespace, it cannot be another process's that has the same number
//! later, a child of fork does not have it, and copies of the descriptor do not keep it.
#![expect(unsafe_code, reason = "locks of single bytes, which no safe crate has")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::own::Own;

/// The file.
#[derive(Debug)]
pub(crate) struct Life(Own);

fn lock_of(process: u32) -> libc::flock {
    let kind = |it: libc::c_int| libc::c_short::try_from(it).unwrap_or_default();
    libc::flock {
        l_type: kind(libc::F_WRLCK),
        l_whence: kind(libc::SEEK_SET),
        l_start: libc::off_t::from(process),
        l_len: 1,
        l_pid: 0,
    }
}

fn fcntl(file: BorrowedFd<'_>, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: `lock` is the command's argument, read and written by it; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Life {
    /// A family of which nobody lives yet.
    ///
    /// # Errors
    /// No descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Own::new(memfd_create("smc-family", MemfdFlags::CLOEXEC)?)?))
    }

    /// From now on this process lives, as the one with this number.
    ///
    /// # Errors
    /// The system refuses, or the program has closed the file.
    pub(crate) fn begin(&self, process: u32) -> io::Result<()> {
        let file = self.0.get().ok_or(io::ErrorKind::NotFound)?;
        fcntl(file, libc::F_SETLK, &mut lock_of(process))
    }

    /// Whether another process lives, as far as can be told.
    pub(crate) fn is_lived(&self, process: u32) -> bool {
        let mut lock = lock_of(process);
        let asked = self.0.get().map(|file| fcntl(file, libc::F_GETLK, &mut lock));
        !matches!(asked, Some(Ok(()))) || libc::c_int::from(lock.l_type) != libc::F_UNLCK
    }
}
