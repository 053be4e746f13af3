// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where in a member's window its extents are.
//!
//! Invariant: places handed out do not overlap, start at multiples of `WINDOW_ALIGN`, and are
//! followed by `WINDOW_ALIGN` bytes that are never mapped.

use std::collections::VecDeque;

use ism_abi::WINDOW_ALIGN;

/// All extents have the same size, so a window is a row of slots.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Bytes from one slot to the next: the extent and the gap behind it.
    stride: u64,
    slots: u64,
    /// Slots from here on were never used; they go first, so that a place is used again as late
    /// as possible after it was unmapped.
    fresh: u64,
    freed: VecDeque<u64>,
}

impl Window {
    /// The slots of a window of `size` bytes (0: no window) for extents of `chunk` bytes.
    pub(crate) fn new(size: u64, chunk: u64) -> Self {
        let stride = chunk.saturating_add(WINDOW_ALIGN);
        Self { stride, slots: size / stride, fresh: 0, freed: VecDeque::new() }
    }

    /// A free place's offset in bytes.
    pub(crate) fn take(&mut self) -> Option<u64> {
        if self.fresh < self.slots {
            self.fresh += 1;
            return Some((self.fresh - 1) * self.stride);
        }
        self.freed.pop_front()
    }

    /// Gives back a place that `take` returned.
    pub(crate) fn give_back(&mut self, offset: u64) {
        self.freed.push_back(offset);
    }
}
