// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device knows of its DMBs, of those it may write, and of its peers.
//!
//! Invariant: changed by single calls, so a panic elsewhere leaves it whole.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ism_abi::Gid;

use super::Event;
use super::dmb::Grant;
use super::peer::Peer;

/// Changed under one lock.
#[derive(Default)]
pub(super) struct Tables {
    /// Peers of living instances.
    pub(super) peers: HashMap<Gid, Arc<Peer>>,
    /// What may be written, by token.
    pub(super) grants: HashMap<u64, Arc<Grant>>,
    /// The writer of each own DMB, by index; `None`: REGISTER is under way.
    pub(super) own: BTreeMap<u32, Option<Arc<Peer>>>,
    /// REGISTERs that are under way.
    pub(super) registering: usize,
    /// Peers that have ended meanwhile: a reply that is under way may be of one.
    pub(super) ended: Vec<Arc<Peer>>,
    /// Indices below `next_index` that are not in use.
    pub(super) free: BTreeSet<u32>,
    /// Indices from here on were never used.
    pub(super) next_index: u32,
    /// What was found while something else was looked for.
    pub(super) events: VecDeque<Event>,
}

impl Tables {
    /// Appends the signals of all pages.
    pub(super) fn take_signals(&self, events: &mut Vec<Event>) {
        for (gid, peer) in &self.peers {
            peer.take_signals(|index| {
                // Only DMBs that this peer may write (ISM-DRV-26).
                let writer = self.own.get(&index).and_then(Option::as_ref);
                if writer.is_some_and(|writer| writer.gid() == *gid) {
                    events.push(Event::Signal { index });
                }
            });
        }
    }

    /// A REGISTER is over, and its DMB has its peer.
    pub(super) fn end_register(&mut self) {
        self.registering = self.registering.saturating_sub(1);
        if self.registering == 0 {
            self.ended.clear();
        }
    }

    /// An own DMB's index is free again.
    pub(super) fn release_index(&mut self, index: u32) {
        self.own.remove(&index);
        self.free.insert(index);
    }
}
