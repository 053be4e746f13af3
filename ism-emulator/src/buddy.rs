// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which blocks of an extent are free.
//!
//! Invariant: a block is a power of two long and starts at a multiple of its length, so that none
//! crosses a multiple of `WINDOW_ALIGN`; blocks handed out do not overlap.

use std::collections::BTreeSet;

use ism_abi::{MAX_DMB_LEN, MIN_DMB_LEN};

/// Orders: a block of order n is `MIN_DMB_LEN << n` bytes.
const ORDERS: usize = (MAX_DMB_LEN / MIN_DMB_LEN).trailing_zeros() as usize + 1;

/// Offsets of the free blocks, by order.
#[derive(Debug)]
pub(crate) struct Buddy {
    free: [BTreeSet<u64>; ORDERS],
}

/// The length of the block that holds `len` bytes; `len` is at most `MAX_DMB_LEN`.
pub(crate) fn block_len(len: u32) -> u64 {
    u64::from(len.max(MIN_DMB_LEN)).next_power_of_two()
}

/// The order of a block length.
fn order(block: u64) -> usize {
    (block / u64::from(MIN_DMB_LEN)).trailing_zeros() as usize
}

impl Buddy {
    /// `size` free bytes, a multiple of `MAX_DMB_LEN`.
    pub(crate) fn new(size: u64) -> Self {
        let mut free = [const { BTreeSet::new() }; ORDERS];
        if let Some(largest) = free.last_mut() {
            let step = u64::from(MAX_DMB_LEN);
            largest.extend((0..size / step).map(|n| n * step));
        }
        Self { free }
    }

    /// Takes the lowest of the smallest free blocks that hold `block` bytes (a [`block_len`]).
    pub(crate) fn take(&mut self, block: u64) -> Option<u64> {
        let wanted = order(block);
        let found = (wanted..ORDERS).find(|&o| self.free.get(o).is_some_and(|f| !f.is_empty()))?;
        let offset = self.free.get_mut(found)?.pop_first()?;
        for split in wanted..found {
            let upper_half = offset + (u64::from(MIN_DMB_LEN) << split);
            self.free.get_mut(split)?.insert(upper_half);
        }
        Some(offset)
    }

    /// Gives back a block that `take` returned, joining it with its free neighbours.
    pub(crate) fn give_back(&mut self, mut offset: u64, block: u64) {
        for at in order(block)..ORDERS {
            let len = u64::from(MIN_DMB_LEN) << at;
            let Some(free) = self.free.get_mut(at) else {
                return;
            };
            let buddy = offset ^ len;
            if at + 1 == ORDERS || !free.remove(&buddy) {
                free.insert(offset);
                return;
            }
            offset = offset.min(buddy);
        }
    }
}
