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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_apart_and_come_back_last() {
        let (chunk, stride) = (32 << 20, 34 << 20);
        let mut window = Window::new(3 * stride + chunk, chunk);
        assert_eq!(window.take(), Some(0));
        window.give_back(0);
        // The fourth would have no gap behind it.
        let rest: Vec<_> = (0..4).map(|_| window.take()).collect();
        assert_eq!(rest, [Some(stride), Some(2 * stride), Some(0), None]);
        assert_eq!(Window::new(0, chunk).take(), None);
    }
}
