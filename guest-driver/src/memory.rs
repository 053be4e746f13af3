// SPDX-License-Identifier: GPL-2.0

//! Memory that others write: buffers for the device, DMBs in RAM, and the window.
//!
//! Invariant: an offset is checked against the length before memory is touched, and what is read
//! is a copy. The device and the peers may write at any time, so nothing here hands out a `&[u8]`
//! of such memory.

use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64},
};
use kernel::prelude::*;

use crate::{
    ffi,
    native::{self, Native},
};

/// Physically contiguous memory for requests to the device.
pub(crate) struct Buffer {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: Owned alone; written and read by copying only.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Zeroed; at most some pages.
    pub(crate) fn new(len: usize) -> Result<Self> {
        // SAFETY: Has no conditions.
        let ptr = NonNull::new(unsafe { ffi::ism_alloc(len) }.cast()).ok_or(ENOMEM)?;
        Ok(Self { ptr, len })
    }

    fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        // SAFETY: `offset` is at most `self.len` when `end` is.
        (end <= self.len).then(|| unsafe { self.ptr.as_ptr().add(offset) })
    }

    /// For `Native::queue_add`: address and length of a part, or of nothing.
    pub(crate) fn part(&self, offset: usize, len: usize) -> (*mut u8, usize) {
        self.at(offset, len).map_or(NOTHING, |ptr| (ptr, len))
    }

    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        let from = self.at(offset, to.len())?;
        // SAFETY: In bounds; `to` is ours alone. A device that still writes can spoil only the
        // copy's value.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Some(())
    }

    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) -> Option<()> {
        let to = self.at(offset, from.len())?;
        // SAFETY: In bounds; `from` is somewhere else.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Some(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: From ism_alloc(); the device was reset before the Rust half is dropped.
        unsafe { ffi::ism_free(self.ptr.as_ptr().cast()) }
    }
}

/// An absent part of a buffer.
pub(crate) const NOTHING: (*mut u8, usize) = (ptr::null_mut(), 0);

