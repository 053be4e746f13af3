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
