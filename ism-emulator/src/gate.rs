// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The gate of a DMB in the owner's RAM: copies go in, the owner closes it.
//!
//! Invariant: once `close` has been called nothing enters, and exactly when the last copy has left
//! a closed gate is it `quiet`: from then on the RAM is the owner's alone.

use crate::sync::{AtomicU32, Ordering};

const CLOSED: u32 = 1 << 31;

/// Counts the copies inside; the top bit says that no more may enter.
#[derive(Debug)]
pub struct Gate {
    state: AtomicU32,
}

/// What a copy that leaves has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Nothing.
    Done,
    /// It was the last one out of a closed gate, and somebody waits for that:
    /// call [`Fabric::settle`](crate::Fabric::settle).
    Settle,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// An open gate with nothing inside.
    pub fn new() -> Self {
        Self { state: AtomicU32::new(0) }
    }

    /// Enters, unless the gate is closed. (The count cannot reach the top bit: there are fewer
    /// copies than descriptors in all queues.)
    pub fn enter(&self) -> bool {
        // Acquire: the copy's writes come after the check.
        let enter = |state| (state & CLOSED == 0).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_ok()
    }

    /// Leaves; called once for each successful `enter`.
    pub fn leave(&self) -> Leave {
        // Release: who sees the gate quiet sees the copy's writes.
        match self.state.fetch_sub(1, Ordering::AcqRel) {
            before if before == CLOSED | 1 => Leave::Settle,
            _ => Leave::Done,
        }
    }

    /// Closes for ever. True if it is quiet already; else the copy that leaves last gets
    /// [`Leave::Settle`].
    pub fn close(&self) -> bool {
        self.state.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED == 0
    }

    /// No copy is inside.
    pub fn quiet(&self) -> bool {
        self.state.load(Ordering::Acquire) & !CLOSED == 0
    }
}
