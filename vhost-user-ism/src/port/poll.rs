// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How long a VM's worker polls before it sleeps.
//!
//! Invariant: a worker polls only if its last sleep was so short that polling would have caught
//! the kick, and only as long as nobody else wants its CPU. At rest nothing polls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The first budget after a short sleep.
const FIRST: Duration = Duration::from_micros(10);
/// A `sched_yield` that takes longer than this has let somebody else run.
const YIELDED: Duration = Duration::from_micros(10);

/// Workers that may poll at a time: one less than there are CPUs, so that a VM can run.
#[derive(Debug)]
pub struct Seats {
    free: AtomicUsize,
}

impl Seats {
    /// Seats for a machine with `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self { free: AtomicUsize::new(cpus.saturating_sub(1)) }
    }

    fn take(&self) -> Option<Seat<'_>> {
        let take = |free: usize| free.checked_sub(1);
        let taken = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.is_ok().then_some(Seat(self))
    }
}

struct Seat<'a>(&'a Seats);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::AcqRel);
    }
}

/// One worker's budget. It grows when a sleep was short and shrinks when one was long, as KVM's
/// halt polling does.
#[derive(Debug)]
pub struct Poller {
    most: Duration,
    budget: Duration,
    slept_at: Option<Instant>,
}

impl Poller {
    /// Polls for at most `most`; zero: never.
    pub fn new(most: Duration) -> Self {
        Self { most, budget: Duration::ZERO, slept_at: None }
    }

    /// The worker was woken.
    pub fn woken(&mut self, now: Instant) {
        let Some(slept_at) = self.slept_at.take() else { return };
        let slept = now.saturating_duration_since(slept_at);
        self.budget = if slept <= self.most {
            (self.budget * 2).clamp(FIRST.min(self.most), self.most)
        } else {
            self.budget / 2
        };
        if self.budget < FIRST.min(self.most) {
            self.budget = Duration::ZERO;
        }
    }

    /// The worker goes to sleep.
    pub fn sleeps(&mut self, now: Instant) {
        self.slept_at = Some(now);
    }

    /// Waits until `has_work` or the budget is spent; true if there is work.
    pub fn poll(&mut self, seats: &Seats, has_work: impl Fn() -> bool) -> bool {
        if self.budget.is_zero() {
            return false;
        }
        let Some(_seat) = seats.take() else { return false };
        let started = Instant::now();
        let mut looked = started;
        loop {
            for _ in 0..8 {
                if has_work() {
                    return true;
                }
                std::hint::spin_loop();
            }
            rustix::thread::sched_yield();
            let now = Instant::now();
            if now.duration_since(looked) > YIELDED {
                // The CPU is wanted: polling on would only take it from a VM.
                self.budget = Duration::ZERO;
                return has_work();
            }
            if now.duration_since(started) > self.budget {
                return false;
            }
            looked = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const MOST: Duration = Duration::from_micros(50);

    /// A poller that has slept `times` times for `slept`.
    fn after_sleeps(most: Duration, slept: Duration, times: u32) -> Poller {
        let mut poller = Poller::new(most);
        let start = Instant::now();
        for _ in 0..times {
            poller.sleeps(start);
            poller.woken(start + slept);
        }
        poller
    }

    #[test]
    fn short_sleeps_grow_the_budget_up_to_its_limit() {
        let short = Duration::from_micros(20);
        assert_eq!(after_sleeps(MOST, short, 1).budget, FIRST);
        assert_eq!(after_sleeps(MOST, short, 2).budget, 2 * FIRST);
        assert_eq!(after_sleeps(MOST, short, 9).budget, MOST);
    }

    #[test]
    fn long_sleeps_end_polling() {
        let mut poller = after_sleeps(MOST, Duration::ZERO, 9);
        let start = Instant::now();
        for _ in 0..3 {
            poller.sleeps(start);
            poller.woken(start + Duration::from_secs(1));
        }
        assert_eq!(poller.budget, Duration::ZERO);
    }

    #[test]
    fn a_limit_of_zero_never_polls() {
        let mut poller = after_sleeps(Duration::ZERO, Duration::ZERO, 9);
        let looked = Cell::new(false);
        assert!(!poller.poll(&Seats::new(8), || looked.replace(true)));
        assert!(!looked.get());
    }

    #[test]
    fn nobody_polls_on_a_machine_with_one_cpu() {
        let mut poller = after_sleeps(MOST, Duration::ZERO, 9);
        let looked = Cell::new(false);
        assert!(!poller.poll(&Seats::new(1), || looked.replace(true)));
        assert!(!looked.get());
    }

    #[test]
    fn a_seat_is_given_back() {
        let seats = Seats::new(2);
        let mut poller = after_sleeps(MOST, Duration::ZERO, 9);
        assert!(poller.poll(&seats, || true));
        assert!(poller.poll(&seats, || true));
    }
}
