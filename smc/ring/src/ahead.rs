// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A copy of what another core has just written.
//!
//! Invariant: nothing is fetched but what is copied: lines behind it are left to the writer, who may be at them.
//!
//! Each line comes from the writer's cache, which takes as long as many loads from an own one. A core fetches
//! ahead by itself, but begins anew at each page of 4 KiB; told what it will need, it does not pause there
//! (docs/host-speed.md).
#![expect(unsafe_code, reason = "copies from raw pointers, and hints about them")]

/// So far ahead lines are asked for: a page. No more than that is copied as anything else is.
pub(crate) const AHEAD: usize = 4 << 10;

/// Copies `len` bytes.
///
/// # Safety
/// `len` bytes can be read at `from` and written at `to`, and the two do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

    /// Bytes between two rounds of hints.
    const BLOCK: usize = 2 << 10;
    /// A cache line.
    const LINE: usize = 64;

    for at in (0..len).step_by(BLOCK) {
        let n = BLOCK.min(len - at);
        for line in (at + AHEAD..len.min(at + AHEAD + n)).step_by(LINE) {
            // SAFETY: `line` is less than `len`, of which the caller says that it can be read.
            let line = unsafe { from.add(line) };
            // SAFETY: a hint; it reads nothing that the program sees.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
        }
        // SAFETY: `at` is less than `len`.
        let source = unsafe { from.add(at) };
        // SAFETY: as above.
        let target = unsafe { to.add(at) };
        // SAFETY: `at + n` is at most `len`, of which the caller says that it can be copied.
        unsafe { std::ptr::copy_nonoverlapping(source, target, n) };
    }
}

/// As any other copy: for other machines nothing was measured.
///
/// # Safety
/// As above.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller says so.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}
