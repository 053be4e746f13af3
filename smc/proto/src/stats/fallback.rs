// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why connections fell back to TCP (`smc_stat_fallback`, `struct smc_stats_rsn`).
//!
//! Invariant: each reason has at most one slot a side; the totals count also what found no slot.

use crate::group::Role;

/// Different reasons that each side remembers (`SMC_MAX_FBACK_RSN_CNT`).
pub const FALLBACK_REASONS: usize = 36;

/// Both sides' fallbacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fallbacks {
    /// Of connections that we made.
    pub client: Reasons,
    /// Of connections that we accepted.
    pub server: Reasons,
}

/// One side's reasons, in the order in which they first came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons {
    total: u64,
    /// Code and count; code 0 ends the list.
    slots: [(u32, u16); FALLBACK_REASONS],
}

impl Default for Reasons {
    fn default() -> Self {
        Self { total: 0, slots: [(0, 0); FALLBACK_REASONS] }
    }
}

impl Fallbacks {
    /// A connection fell back because of `code`, a diagnosis code as Decline carries it.
    pub fn record(&mut self, role: Role, code: u32) {
        match role {
            Role::Client => self.client.record(code, 1, 1),
            Role::Server => self.server.record(code, 1, 1),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.client.add(&other.client);
        self.server.add(&other.server);
    }
}

impl Reasons {
    /// Fallbacks for whatever reason.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Each reason's code and how often it came, up to 65 535 and then from 0 again as in Linux.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u16)> + '_ {
        self.slots.iter().copied().take_while(|(code, _)| *code != 0)
    }

    fn record(&mut self, code: u32, times: u16, total: u64) {
        self.total = self.total.wrapping_add(total);
        let slot = self.slots.iter_mut().find(|(held, _)| *held == code || *held == 0);
        if let Some((held, count)) = slot {
            *held = code;
            *count = count.wrapping_add(times);
        }
    }

    fn add(&mut self, other: &Self) {
        for (code, count) in other.iter() {
            self.record(code, count, 0);
        }
        self.total = self.total.wrapping_add(other.total);
    }
}
