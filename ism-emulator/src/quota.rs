// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Rate limits.
//!
//! Invariant: over any interval a bucket lets through at most one second's worth more than its
//! rate allows (the generic cell rate algorithm, one time stamp of state).

use std::time::Duration;

/// What may come at once.
const BURST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Bucket {
    /// Time one request costs; zero: no limit.
    cost: Duration,
    /// When everything let through so far is paid for.
    paid: Duration,
}

impl Bucket {
    /// `rate` a second; 0: no limit.
    pub(crate) fn new(rate: u32) -> Self {
        let cost = BURST.checked_div(rate).unwrap_or_default();
        Self { cost, paid: Duration::ZERO }
    }

    /// Lets one request through, or says that it is too early.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if self.cost.is_zero() {
            return true;
        }
        if now < self.ready_at() {
            return false;
        }
        self.paid = self.paid.max(now).saturating_add(self.cost);
        true
    }

    /// When the next request will be let through.
    pub(crate) fn ready_at(&self) -> Duration {
        self.paid.saturating_add(self.cost).saturating_sub(BURST)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn over_any_time_the_rate_holds() {
        for rate in [1, 3, 1000, 1_000_000] {
            let mut bucket = Bucket::new(rate);
            let start = Duration::from_secs(50);
            let at_once = (0..2 * rate).filter(|_| bucket.take(start)).count();
            assert_eq!(at_once, usize::try_from(rate).unwrap_or(0));
            // Never earlier than it says, and then at once.
            let ready = bucket.ready_at();
            assert!(!bucket.take(ready.saturating_sub(Duration::from_nanos(1))));
            assert!(bucket.take(ready) && !bucket.take(ready));
        }
    }

    #[test]
    fn no_limit_is_no_limit() {
        let mut bucket = Bucket::new(0);
        assert!((0..10_000).all(|_| bucket.take(Duration::ZERO)));
    }

    #[test]
    fn a_clock_that_starts_at_zero_does_not_hinder() {
        assert!(Bucket::new(1).take(Duration::ZERO));
    }
}
