// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A part of memory that somebody else may write at any time.
//!
//! Invariant: a view's bytes are mapped, readable and writable as long as it lives, because it holds
//! their [`Memory`]; every access is checked against the view's end first.
#![expect(unsafe_code, reason = "shared memory is reached through raw pointers")]

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use crate::ahead::AHEAD;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// An owner of mapped memory.
///
/// # Safety
/// From `base()` on, `len()` bytes are one mapping, readable and writable, that stays in place until the
/// value is dropped, and that nobody has Rust references to. The two never change. (Bytes may.)
pub unsafe trait Memory: Send + Sync {
    /// The first byte.
    fn base(&self) -> NonNull<u8>;
    /// Bytes.
    fn len(&self) -> usize;
    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A run of shared bytes. Cheap to clone.
#[derive(Clone)]
pub struct View {
    /// Derived from the owner's base, so with its provenance.
    base: NonNull<u8>,
    len: usize,
    owner: Arc<dyn Memory>,
}

// SAFETY: a view is a place in memory that its owner, which is Send and Sync, keeps; accesses are
// copies and atomics, for which it does not matter which thread makes them.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} bytes)", self.len)
    }
}

/// An access that does not lie in its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {at:#x} are not inside {size:#x} bytes of shared memory, or not aligned")]
pub struct OutOfBounds {
    /// First byte.
    pub at: usize,
    /// Bytes.
    pub len: usize,
    /// Bytes that there are.
    pub size: usize,
}

impl View {
    /// All bytes of `owner`.
    pub fn new(owner: Arc<dyn Memory>) -> Self {
        Self { base: owner.base(), len: owner.len(), owner }
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes from `at`.
    ///
    /// # Errors
    /// They are not all inside.
    pub fn part(&self, at: usize, len: usize) -> Result<Self, OutOfBounds> {
        let base = self.place(at, len, 1)?;
        Ok(Self { base, len, owner: Arc::clone(&self.owner) })
    }

    /// Copies bytes from `at` into `buffer`.
    ///
    /// # Errors
    /// They are not all inside; nothing is copied then.
    #[inline]
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> Result<(), OutOfBounds> {
        let from = self.place(at, buffer.len(), 1)?;
        let (from, to, len) = (from.as_ptr(), buffer.as_mut_ptr(), buffer.len());
        if len > AHEAD {
            // SAFETY: `place` checked that as many bytes are mapped at `from`; `buffer` is this process's
            // own memory, which no mapping overlaps (`Memory`).
            unsafe { crate::ahead::copy(from, to, len) };
        } else {
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
        }
        settle();
        Ok(())
    }

    /// Copies bytes from `at` into a buffer that need not be initialised, and is after it.
    ///
    /// # Errors
    /// They are not all inside; nothing is copied then.
    #[inline]
    pub fn read_uninit<'a>(
        &self,
        at: usize,
        buffer: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8], OutOfBounds> {
        let from = self.place(at, buffer.len(), 1)?;
        let (to, len) = (buffer.as_mut_ptr().cast::<u8>(), buffer.len());
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, len) };
        settle();
        // SAFETY: the `len` bytes from `to` on are `buffer`, borrowed for 'a, and were all written.
        Ok(unsafe { std::slice::from_raw_parts_mut(to, len) })
    }

    /// Copies `bytes` to `at`.
    ///
    /// # Errors
    /// They are not all inside; nothing is copied then.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.place(at, bytes.len(), 1)?;
        settle();
        // SAFETY: as in `read`, the other way.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// As [`View::write`], past the caches: for a reader on a core that has none in common with this one.
    ///
    /// # Errors
    /// As for [`View::write`].
    pub fn write_past_caches(&self, at: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let to = self.place(at, bytes.len(), 1)?;
        settle();
        // SAFETY: as in `write`.
        unsafe { crate::past::copy(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Makes all bytes zero.
    pub fn zero(&self) {
        // SAFETY: `len` bytes are mapped and writable at `base`, by the type's invariant.
        unsafe { std::ptr::write_bytes(self.base.as_ptr(), 0, self.len) };
        settle();
    }

    /// The 8-byte word at `at`.
    ///
    /// # Errors
    /// It is not inside, or its place in memory is no multiple of 8.
    pub fn u64(&self, at: usize) -> Result<&AtomicU64, OutOfBounds> {
        self.place(at, size_of::<u64>(), align_of::<AtomicU64>())?;
        Ok(self.word64(at))
    }

    /// The 4-byte word at `at`.
    ///
    /// # Errors
    /// It is not inside, or its place in memory is no multiple of 4.
    pub fn u32(&self, at: usize) -> Result<&AtomicU32, OutOfBounds> {
        self.place(at, size_of::<u32>(), align_of::<AtomicU32>())?;
        Ok(self.word32(at))
    }

    /// The 2-byte word at `at`.
    ///
    /// # Errors
    /// It is not inside, or its place in memory is odd.
    pub fn u16(&self, at: usize) -> Result<&AtomicU16, OutOfBounds> {
        let word = self.place(at, size_of::<u16>(), align_of::<AtomicU16>())?;
        // SAFETY: inside and aligned, checked above; else as in `word64`.
        Ok(unsafe { AtomicU16::from_ptr(word.as_ptr().cast()) })
    }

    /// As [`View::u64`], for a place that was checked with it when its holder was made.
    #[inline]
    pub(crate) fn word64(&self, at: usize) -> &AtomicU64 {
        debug_assert!(self.place(at, size_of::<u64>(), align_of::<AtomicU64>()).is_ok());
        // SAFETY: the place is inside and aligned: every caller is `u64`, which checks it, or made
        // sure of it by calling `u64` with the same constant.
        let word = unsafe { self.base.add(at) };
        // SAFETY: as above; the word stays mapped while `self` is borrowed, and is reached as an atomic
        // by both sides (copies of the same bytes are the peer's to make, not this process's).
        unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) }
    }

    /// As [`View::u32`], for a place that was checked with it when its holder was made.
    #[inline]
    pub(crate) fn word32(&self, at: usize) -> &AtomicU32 {
        debug_assert!(self.place(at, size_of::<u32>(), align_of::<AtomicU32>()).is_ok());
        // SAFETY: as in `word64`, with `u32`.
        let word = unsafe { self.base.add(at) };
        // SAFETY: as in `word64`.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// Checks that `len` bytes from `at` are inside, and aligned.
    #[inline]
    pub(crate) fn place(
        &self,
        at: usize,
        len: usize,
        align: usize,
    ) -> Result<NonNull<u8>, OutOfBounds> {
        let outside = OutOfBounds { at, len, size: self.len };
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(outside);
        }
        // SAFETY: `at` is not past the end of one mapping, checked above.
        let place = unsafe { self.base.add(at) };
        if place.addr().get().is_multiple_of(align) { Ok(place) } else { Err(outside) }
    }
}

/// Keeps the compiler from taking a copy for its source: what was copied is what is checked.
#[inline]
fn settle() {
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}
