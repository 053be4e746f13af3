// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A copy past the caches, into memory itself.
//!
//! Invariant: what is stored after the copy is seen after its bytes, as with any other copy.
//!
//! A store takes its cache line from whoever has it. Where that is a core with which this one shares no cache, and the
//! same lines go to and fro between the two, each line is waited for twice. Stores past the caches wait for none: the
//! reader takes the bytes from memory, which many lines at a time come from.
#![expect(unsafe_code, reason = "instructions that store past the caches take raw pointers")]

/// Copies `len` bytes. Between cores with a common cache it is slower than an ordinary copy.
///
/// # Safety
/// `len` bytes can be read at `from` and written at `to`, and the two do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const STEP: usize = size_of::<__m128i>();
    /// A cache line: its parts go out together.
    const LINE: usize = 64;

    // Up to the first whole line of the target.
    let head = to.align_offset(LINE).min(len);
    // SAFETY: `head` is at most `len`, of which the caller says that they can be copied.
    unsafe { std::ptr::copy_nonoverlapping(from, to, head) };
    let end = head + (len - head) / LINE * LINE;
    for at in (head..end).step_by(STEP) {
        // SAFETY: `at` is before `end`, which is at most `len`.
        let source = unsafe { from.add(at) };
        // SAFETY: `end - at` is a positive multiple of STEP, so as many bytes can be read here, at any alignment.
        let bytes = unsafe { _mm_loadu_si128(source.cast()) };
        // SAFETY: as for `source`.
        let target = unsafe { to.add(at) };
        // SAFETY: as many bytes can be written here, and `head` made the place a multiple of STEP; the fence below
        // comes before this function's end, so nobody relies on the order of the stores before.
        unsafe { _mm_stream_si128(target.cast(), bytes) };
    }
    // SAFETY: `end` is at most `len`.
    let source = unsafe { from.add(end) };
    // SAFETY: as for `source`.
    let target = unsafe { to.add(end) };
    // SAFETY: the last `len - end` bytes of what the caller says.
    unsafe { std::ptr::copy_nonoverlapping(source, target, len - end) };
    // SAFETY: every x86-64 has the instruction.
    unsafe { _mm_sfence() };
}

/// As any other copy: this machine has no such instruction that is known here.
///
/// # Safety
/// As above.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller says so.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}
