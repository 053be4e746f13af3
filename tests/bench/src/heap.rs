// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Counts what is allocated.
//!
//! Invariant: counts only inside of [`growth`], and of the whole process; everything else is the
//! system's allocator.

#![expect(unsafe_code, reason = "an allocator can only be wrapped by an unsafe implementation")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The system's allocator, counted. A program makes it its `#[global_allocator]`.
#[derive(Debug)]
pub struct Counted;

static ON: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// What some work did to the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Bytes that stayed, as they were asked for; 0 if more was given back than taken.
    pub bytes: u64,
    /// Allocations, given back or not.
    pub allocations: u64,
}

/// What `work` does to the heap. One at a time.
pub fn growth<T>(work: impl FnOnce() -> T) -> (T, Growth) {
    for counter in [&ALLOCATIONS, &TAKEN, &GIVEN] {
        counter.store(0, Relaxed);
    }
    ON.store(true, Relaxed);
    let outcome = work();
    ON.store(false, Relaxed);
    let bytes = TAKEN.load(Relaxed).saturating_sub(GIVEN.load(Relaxed));
    (outcome, Growth { bytes, allocations: ALLOCATIONS.load(Relaxed) })
}

fn count(counter: &AtomicU64, bytes: usize) {
    if ON.load(Relaxed) {
        counter.fetch_add(bytes as u64, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATIONS, 1);
        count(&TAKEN, layout.size());
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(&GIVEN, layout.size());
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(&ALLOCATIONS, 1);
        count(&GIVEN, layout.size());
        count(&TAKEN, size);
        // SAFETY: the caller's promises are the same.
        unsafe { System.realloc(place, layout, size) }
    }
}
