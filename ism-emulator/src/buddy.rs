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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SIZE: u64 = 4 << 20;

    #[test]
    fn lengths_are_rounded_up() {
        let lens = [1, 16 << 10, (16 << 10) + 1, 68 << 10, 1 << 20].map(block_len);
        assert_eq!(lens, [16 << 10, 16 << 10, 32 << 10, 128 << 10, 1 << 20]);
    }

    /// Takes and gives back in a fixed disorder, and looks at every block on the way.
    #[test]
    fn blocks_do_not_overlap_and_join_again() {
        let mut buddy = Buddy::new(SIZE);
        let mut taken: Vec<(u64, u64)> = Vec::new();
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = random >> 33;
            let block = u64::from(MIN_DMB_LEN) << (pick % 7);
            if pick & 8 == 0 {
                if let Some(offset) = buddy.take(block) {
                    assert!(offset.is_multiple_of(block) && offset + block <= SIZE);
                    let apart =
                        |&(at, len): &(u64, u64)| at + len <= offset || offset + block <= at;
                    assert!(taken.iter().all(apart));
                    taken.push((offset, block));
                }
            } else if !taken.is_empty() {
                let nth = usize::try_from(pick).unwrap_or(0) % taken.len();
                let (offset, block) = taken.swap_remove(nth);
                buddy.give_back(offset, block);
            }
        }
        for (offset, block) in taken {
            buddy.give_back(offset, block);
        }
        // Whole again: four of the largest fit, and no fifth.
        let whole: Vec<_> = (0..5).map(|_| buddy.take(1 << 20)).collect();
        assert_eq!(whole, [Some(0), Some(1 << 20), Some(2 << 20), Some(3 << 20), None]);
    }
}
