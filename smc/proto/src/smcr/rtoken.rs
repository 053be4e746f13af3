// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The peer's RMBs: with which key and at which address each link reaches them.
//!
//! Invariant: at most [`MAX_RMBS`] entries; a key with its address is in one entry of a link only; only a
//! link that exists has keys (`smc_core.c:2600-2730`).

use smc_wire::id::Rkey;

use super::link::{SLOTS, Slot};

/// RMBs that a link group can have on each side (`SMC_RMBS_PER_LGR_MAX`).
pub const MAX_RMBS: usize = 255;

pub use smc_wire::llc::Rtoken;

/// Which of the peer's RMBs: an index that stays valid until the peer deletes the RMB's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RtokenIndex(pub u8);

/// An [`Rtoken`] that needs no alignment, of which a connection has nine: three links' for the peer's RMB,
/// our RMB and our send buffer. Three with their states take 39 bytes instead of 72.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    rkey: [u8; 4],
    vaddr: [u8; 8],
}

impl From<Rtoken> for Packed {
    fn from(Rtoken { rkey, vaddr }: Rtoken) -> Self {
        Self { rkey: rkey.0.to_ne_bytes(), vaddr: vaddr.to_ne_bytes() }
    }
}

impl From<Packed> for Rtoken {
    fn from(Packed { rkey, vaddr }: Packed) -> Self {
        Self { rkey: Rkey(u32::from_ne_bytes(rkey)), vaddr: u64::from_ne_bytes(vaddr) }
    }
}

type Entry = [Option<Packed>; SLOTS];

/// All the peer's RMBs.
#[derive(Debug, Default)]
pub(super) struct Rtokens {
    entries: Vec<Option<Entry>>,
}

impl Rtokens {
    /// The entry's key and address over a link (`smc_tx_rdma_write`).
    pub(super) fn get(&self, index: RtokenIndex, slot: Slot) -> Option<Rtoken> {
        let entry = self.entries.get(usize::from(index.0))?.as_ref()?;
        entry.get(slot.index()).copied().flatten().map(Rtoken::from)
    }

    /// Adds an RMB by its key over one link, or finds it there (`smc_rtoken_add`).
    ///
    /// `None` if there are [`MAX_RMBS`] already.
    pub(super) fn add(&mut self, slot: Slot, rtoken: Rtoken) -> Option<RtokenIndex> {
        let rtoken = Some(Packed::from(rtoken));
        let there = |entry: &Option<Entry>| {
            entry.as_ref().is_some_and(|entry| entry.get(slot.index()) == Some(&rtoken))
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
        *entry.get_mut(slot.index())? = rtoken;
        *self.entries.get_mut(at)? = Some(entry);
        u8::try_from(at).ok().map(RtokenIndex)
    }

    /// Adds another link's key to an entry (`smc_rtoken_set2`).
    pub(super) fn set(&mut self, index: RtokenIndex, slot: Slot, rtoken: Rtoken) {
        let entry = self.entries.get_mut(usize::from(index.0)).and_then(Option::as_mut);
        if let Some(field) = entry.and_then(|entry| entry.get_mut(slot.index())) {
            *field = Some(rtoken.into());
        }
    }

    /// The entry that has `rkey` over a link (`smc_rtoken_find_by_link`).
    pub(super) fn find(&self, slot: Slot, rkey: Rkey) -> Option<RtokenIndex> {
        let has = |entry: &Option<Entry>| {
            let field = entry.as_ref().and_then(|entry| entry.get(slot.index()));
            field.copied().flatten().is_some_and(|rtoken| rtoken.rkey == rkey.0.to_ne_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn rtoken(rkey: u32) -> Rtoken {
        Rtoken { rkey: Rkey(rkey), vaddr: rkey as u64 * 4096 }
    }

    #[test]
    fn key_is_found_on_its_link_only() {
        let [first, second, _] = Slot::ALL;
        let mut rtokens = Rtokens::default();
        let index = rtokens.add(first, rtoken(1));
        assert_eq!(rtokens.add(first, rtoken(1)), index, "it is there already");
        assert_eq!((index, rtokens.len()), (Some(RtokenIndex(0)), 1));
        assert_eq!(rtokens.find(second, Rkey(1)), None);
        rtokens.set(RtokenIndex(0), second, rtoken(2));
        assert_eq!(rtokens.get(RtokenIndex(0), second), Some(rtoken(2)));
        rtokens.clear_link(first);
        assert_eq!(rtokens.get(RtokenIndex(0), first), None);
        assert!(!rtokens.delete(first, Rkey(1)) && rtokens.delete(second, Rkey(2)));
        assert_eq!(rtokens.len(), 0);
    }

    #[test]
    fn deleted_entries_are_used_again_and_there_are_255() {
        let [slot, ..] = Slot::ALL;
        let mut rtokens = Rtokens::default();
        for n in 0..255u8 {
            assert_eq!(rtokens.add(slot, rtoken(n.into())), Some(RtokenIndex(n)));
        }
        assert_eq!(rtokens.add(slot, rtoken(1000)), None);
        assert!(rtokens.delete(slot, Rkey(77)));
        assert_eq!(rtokens.add(slot, rtoken(1000)), Some(RtokenIndex(77)));
    }
}
