// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a connection copies large pieces into the peer's ring: through the caches, or past them.
//!
//! Invariant: a connection copies past them only while that is much faster than what went through them before, but for a
//! short try after it was slow.
//!
//! Two cores that share a cache pass bytes on in it. Two that share none take each cache line of the ring from one
//! another, as often as the ring is written and read; then it can be faster to leave the caches out. Which it is the
//! scheduler and the hypervisor may change at any time, so it is measured: by the sender alone, whose stores wait for the
//! lines that the reader has.

use std::time::Duration;

use smc_proto::Instant;

use crate::clock;

/// Fewer bytes are copied through the caches, and not timed.
const LARGE: usize = 8 << 10;
/// Bytes a nanosecond, of a copy through the caches that is fast enough not to be compared with another.
const FAST: u64 = 12;
/// So many more that were slow than were fast are no accident, such as an interrupt.
const ENOUGH: u32 = 4;
/// One large piece in so many is timed while they are fast.
const TIMED: u32 = 8;
/// So many times as fast is much faster. The reader, whose bytes come from memory then, is slower than before.
const MUCH: u64 = 2;
/// So many pieces tell whether it is.
const TRIAL: u32 = 8;
/// For so many rings' bytes what was found out stands.
const STANDS: usize = 256;

/// What a connection has learned.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Whether it copies past the caches.
    past: bool,
    /// Bytes that were copied this way since it was chosen, a ring's at most. The first time around the lines are not
    /// yet where they will be, and the pages may be new.
    begun: usize,
    /// Bytes to be copied this way without a question.
    settled: usize,
    /// Large pieces until one is timed.
    untimed: u32,
    /// So many more were slow than were fast lately.
    slow: u32,
    /// Those that were slow, through the caches.
    before: Best,
    /// Those that were tried, past them.
    tried: Best,
}

/// The fastest of some pieces: one that was interrupted says nothing.
#[derive(Debug, Default)]
struct Best {
    pieces: u32,
    bytes: u64,
    nanos: u64,
}

impl Best {
    fn add(&mut self, bytes: usize, nanos: u64) {
        self.pieces += 1;
        let piece = Self { bytes: bytes as u64, nanos, ..Self::default() };
        if self.pieces == 1 || piece.is_faster_than(self, 1) {
            (self.bytes, self.nanos) = (piece.bytes, nanos);
        }
    }

    /// Whether it is `times` as fast as `other`, or faster.
    fn is_faster_than(&self, other: &Self, times: u64) -> bool {
        let weighed = |bytes: u64, nanos: u64| u128::from(bytes) * u128::from(nanos);
        weighed(self.bytes, other.nanos) >= u128::from(times) * weighed(other.bytes, self.nanos)
    }
}

/// When a copy began, if that matters.
#[derive(Debug)]
pub(crate) struct Timing(Option<Instant>);

/// How to copy a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// Past the caches.
    past: bool,
    /// What it takes is asked for.
    timed: bool,
}

impl Pace {
    /// The way for a piece of `len` bytes into a ring of `ring`.
    #[inline]
    fn way(&mut self, len: usize, ring: usize) -> Way {
        if len < LARGE {
            return Way { past: false, timed: false };
        }
        let past = self.past;
        let timed = if self.begun < ring {
            self.begun += len;
            false
        } else if self.settled > 0 {
            self.settled = self.settled.saturating_sub(len);
            if self.settled == 0 {
                self.choose(false);
            }
            false
        } else if self.untimed > 0 {
            self.untimed -= 1;
            false
        } else {
            true
        };
        Way { past, timed }
    }

    /// From now on it goes this way, and what is known does not count.
    fn choose(&mut self, past: bool) {
        let before = if past { std::mem::take(&mut self.before) } else { Best::default() };
        *self = Self { past, before, ..Self::default() };
    }

    /// A piece of `len` bytes is going to be copied into a ring of `ring`. Whether past the caches, and what
    /// [`Pace::end`] wants to know.
    #[inline]
    pub(crate) fn begin(&mut self, len: usize, ring: usize) -> (bool, Timing) {
        let way = self.way(len, ring);
        (way.past, Timing(way.timed.then(clock::now)))
    }

    /// It was copied.
    #[inline]
    pub(crate) fn end(&mut self, len: usize, ring: usize, timing: Timing) {
        if let Timing(Some(start)) = timing {
            self.learn(len, ring, clock::now().since(start));
        }
    }

    /// A piece took so long.
    fn learn(&mut self, len: usize, ring: usize, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if self.past { self.tried(len, ring, nanos) } else { self.went_through(len, nanos) }
    }