/// Zeroed pages in RAM, contiguous: a DMB of copied mode, or payloads of move requests.
pub(crate) struct Pages {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: Owned alone; written and read by copying only.
unsafe impl Send for Pages {}

impl Pages {
    /// Sleeps. Fails early, rather than making others give up memory.
    pub(crate) fn new(len: usize) -> Result<Self> {
        // SAFETY: Has no conditions.
        let ptr = NonNull::new(unsafe { ffi::ism_alloc_pages(len) }.cast()).ok_or(ENOMEM)?;
        Ok(Self { ptr, len })
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Guest-physical address.
    pub(crate) fn ram_addr(&self) -> u64 {
        // SAFETY: In the linear map.
        unsafe { ffi::ism_ram_addr(self.ptr.as_ptr().cast()) }
    }

    pub(crate) fn write(&mut self, offset: usize, from: &Payload<'_>) -> Option<(*mut u8, usize)> {
        let end = offset.checked_add(from.len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset` is in bounds.
        let to = unsafe { self.ptr.as_ptr().add(offset) };
        // SAFETY: Both are `from.len` bytes long, and apart.
        unsafe { ptr::copy_nonoverlapping(from.ptr, to, from.len) };
        Some((to, from.len))
    }
}

impl Drop for Pages {
    /// Pages that a pipe still holds are freed by it.
    fn drop(&mut self) {
        // SAFETY: From ism_alloc_pages(), and the device no longer writes them.
        unsafe { ffi::ism_free_pages(self.ptr.as_ptr().cast()) }
    }
}

/// What move_data() was given: bytes of the caller, who may let others write them meanwhile
/// (SMC's send buffer), so it is not a slice.
#[derive(Clone, Copy)]
pub(crate) struct Payload<'a> {
    ptr: *const u8,
    len: usize,
    lifetime: core::marker::PhantomData<&'a u8>,
}

impl Payload<'_> {
    /// # Safety
    ///
    /// `ptr` must be readable for `len` bytes during the value's life, or `len` 0.
    pub(crate) unsafe fn new(ptr: *const u8, len: usize) -> Self {
        Self {
            ptr,
            len,
            lifetime: core::marker::PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// For bytes of our own.
    pub(crate) fn of(bytes: &[u8]) -> Payload<'_> {
        Payload {
            ptr: bytes.as_ptr(),
            len: bytes.len(),
            lifetime: core::marker::PhantomData,
        }
    }

    /// A copy, if it is as long as that.
    pub(crate) fn array<const LEN: usize>(&self) -> Option<[u8; LEN]> {
        let mut bytes = [0; LEN];
        if self.len != LEN {
            return None;
        }
        // SAFETY: Both have `LEN` bytes, and are apart.
        unsafe { ptr::copy_nonoverlapping(self.ptr, bytes.as_mut_ptr(), LEN) };
        Some(bytes)
    }

    /// At most `max` bytes from `offset` on; nothing past the end.
    pub(crate) fn part(&self, offset: usize, max: usize) -> Self {
        let offset = offset.min(self.len);
        Self {
            // SAFETY: `offset` is in bounds.
            ptr: unsafe { self.ptr.add(offset) },
            len: (self.len - offset).min(max),
            lifetime: self.lifetime,
        }
    }
}

/// The window: memory shared with peers, at offsets that the device tells.
pub(crate) struct Window {
    ptr: NonNull<u8>,
    len: u64,
}

// SAFETY: Shared memory by nature; every access copies, or is atomic.
unsafe impl Send for Window {}
// SAFETY: As above.
unsafe impl Sync for Window {}

/// Up to this many bytes are written in words, for cursors must not tear; longer ones are data.
const WORDWISE: usize = 256;

impl Window {
    /// Maps the device's window, of which `len` bytes are used.
    pub(crate) fn map(native: Native, len: u64) -> Result<Self> {
        let ptr = native.window_map().ok_or(ENOMEM)?;
        Ok(Self { ptr, len })
    }

    fn at(&self, offset: u64, len: u64) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        // SAFETY: Inside the mapping, which is not shorter than `self.len` (Device::new).
        (end <= self.len).then(|| unsafe { self.ptr.as_ptr().add(offset as usize) })
    }

    pub(crate) fn contains(&self, offset: u64, len: u64) -> bool {
        self.at(offset, len).is_some()
    }

    /// For attach_dmb(), whose caller wants the address.
    pub(crate) fn address(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        self.at(offset, len).and_then(NonNull::new)
    }

    pub(crate) fn write(&self, offset: u64, from: &Payload<'_>) -> Option<()> {
        let to = self.at(offset, from.len as u64)?;
        if from.len <= WORDWISE && offset % 8 == 0 {
            // SAFETY: In bounds and aligned; both are `from.len` bytes long.
            unsafe { copy_words(from.ptr, to, from.len) };
        } else {
            // SAFETY: In bounds; the caller's memory and the window are apart. A peer that
            // writes the same bytes spoils only data that it may write anyway.
            unsafe { ptr::copy_nonoverlapping(from.ptr, to, from.len) };
        }
        Some(())
    }

    pub(crate) fn word32(&self, offset: u64) -> Option<&AtomicU32> {
        let at = self.at(offset, 4).filter(|_| offset % 4 == 0)?;
        // SAFETY: In bounds, aligned (the mapping starts on a page), mapped as long as `self`
        // exists, and only accessed atomically by both sides.
        Some(unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    pub(crate) fn word64(&self, offset: u64) -> Option<&AtomicU64> {
        let at = self.at(offset, 8).filter(|_| offset % 8 == 0)?;
        // SAFETY: As above.
        Some(unsafe { AtomicU64::from_ptr(at.cast()) })
    }
}

/// Copies with one store for each aligned 8 bytes.
///
/// # Safety
///
/// `from` readable and `to` writable for `len` bytes; `to` aligned to 8.
unsafe fn copy_words(from: *const u8, to: *mut u8, len: usize) {
    let mut at: usize = 0;
    while at.wrapping_add(8) <= len {
        // SAFETY: `at + 8 <= len`; `to + at` is aligned.
        unsafe {
            let word = from.add(at).cast::<u64>().read_unaligned();
            to.add(at).cast::<u64>().write_volatile(word);
        }
        at = at.wrapping_add(8);
    }
    while at < len {
        // SAFETY: `at < len`.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
        at = at.wrapping_add(1);
    }
}

/// Where a DMB of this member lies.
pub(crate) enum Place {
    /// In an extent of the window that has pages; the extent outlives the DMB (dmb.rs).
    Window(NonNull<u8>),
    /// In RAM.
    Ram(Pages),
}

// SAFETY: An address, used only to look at the pages' use counts and to hand it to dibs.
unsafe impl Send for Place {}

impl Place {
    pub(crate) fn address(&self) -> NonNull<u8> {
        match self {
            Self::Window(ptr) => *ptr,
            Self::Ram(pages) => pages.ptr(),
        }
    }

    /// Whether the memory must not be used anew, because a pipe refers to it. Pages in RAM are
    /// freed by their last user instead.
    pub(crate) fn held(&self, len: usize) -> bool {
        match self {
            // SAFETY: The extent has pages.
            Self::Window(ptr) => unsafe { native::pages_held(*ptr, len) },
            Self::Ram(_) => false,
        }
    }

    /// The first 32 bytes, folded: differs when a peer wrote there. SMC keeps its cursors in
    /// them.
    pub(crate) fn head(&self) -> u64 {
        let words = self.address().cast::<u64>();
        let mut folded: u64 = 0;
        for word in 0..4 {
            // SAFETY: A DMB has at least `abi::MIN_DMB_LEN` bytes and starts on a page.
            let value = unsafe { words.as_ptr().add(word).read_volatile() };
            folded = folded.rotate_left(17) ^ value;
        }
        folded
    }
}
