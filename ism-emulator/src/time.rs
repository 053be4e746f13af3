// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens when time passes.
//!
//! Invariant: one deadline in the set for each thing that waits; it is removed with its cause, so
//! the set is bounded by what members own.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::fabric::Fabric;
use crate::refusal::Refusal;
use crate::wish::{ExtentId, MemberId, Wish};

/// How long after a rate limit a signal to a DMB with a copy inside is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// A copy whose thread died cannot call `settle`: look at closed gates this often.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deadline {
    /// A REGISTER has waited long enough for the grant of this DMB to be taken.
    Grant(MemberId, u32),
    /// A window has been waited for long enough.
    Map(ExtentId, MemberId),
    /// Deferred signals of this sender.
    Signals(MemberId),
    /// Closed gates.
    Settle,
}

pub(crate) type Deadlines = BTreeSet<(Duration, Deadline)>;

impl Fabric {
    /// When to call [`Fabric::handle_timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due. `now` is the time since a fixed point, the same one for every call of
    /// the fabric; it never goes back.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(&(at, deadline)) = self.deadlines.first() {
            if at > now {
                return;
            }
            self.deadlines.pop_first();
            match deadline {
                Deadline::Grant(owner, index) => self.grant_late(owner, index),
                Deadline::Map(extent, member) => self.map_late(extent, member),
                Deadline::Signals(sender) => self.send_deferred(sender, now),
                Deadline::Settle => {
                    self.settle_at = None;
                    self.settle();
                    self.watch_gates(now);
                }
            }
        }
    }

    /// Makes sure closed gates are looked at, if there are any.
    pub(crate) fn watch_gates(&mut self, now: Duration) {
        let waits = !self.closing.is_empty() || self.members.values().any(|m| !m.hello.is_empty());
        if waits && self.settle_at.is_none() {
            let at = now.saturating_add(SETTLE);
            self.settle_at = Some(at);
            self.deadlines.insert((at, Deadline::Settle));
        }
    }

    /// A REGISTER waited too long. If it was for the writer to take the grant, others fail at once
    /// until the writer shows an event buffer.
    fn grant_late(&mut self, owner: MemberId, index: u32) {
        let dmb = self.members.get(&owner).and_then(|m| m.own.get(&index));
        if let Some(writer) = dmb.filter(|d| d.granting()).map(|d| d.params.writer)
            && let Some(member) = self.members.get_mut(&writer)
        {
            member.late_events = true;
        }
        self.fail_register(owner, index, Refusal::IoError);
    }

    /// Sends what the rate limit held back.
    fn send_deferred(&mut self, sender: MemberId, now: Duration) {
        let Some(member) = self.members.get_mut(&sender) else {
            return;
        };
        member.deferred_at = None;
        let mut again: Option<Duration> = None;
        let sooner = |again: Option<Duration>, at: Duration| Some(again.map_or(at, |a| a.min(at)));
        for token in std::mem::take(&mut member.deferred) {
            let Some(grant) = member.grants.get(&token) else {
                continue;
            };
            // A signal of a move comes after its data, and so does any other to that DMB.
            if !grant.gate.quiet() {
                member.deferred.insert(token);
                again = sooner(again, now.saturating_add(RETRY));
            } else if !member.signal_rate.take(now) {
                member.deferred.insert(token);
                again = sooner(again, member.signal_rate.ready_at());
            } else if grant.signals.set(grant.index) {
                self.wishes.push_back(Wish::EventsReady { member: grant.owner });
            }
        }
        member.deferred_at = again;
        if let Some(at) = again {
            self.deadlines.insert((at, Deadline::Signals(sender)));
        }
    }
}