    fn went_through(&mut self, len: usize, nanos: u64) {
        if nanos.saturating_mul(FAST) > len as u64 {
            self.slow += 1;
            self.before.add(len, nanos);
        } else {
            self.slow = self.slow.saturating_sub(1);
        }
        match self.slow {
            0 => (self.untimed, self.before) = (TIMED - 1, Best::default()),
            ENOUGH.. => self.choose(true),
            _ => {}
        }
    }

    fn tried(&mut self, len: usize, ring: usize, nanos: u64) {
        self.tried.add(len, nanos);
        if self.tried.pieces == TRIAL {
            if !self.tried.is_faster_than(&self.before, MUCH) {
                self.choose(false);
            }
            self.settled = STANDS * ring;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 32 << 10;
    const RING: usize = 64 * PIECE - 32;
    /// Pieces of a ring.
    const ROUND: u32 = 64;
    /// Enough to try the other way some times.
    const MANY: u32 = 2000 * ROUND;
    const FAST_COPY: Duration = Duration::from_micros(1);
    const SLOW_COPY: Duration = Duration::from_micros(10);

    /// How many of `pieces` go past the caches, if each that is timed takes `through` or `past`.
    fn go(pace: &mut Pace, pieces: u32, through: Duration, past: Duration) -> u32 {
        let mut all = 0;
        for _ in 0..pieces {
            let way = pace.way(PIECE, RING);
            all += u32::from(way.past);
            if way.timed {
                pace.learn(PIECE, RING, if way.past { past } else { through });
            }
        }
        all
    }

    #[test]
    fn far_cores_go_past_the_caches_and_near_ones_do_not() {
        let mut pace = Pace::default();
        assert_eq!(go(&mut pace, MANY, FAST_COPY, FAST_COPY), 0);
        assert!(go(&mut pace, MANY, SLOW_COPY, FAST_COPY) > MANY / 50 * 49);
        // They are near again, which is seen when it is tried next.
        assert!(go(&mut pace, MANY, FAST_COPY, FAST_COPY) <= 258 * ROUND);
        assert_eq!(go(&mut pace, MANY, FAST_COPY, FAST_COPY), 0);
    }

    #[test]
    fn where_the_other_way_is_slow_too_it_is_hardly_ever_tried() {
        let mut pace = Pace::default();
        let past = go(&mut pace, MANY, SLOW_COPY, SLOW_COPY * 2 / 3);
        assert!((ROUND..MANY / 100).contains(&past), "{past}");
    }

    #[test]
    fn the_first_time_around_the_ring_counts_for_nothing() {
        let mut pace = Pace::default();
        assert_eq!(go(&mut pace, ROUND + ENOUGH, SLOW_COPY, FAST_COPY), 0);
        // Nor does it past the caches.
        assert_eq!(go(&mut pace, ROUND, SLOW_COPY, SLOW_COPY), ROUND);
        assert_eq!(pace.tried.pieces, 0);
        assert_eq!(go(&mut pace, TRIAL, SLOW_COPY, FAST_COPY), TRIAL);
        // It stands, and then what was before is tried again, for a ring and a few pieces.
        assert_eq!(go(&mut pace, 256 * ROUND, SLOW_COPY, FAST_COPY), 256 * ROUND);
        assert_eq!(go(&mut pace, ROUND + ENOUGH, SLOW_COPY, FAST_COPY), 0);
        assert_eq!(go(&mut pace, 2, SLOW_COPY, FAST_COPY), 2);
    }

    #[test]
    fn a_slow_copy_now_and_then_changes_nothing() {
        let mut pace = Pace::default();
        go(&mut pace, ROUND, FAST_COPY, FAST_COPY);
        for _ in 0..100 {
            assert_eq!(go(&mut pace, 2, SLOW_COPY, FAST_COPY), 0);
            assert_eq!(go(&mut pace, 2 * TIMED, FAST_COPY, FAST_COPY), 0);
        }
    }

    #[test]
    fn an_interrupted_piece_is_not_what_copies_take() {
        let mut pace = Pace::default();
        go(&mut pace, ROUND, FAST_COPY, FAST_COPY);
        // All but one are interrupted, and the other way is no better than that one.
        go(&mut pace, ENOUGH - 1, SLOW_COPY * 100, FAST_COPY);
        assert_eq!(go(&mut pace, ROUND + TRIAL + 1, SLOW_COPY, SLOW_COPY), ROUND + TRIAL);
        assert_eq!(go(&mut pace, 2 * ROUND, SLOW_COPY, SLOW_COPY), 0);
    }

    #[test]
    fn small_pieces_are_not_asked_about() {
        let mut pace = Pace::default();
        go(&mut pace, ROUND + ENOUGH, SLOW_COPY, FAST_COPY);
        assert!(!pace.way(LARGE - 1, RING).past);
        assert!(pace.way(LARGE, RING).past);
    }
}
