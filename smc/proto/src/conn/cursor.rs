// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Arithmetic of cursors in a ring.
//!
//! Invariant: a cursor that came out of here has `count < ring length`; a distance is at most one
//! ring length.

use std::ops::Range;

use smc_wire::cdc::{Cursor, Smcd};

/// A ring's length in bytes, 1 to [`Ring::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ring(u32);

impl Ring {
    /// 512 MiB, the largest that a handshake can agree on; a sum of two such lengths fits in 32 bits.
    pub const MAX: u32 = 1 << 29;

    /// A ring of `len` bytes, if that is 1 to [`Ring::MAX`].
    pub const fn new(len: u32) -> Option<Self> {
        if len == 0 || len > Self::MAX { None } else { Some(Self(len)) }
    }

    /// The ring of a DMB of `len` bytes: what is left behind the CDC area (`smcd_new_buf_create`).
    pub const fn of_dmb(len: u32) -> Option<Self> {
        match len.checked_sub(Smcd::BYTES) {
            Some(len) => Self::new(len),
            None => None,
        }
    }

    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "no ring is empty")]
    pub const fn len(self) -> u32 {
        self.0
    }

    /// The cursor `n` bytes behind `at`; `n` is at most the ring's length (`smc_curs_add`).
    pub(super) const fn advance(self, at: Cursor, n: u32) -> Cursor {
        let count = at.count + n;
        if count >= self.0 {
            Cursor { wrap: at.wrap.wrapping_add(1), count: count - self.0 }
        } else {
            Cursor { wrap: at.wrap, count }
        }
    }

    /// The cursor `n` bytes before `at`; `n` is at most the ring's length.
    pub(super) const fn retreat(self, at: Cursor, n: u32) -> Cursor {
        if at.count >= n {
            Cursor { wrap: at.wrap, count: at.count - n }
        } else {
            Cursor { wrap: at.wrap.wrapping_sub(1), count: at.count + self.0 - n }
        }
    }

    /// Bytes from `from` to `to`, if `to` is a cursor of this ring and 0 to one length ahead.
    ///
    /// `from` is a cursor of this ring, `to` may be a peer's and hold anything. The kernel's `smc_curs_diff` takes
    /// any other wrap as the next one and does not look at the count.
    pub(super) const fn distance(self, from: Cursor, to: Cursor) -> Option<u32> {
        if to.count >= self.0 {
            return None;
        }
        match to.wrap.wrapping_sub(from.wrap) {
            0 => to.count.checked_sub(from.count),
            1 if to.count <= from.count => Some(self.0 - from.count + to.count),
            _ => None,
        }
    }

    /// Whether `is`, which may hold anything, is a cursor of this ring and at most one length behind
    /// `last`.
    pub(super) const fn repeats(self, is: Cursor, last: Cursor) -> bool {
        is.count < self.0 && self.distance(is, last).is_some()
    }

    /// Where the `n` bytes from `at` on are: `n` is at most the ring's length.
    pub(super) fn chunks(self, at: u32, n: u32) -> Chunks {
        let first = n.min(self.0 - at);
        Chunks { at, first, second: n - first }
    }
}

/// At most two pieces of a ring: the second, if there is one, is at the ring's begin.
///
/// Offsets count from the begin of the ring, which in a DMB is 32 bytes behind the DMB's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chunks {
    at: u32,
    first: u32,
    second: u32,
}

impl Chunks {
    /// Bytes in both pieces.
    pub const fn total(self) -> u32 {
        self.first + self.second
    }

    /// Whether there is no byte.
    pub const fn is_empty(self) -> bool {
        self.first == 0
    }

    /// The two pieces as ranges to slice the ring with, in the stream's order; the second may be
    /// empty.
    pub const fn ranges(self) -> [Range<usize>; 2] {
        [self.at as usize..(self.at + self.first) as usize, 0..self.second as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: Ring = Ring(100);

    fn at(wrap: u16, count: u32) -> Cursor {
        Cursor { wrap, count }
    }

    // row 38
    #[test]
    fn the_wrap_rolls_over() {
        assert_eq!(RING.advance(at(0xFFFF, 99), 1), at(0, 0));
        assert_eq!(RING.advance(at(0xFFFF, 40), 100), at(0, 40));
        assert_eq!(RING.retreat(at(0, 0), 1), at(0xFFFF, 99));
        assert_eq!(RING.distance(at(0xFFFF, 90), at(0, 10)), Some(20));
        assert_eq!(RING.distance(at(0xFFFF, 0), at(0, 0)), Some(100));
        assert_eq!(RING.distance(at(0, 0), at(0xFFFF, 0)), None);
    }

    // row 40
    #[test]
    fn a_distance_is_at_most_a_ring() {
        for (from, to, distance) in [
            (at(3, 10), at(3, 10), Some(0)),
            (at(3, 10), at(3, 99), Some(89)),
            (at(3, 10), at(4, 10), Some(100)),
            (at(3, 10), at(4, 11), None),
            (at(3, 10), at(3, 9), None),
            (at(3, 10), at(5, 0), None),
            (at(3, 10), at(2, 99), None),
            (at(3, 10), at(3, 100), None),
            (at(3, 10), at(4, u32::MAX), None),
        ] {
            assert_eq!(RING.distance(from, to), distance, "{from:?} {to:?}");
        }
    }

    // row 37
    #[test]
    fn a_dmbs_ring_is_what_the_area_leaves() {
        assert_eq!(Ring::of_dmb(16384).map(Ring::len), Some(16352));
        assert_eq!(Ring::of_dmb(32), None);
        assert_eq!(Ring::of_dmb(31), None);
        assert_eq!(Ring::new(Ring::MAX + 1), None);
    }

    #[test]
    fn what_crosses_the_end_is_in_two_chunks() {
        assert_eq!(RING.chunks(90, 10).ranges(), [90..100, 0..0]);
        assert_eq!(RING.chunks(90, 30).ranges(), [90..100, 0..20]);
        assert!(RING.chunks(5, 0).is_empty());
    }
}
