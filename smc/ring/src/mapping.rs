// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory files, and mappings of them.
//!
//! Invariant: what is mapped is inside a file that is sealed against shrinking, or no file's: nobody else can make
//! an access here fault. (The system can, when it has no memory left for a page that is first written.)
#![expect(unsafe_code, reason = "mmap gives raw memory")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::view::Memory;

/// Makes a memory file of `len` zero bytes that can neither shrink nor grow.
///
/// # Errors
/// What the system reports: no descriptor, no memory.
pub fn memory_file(name: &str, len: u64) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, len)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Why a file is not mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// It could shrink, and an access then kill this process.
    #[error("a memory file that is not sealed against shrinking is not mapped")]
    NotSealed,
    /// It ends before the part that should be mapped.
    #[error("{len:#x} bytes from {at:#x} are not mapped: the memory file has {size:#x}")]
    TooShort {
        /// First byte.
        at: u64,
        /// Bytes.
        len: usize,
        /// Bytes of the file.
        size: u64,
    },
    /// The system refused.
    #[error("mapping {len:#x} bytes of shared memory: {source}")]
    System {
        /// Bytes.
        len: usize,
        /// Why.
        source: io::Error,
    },
}

/// A mapped part of a memory file; unmapped when dropped.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len)
    }
}

impl Mapping {
    /// Maps `len` bytes from `at` of a memory file, readable, writable and shared.
    ///
    /// # Errors
    /// The file could shrink or is too short, or the system refuses.
    pub fn new(file: impl AsFd, at: u64, len: usize) -> Result<Self, MapError> {
        let system = |error: rustix::io::Errno| MapError::System { len, source: error.into() };
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(|_| MapError::NotSealed)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(MapError::NotSealed);
        }
        // After the seal: a length that was right before it need not be any more.
        let size = rustix::fs::fstat(&file).map_err(system)?.st_size;
        let size = u64::try_from(size).unwrap_or(0);
        if len == 0 || at.checked_add(len as u64).is_none_or(|end| end > size) {
            return Err(MapError::TooShort { at, len, size });
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place that nothing is mapped at.
        let mapped = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, file, at)
        };
        let base = NonNull::new(mapped.map_err(system)?.cast::<u8>());
        let base = base.ok_or_else(|| system(rustix::io::Errno::NOMEM))?;
        Ok(Self { base, len })
    }

    /// Maps `len` zero bytes of no file, readable, writable, and shared with children of fork.
    ///
    /// # Errors
    /// The system refuses.
    pub fn anonymous(len: usize) -> Result<Self, MapError> {
        let system = |error: rustix::io::Errno| MapError::System { len, source: error.into() };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // Memory is taken page by page, when it is first written.
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses a place that nothing is mapped at.
        let mapped =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags) };
        let base = NonNull::new(mapped.map_err(system)?.cast::<u8>());
        let base = base.ok_or_else(|| system(rustix::io::Errno::NOMEM))?;
        Ok(Self { base, len })
    }
}

// SAFETY: the mapping belongs to the value and to no thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives its place and length only.
unsafe impl Sync for Mapping {}

// SAFETY: `new` or `anonymous` mapped these bytes readable and writable, `drop` unmaps them, and nothing between
// changes the mapping: the file of the one cannot shrink, that of the other nobody can open. No reference to them
// is made but by `Kept`, of a value under its lock.
unsafe impl Memory for Mapping {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is what `new` or `anonymous` mapped; every `View` of it holds this value, so none is left.
        // A failure leaks address space only.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
