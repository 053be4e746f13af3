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
/// Bytes a nanosecond, of a copy through the caches that is fast: not half of what near cores reach, twice of what
/// far ones do.
const FAST: u64 = 8;
/// One large piece in so many is timed while they are fast.
const TIMED: u32 = 8;
/// After so many past the caches it is tried again through them.
const TRIED: u32 = 1024;

/// What a connection has learned.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Large pieces to copy past the caches.
    past: u32,
    /// Large pieces until one is timed.
    untimed: u32,
    /// The last that was timed was slow. One alone may be an interrupt's fault, or pages' that were new.
    was_slow: bool,
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
    /// The way for a piece of `len` bytes.
    #[inline]
    fn way(&mut self, len: usize) -> Way {
        if len < LARGE {
            Way::Through
        } else if self.past > 0 {
            self.past -= 1;
            Way::Past
        } else if self.untimed > 0 {
            self.untimed -= 1;
            Way::Through
        } else {
            Way::Timed
        }
    }

    /// A piece of `len` bytes is going to be copied. Whether past the caches, and what [`Pace::end`] wants to know.
    #[inline]
    pub(crate) fn begin(&mut self, len: usize) -> (bool, Timing) {
        let way = self.way(len);
        (way == Way::Past, Timing((way == Way::Timed).then(clock::now)))
    }

    /// It was copied.
    #[inline]
    pub(crate) fn end(&mut self, len: usize, timing: Timing) {
        if let Timing(Some(start)) = timing {
            self.learn(len, clock::now().since(start));
        }
    }

    /// A piece took so long through the caches.
    fn learn(&mut self, len: usize, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let is_slow = nanos.saturating_mul(FAST) > len as u64;
        if is_slow && self.was_slow {
            // The first after these is timed, and if it is slow again that is enough.
            self.past = TRIED;
        } else if !is_slow {
            self.untimed = TIMED - 1;
        }
        self.was_slow = is_slow;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 32 << 10;
    const FAST_COPY: Duration = Duration::from_micros(1);
    const SLOW_COPY: Duration = Duration::from_micros(10);

    /// How many of `pieces` go past the caches, if each that is timed takes `time`.
    fn past(pace: &mut Pace, pieces: u32, time: Duration) -> u32 {
        let mut past = 0;
        for _ in 0..pieces {
            match pace.way(PIECE) {
                Way::Through => {}
                Way::Timed => pace.learn(PIECE, time),
                Way::Past => past += 1,
            }
        }
        past
    }

    #[test]
    fn far_cores_go_past_the_caches_and_near_ones_do_not() {
        let mut pace = Pace::default();
        assert_eq!(past(&mut pace, 10_000, FAST_COPY), 0);
        assert!(past(&mut pace, 10_000, SLOW_COPY) > 9_900);
        // They are near again, which is seen when it is tried next.
        assert!(past(&mut pace, 10_000, FAST_COPY) <= TRIED);
        assert_eq!(past(&mut pace, 10_000, FAST_COPY), 0);
    }

    #[test]
    fn one_slow_copy_changes_nothing() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            assert_eq!(past(&mut pace, 1, SLOW_COPY), 0);
            assert_eq!(past(&mut pace, 2 * TIMED, FAST_COPY), 0);
        }
    }

    #[test]
    fn small_pieces_are_not_asked_about() {
        let mut pace = Pace::default();
        past(&mut pace, 10, SLOW_COPY);
        assert_eq!(pace.way(LARGE - 1), Way::Through);
        assert_eq!(pace.way(LARGE), Way::Past);
    }
}
