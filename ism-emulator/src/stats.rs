// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Counters, and what an operator can ask.
//!
//! Invariant: counters only show; nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

use ism_abi::{Gid, StatsReply};

use crate::wish::MemberId;

/// A member's counters since HELLO; those of moves are counted without the fabric's lock.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) signals_sent: AtomicU64,
    pub(crate) moves: AtomicU64,
    pub(crate) move_bytes: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl Counters {
    pub(crate) fn reset(&self) {
        for counter in [&self.signals_sent, &self.moves, &self.move_bytes, &self.errors] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// A counter's value.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// One member, for a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSummary {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Its address.
    pub gid: Gid,
    /// A front-end is there.
    pub connected: bool,
    /// Its driver said HELLO.
    pub ready: bool,
}

/// One member in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStats {
    /// What its driver sees with STATS.
    pub wire: StatsReply,
    /// Pairs it is in, those with gone peers included.
    pub peers: u32,
    /// Bytes charged to its quota.
    pub charged_bytes: u64,
    /// Attached DMBs that their owners have unregistered.
    pub orphans: u32,
}

/// The fabric in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FabricStats {
    /// Members.
    pub members: usize,
    /// Pairs, those with a gone member included.
    pub pairs: usize,
    /// Memory files.
    pub extents: usize,
    /// DMBs.
    pub dmbs: usize,
}
