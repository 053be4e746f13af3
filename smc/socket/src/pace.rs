// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a connection copies large pieces into the peer's ring: through the caches, or past them.
//!
//! Invariant: a connection whose copies through the caches are fast, or have become so, copies through them, but for
//! a short time after it began or was slow.
//!
//! Two cores that share a cache pass bytes on in it. Two that share none take each cache line of the ring from one
//! another, as often as the ring is written and read; then it is faster to leave the caches out. Which it is the
//! scheduler and the hypervisor may change at any time, so it is measured: by the sender alone, whose stores wait for the
//! lines that the reader has.

use std::time::Duration;

use smc_proto::Instant;

use crate::clock;

/// Fewer bytes are copied through the caches, and not timed.
const LARGE: usize = 8 << 10;
/// Bytes a nanosecond, of a copy through the caches that is fast: half of what near cores reach at least, and about what
/// goes past the caches. Far cores, for which that is made, have 2.5 to 5.
const FAST: u64 = 8;
/// So many more that were slow than were fast are no accident, such as an interrupt.
const ENOUGH: u32 = 4;
/// One large piece in so many is timed while they are fast.
const TIMED: u32 = 8;
/// After so many rings' bytes past the caches it is tried again through them.
const TRIED: usize = 256;

/// What a connection has learned.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes to copy past the caches.
    past: usize,
    /// Bytes that were copied through them since, a ring's at most. The first time around the lines are not yet where
    /// they will be, and the pages may be new.
    through: usize,
    /// Large pieces until one is timed.
    untimed: u32,
    /// So many more were slow than were fast lately.
    slow: u32,
}

/// When a copy began, if that matters.
#[derive(Debug)]
pub(crate) struct Timing(Option<Instant>);

/// How to copy a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the caches.
    Through,
    /// Through the caches, and what it took is asked for.
    Timed,
    /// Past the caches.
    Past,
}

impl Pace {
    /// The way for a piece of `len` bytes into a ring of `ring`.
    #[inline]
    fn way(&mut self, len: usize, ring: usize) -> Way {
        if len < LARGE {
            Way::Through
        } else if self.past > 0 {
            self.past = self.past.saturating_sub(len);
            (self.through, self.untimed, self.slow) = (0, 0, 0);
            Way::Past
        } else if self.through < ring {
            self.through += len;
            Way::Through
        } else if self.untimed > 0 {
            self.untimed -= 1;
            Way::Through
        } else {
            Way::Timed
        }
    }

    /// A piece of `len` bytes is going to be copied into a ring of `ring`. Whether past the caches, and what
    /// [`Pace::end`] wants to know.
    #[inline]
    pub(crate) fn begin(&mut self, len: usize, ring: usize) -> (bool, Timing) {
        let way = self.way(len, ring);
        (way == Way::Past, Timing((way == Way::Timed).then(clock::now)))
    }

    /// It was copied.
    #[inline]
    pub(crate) fn end(&mut self, len: usize, ring: usize, timing: Timing) {
        if let Timing(Some(start)) = timing {
            self.learn(len, ring, clock::now().since(start));
        }
    }

    /// A piece took so long through the caches.
    fn learn(&mut self, len: usize, ring: usize, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if nanos.saturating_mul(FAST) > len as u64 {
            self.slow += 1;
        } else {
            self.slow = self.slow.saturating_sub(1);
        }
        match self.slow {
            0 => self.untimed = TIMED - 1,
            ENOUGH.. => self.past = TRIED * ring,
            _ => {}
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
    const MANY: u32 = 1000 * ROUND;
    const FAST_COPY: Duration = Duration::from_micros(1);
    const SLOW_COPY: Duration = Duration::from_micros(10);

    /// How many of `pieces` go past the caches, if each that is timed takes `time`.
    fn past(pace: &mut Pace, pieces: u32, time: Duration) -> u32 {
        let mut past = 0;
        for _ in 0..pieces {
            match pace.way(PIECE, RING) {
                Way::Through => {}
                Way::Timed => pace.learn(PIECE, RING, time),
                Way::Past => past += 1,
            }
        }
        past
    }

    #[test]
    fn far_cores_go_past_the_caches_and_near_ones_do_not() {
        let mut pace = Pace::default();
        assert_eq!(past(&mut pace, MANY, FAST_COPY), 0);
        assert!(past(&mut pace, MANY, SLOW_COPY) > MANY / 50 * 49);
        // They are near again, which is seen when it is tried next.
        assert!(past(&mut pace, MANY, FAST_COPY) <= 256 * ROUND);
        assert_eq!(past(&mut pace, MANY, FAST_COPY), 0);
    }

    #[test]
    fn the_first_time_around_the_ring_counts_for_nothing() {
        let mut pace = Pace::default();
        assert_eq!(past(&mut pace, ROUND + ENOUGH, SLOW_COPY), 0);
        assert_eq!(past(&mut pace, 2, SLOW_COPY), 2);
        past(&mut pace, 256 * ROUND - 2, SLOW_COPY);
        // Nor does it when it is tried again.
        assert_eq!(past(&mut pace, ROUND + ENOUGH, SLOW_COPY), 0);
        assert_eq!(past(&mut pace, 2, SLOW_COPY), 2);
    }

    #[test]
    fn a_slow_copy_now_and_then_changes_nothing() {
        let mut pace = Pace::default();
        past(&mut pace, ROUND, FAST_COPY);
        for _ in 0..100 {
            assert_eq!(past(&mut pace, 2, SLOW_COPY), 0);
            assert_eq!(past(&mut pace, 2 * TIMED, FAST_COPY), 0);
        }
    }

    #[test]
    fn small_pieces_are_not_asked_about() {
        let mut pace = Pace::default();
        past(&mut pace, ROUND + ENOUGH, SLOW_COPY);
        assert_eq!(pace.way(LARGE - 1, RING), Way::Through);
        assert_eq!(pace.way(LARGE, RING), Way::Past);
    }
}
