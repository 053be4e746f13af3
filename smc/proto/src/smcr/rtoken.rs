// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The peer's RMBs: with which key and at which address each link reaches them.
//!
//! Invariant: at most [`MAX_RMBS`] entries; a key names at most one entry of a link; only a link that
//! exists has keys (`smc_core.c:2600-2730`).

use smc_wire::id::Rkey;

use super::link::{SLOTS, Slot};

/// RMBs that a link group can have on each side (`SMC_RMBS_PER_LGR_MAX`).
pub const MAX_RMBS: usize = 255;

pub use smc_wire::llc::Rtoken;

/// Which of the peer's RMBs: an index that stays valid until the peer deletes the RMB's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RtokenIndex(pub u8);

type Entry = [Option<Rtoken>; SLOTS];

/// All the peer's RMBs.
#[derive(Debug, Default)]
pub(super) struct Rtokens {
    entries: Vec<Option<Entry>>,
}

impl Rtokens {
    /// The entry's key and address over a link (`smc_tx_rdma_write`).
    pub(super) fn get(&self, index: RtokenIndex, slot: Slot) -> Option<Rtoken> {
        self.entries.get(usize::from(index.0))?.as_ref()?.get(slot.index()).copied().flatten()
    }

    /// Adds an RMB by its key over one link, or finds it there (`smc_rtoken_add`).
    ///
    /// `None` if there are [`MAX_RMBS`] already.
    pub(super) fn add(&mut self, slot: Slot, rtoken: Rtoken) -> Option<RtokenIndex> {
        let there = |entry: &Option<Entry>| {
            entry.is_some_and(|entry| entry.get(slot.index()) == Some(&Some(rtoken)))
        };
        if let Some(at) = self.entries.iter().position(there) {
            return u8::try_from(at).ok().map(RtokenIndex);
        }
        let free = self.entries.iter().position(Option::is_none);
        let at = free.unwrap_or(self.entries.len());
        if at >= MAX_RMBS {
            return None;
        }
        if at == self.entries.len() {
            self.entries.push(None);
        }
        let mut entry = Entry::default();
        *entry.get_mut(slot.index())? = Some(rtoken);
        *self.entries.get_mut(at)? = Some(entry);
        u8::try_from(at).ok().map(RtokenIndex)
    }

    /// Adds another link's key to an entry (`smc_rtoken_set2`).
    pub(super) fn set(&mut self, index: RtokenIndex, slot: Slot, rtoken: Rtoken) {
        let entry = self.entries.get_mut(usize::from(index.0)).and_then(Option::as_mut);
        if let Some(field) = entry.and_then(|entry| entry.get_mut(slot.index())) {
            *field = Some(rtoken);
        }
    }

    /// The entry that has `rkey` over a link (`smc_rtoken_find_by_link`).
    pub(super) fn find(&self, slot: Slot, rkey: Rkey) -> Option<RtokenIndex> {
        let has = |entry: &Option<Entry>| {
            let field = entry.as_ref().and_then(|entry| entry.get(slot.index()));
            field.copied().flatten().is_some_and(|rtoken| rtoken.rkey == rkey)
        };
        u8::try_from(self.entries.iter().position(has)?).ok().map(RtokenIndex)
    }

    /// Removes an RMB from all links by its key over one; whether it was there
    /// (`smc_rtoken_delete`).
    pub(super) fn delete(&mut self, slot: Slot, rkey: Rkey) -> bool {
        let found = self.find(slot, rkey);
        let entry = found.and_then(|index| self.entries.get_mut(usize::from(index.0)));
        entry.map(|entry| *entry = None).is_some()
    }

    /// Forgets a link's keys (`smcr_rtoken_clear_link`).
    pub(super) fn clear_link(&mut self, slot: Slot) {
        for entry in self.entries.iter_mut().flatten() {
            if let Some(field) = entry.get_mut(slot.index()) {
                *field = None;
            }
        }
    }

    /// RMBs of the peer that are known.
    pub(super) fn len(&self) -> usize {
        self.entries.iter().flatten().count()
    }
}
