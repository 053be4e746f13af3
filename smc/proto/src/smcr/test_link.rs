// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! TEST LINK: is the peer of an idle link still there?
//!
//! Invariant: a link is asked only when nothing came over it for the whole interval, and is lost if
//! the answer does not come within 2 s (RFC 7609, A.3.8; `smc_llc_testlink_work`).

use std::time::Duration;

use super::WAIT;
use crate::Instant;

/// What a timer said about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to do yet.
    Fine,
    /// Send a TEST LINK.
    Ask,
    /// The peer did not answer: the link is down.
    Lost,
}

/// A link's idle timer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TestLink {
    /// After how long without a message to ask; `None` while the link is not active, or never.
    interval: Option<Duration>,
    last: Instant,
    asked: Option<Instant>,
}

impl TestLink {
    /// The link became active.
    pub(super) fn start(&mut self, now: Instant, interval: Option<Duration>) {
        *self = Self { interval, last: now, asked: None };
    }

    /// The link is no longer active.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Something came over the link.
    pub(super) fn traffic(&mut self, now: Instant) {
        self.last = self.last.max(now);
    }

    /// The answer came.
    pub(super) fn answered(&mut self) {
        self.asked = None;
    }

    /// When [`Self::check`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let idle = self.last.after(self.interval?);
        Some(self.asked.map_or(idle, |asked| asked.after(WAIT)))
    }

    /// The time is `now`.
    pub(super) fn check(&mut self, now: Instant) -> Verdict {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Verdict::Fine;
        }
        if self.asked.is_some() {
            return Verdict::Lost;
        }
        self.asked = Some(now);
        Verdict::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    // row 70
    #[test]
    fn link_is_asked_when_idle_and_lost_without_an_answer() {
        let mut test = TestLink::default();
        assert_eq!((test.deadline(), test.check(at(99))), (None, Verdict::Fine));
        test.start(at(0), Some(Duration::from_secs(30)));
        test.traffic(at(10));
        assert_eq!(test.deadline(), Some(at(40)));
        assert_eq!(test.check(at(39)), Verdict::Fine);
        assert_eq!(test.check(at(40)), Verdict::Ask);
        assert_eq!(test.deadline(), Some(at(42)));
        test.traffic(at(41));
        test.answered();
        assert_eq!(test.deadline(), Some(at(71)));
        assert_eq!(test.check(at(71)), Verdict::Ask);
        // Other traffic is no answer.
        test.traffic(at(72));
        assert_eq!(test.check(at(73)), Verdict::Lost);
    }
}
