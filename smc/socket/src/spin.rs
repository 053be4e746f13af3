// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How long a thread looks at its socket's memory before it sleeps.
//!
//! Invariant: a connection whose spins do not pay soon spins no more, but for a short try now and then; one whose peer
//! changes its area without end spins no longer than another.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use smc_proto::Instant;

use crate::clock::{self, Deadline};

/// The first time, and the least after a success: 20 µs.
const START: u32 = 20_000;
/// Less than this is not worth it.
const LEAST: u32 = 2_500;
/// While spinning does not pay, one wait in so many tries it.
const TRY_EVERY: u32 = 32;
/// A pause of this length between two looks: somebody else needed the CPU.
pub const PREEMPTED: Duration = Duration::from_micros(200);
/// Looks between two readings of the clock, and also changes.
pub const LOOKS: u32 = 32;

/// What one connection has learned.
#[derive(Debug)]
pub struct Spin {
    /// Nanoseconds; 0: it does not pay.
    budget: AtomicU32,
    /// Waits since it was tried last.
    skipped: AtomicU32,
    /// Nanoseconds at most.
    cap: u32,
}

impl Spin {
    /// Nothing is known yet; it spins for `cap` at most.
    pub fn new(cap: Duration) -> Self {
        let cap = u32::try_from(cap.as_nanos()).unwrap_or(u32::MAX);
        Self { budget: AtomicU32::new(START.min(cap)), skipped: AtomicU32::new(0), cap }
    }

    /// The most that it spins.
    pub(crate) fn cap(&self) -> Duration {
        Duration::from_nanos(self.cap.into())
    }

    /// How long to spin now; zero: not at all.
    pub fn budget(&self) -> Duration {
        let budget = self.budget.load(Ordering::Relaxed);
        if budget > 0 || self.cap == 0 {
            return Duration::from_nanos(budget.into());
        }
        let skipped = self.skipped.load(Ordering::Relaxed).wrapping_add(1);
        self.skipped.store(skipped, Ordering::Relaxed);
        let spins = skipped.is_multiple_of(TRY_EVERY);
        Duration::from_nanos(if spins { START.min(self.cap).into() } else { 0 })
    }

    /// Something came while it spun.
    pub fn paid(&self) {
        let budget = self.budget.load(Ordering::Relaxed);
        if budget < self.cap {
            let more = budget.saturating_add(budget / 8).max(START).min(self.cap);
            self.budget.store(more, Ordering::Relaxed);
        }
    }

    /// Nothing came, or the CPU was taken away.
    pub fn failed(&self) {
        let half = self.budget.load(Ordering::Relaxed) / 2;
        self.budget.store(if half < LEAST { 0 } else { half }, Ordering::Relaxed);
    }
}

/// What is looked at.
pub(crate) trait Look {
    /// Whether the area says something else than `seen`. No lock, no system call.
    fn has_changed(&self, seen: (u64, u64)) -> bool;
}

/// One wait's spinning: it may be gone on with as long as there is some of its time left.
pub struct Spinning<'a> {
    spin: &'a Spin,
    budget: Duration,
    /// When it began; the clock is not read for what comes at once.
    start: Option<Instant>,
    last: Instant,
    /// Since the clock was read for them.
    changes: u32,
}

impl Spin {
    /// A wait begins.
    pub(crate) fn begin(&self) -> Spinning<'_> {
        let (budget, last) = (self.budget(), Instant::default());
        Spinning { spin: self, budget, start: None, last, changes: 0 }
    }
}

impl Spinning<'_> {
    /// Looks until something has changed since `seen`; false: that is not worth it any more.
    pub(crate) fn until_changed(
        &mut self,
        what: &impl Look,
        seen: (u64, u64),
        deadline: Deadline,
    ) -> bool {
        if self.budget.is_zero() {
            return false;
        }
        loop {
            for _ in 0..LOOKS {
                if what.has_changed(seen) {
                    self.spin.paid();
                    return !self.is_over_for_changes(deadline);
                }
                std::hint::spin_loop();
            }
            if self.is_over(deadline) {
                self.spin.failed();
                return false;
            }
        }
    }

    /// A change may say nothing, and the next one too.
    #[inline]
    fn is_over_for_changes(&mut self, deadline: Deadline) -> bool {
        self.changes += 1;
        if self.changes < LOOKS {
            return false;
        }
        self.changes = 0;
        self.is_over(deadline)
    }

    fn is_over(&mut self, deadline: Deadline) -> bool {
        let now = clock::now();
        let Some(start) = self.start else {
            (self.start, self.last) = (Some(now), now);
            return false;
        };
        let preempted = now.since(self.last) > PREEMPTED;
        self.last = now;
        preempted || now.since(start) >= self.budget || deadline.left().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pay_ends_and_is_tried_again() {
        let spin = Spin::new(Duration::from_micros(50));
        assert_eq!(spin.budget(), Duration::from_micros(20));
        for _ in 0..4 {
            spin.failed();
        }
        let tries = (0..100).filter(|_| !spin.budget().is_zero()).count();
        assert_eq!(tries, 3);
        spin.paid();
        assert_eq!(spin.budget(), Duration::from_micros(20));
        for _ in 0..100 {
            spin.paid();
        }
        assert_eq!(spin.budget(), Duration::from_micros(50));
    }

    #[test]
    fn who_waits_for_what_changes_and_says_nothing_spins_no_longer_than_another() {
        struct Restless;
        impl Look for Restless {
            fn has_changed(&self, _: (u64, u64)) -> bool {
                true
            }
        }
        let spin = Spin::new(Duration::from_micros(50));
        for timeout in [None, Some(Duration::ZERO)] {
            let (mut spinning, deadline) = (spin.begin(), Deadline::after(timeout));
            while spinning.until_changed(&Restless, (0, 0), deadline) {}
        }
        assert_eq!(spin.budget(), Duration::from_micros(50), "changes pay");
    }

    #[test]
    fn a_cap_of_zero_never_spins() {
        let spin = Spin::new(Duration::ZERO);
        spin.paid();
        assert!((0..100).all(|_| spin.budget().is_zero()));
    }
}
