// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Work that one thread does at a time, on behalf of all.
//!
//! Invariant: nobody waits; and work that was asked for begins after that was asked, by who asked or by who was at it
//! just then.

use crate::sync::{AtomicU32, Ordering};

/// Nobody is at it.
const FREE: u32 = 0;
/// A thread is.
const BUSY: u32 = 1;
/// A thread is, and has to begin once more.
const AGAIN: u32 = 2;

/// Whose turn it is.
#[derive(Debug)]
pub struct Turn(AtomicU32);

/// Ends a turn, also one in which the work panicked.
struct Ends<'a>(&'a AtomicU32);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(FREE, Ordering::Release);
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self(AtomicU32::new(FREE))
    }
}

impl Turn {
    /// Does `work`, unless a thread is at it.
    pub fn take(&self, work: impl FnMut()) {
        if self.0.compare_exchange(FREE, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.run(work);
        }
    }

    /// Does `work`, or has the thread that is at it begin once more. Also from within the work itself.
    pub fn ask(&self, work: impl FnMut()) {
        let mut was = self.0.load(Ordering::Relaxed);
        loop {
            let next = if was == FREE { BUSY } else { AGAIN };
            // Who is at it sees what was written before.
            match self.0.compare_exchange(was, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(FREE) => return self.run(work),
                Ok(_) => return,
                Err(now) => was = now,
            }
        }
    }

    fn run(&self, mut work: impl FnMut()) {
        let ends = Ends(&self.0);
        loop {
            work();
            let (was, order) = (BUSY, Ordering::AcqRel);
            if self.0.compare_exchange(was, FREE, order, Ordering::Relaxed).is_ok() {
                // The next one's turn may have begun.
                return std::mem::forget(ends);
            }
            self.0.swap(BUSY, Ordering::AcqRel);
        }
    }
}
