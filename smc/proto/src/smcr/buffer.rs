// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Our buffers in a link group, and their memory regions on each link.
//!
//! Invariant: at most [`MAX_RMBS`] RMBs and [`MAX_SNDBUFS`] send buffers; each command for a buffer is
//! answered once, and no second one is taken before.

use smc_wire::id::Rkey;

use super::link::{SLOTS, Slot};
use super::rtoken::{MAX_RMBS, Packed, Rtoken};
use super::wish::BufferError;
use crate::id::BufferId;

/// Send buffers in a group: those of 255 connections, and idle ones of other sizes.
const MAX_SNDBUFS: usize = 1024;

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The peer writes it: it must know the keys.
    Rmb,
    /// The connection's data leave from it: only our queue pairs use the keys.
    Sndbuf,
}

/// A buffer's memory region on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mr {
    #[default]
    None,
    Pending,
    Ready(Packed),
    Failed,
}

/// How far a buffer is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// Registered here and there, unknown to the peer.
    Idle,
    /// Shall be usable on each link; for an RMB, the peer has to be told.
    Entering,
    /// Usable.
    InUse,
    /// The peer has to be told that its keys are no more.
    Leaving,
}

/// A buffer.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) id: BufferId,
    pub(super) kind: Kind,
    pub(super) usage: Usage,
    /// Whether Accept or Confirm tells the peer, so that CONFIRM_RKEY need not.
    pub(super) implicit: bool,
    mrs: [Mr; SLOTS],
}

impl Buffer {
    pub(super) fn mr(&self, slot: Slot) -> Mr {
        self.mrs.get(slot.index()).copied().unwrap_or_default()
    }

    pub(super) fn set_mr(&mut self, slot: Slot, mr: Mr) {
        if let Some(field) = self.mrs.get_mut(slot.index()) {
            *field = mr;
        }
    }

    /// Its key and address on a link.
    pub(super) fn rtoken(&self, slot: Slot) -> Option<Rtoken> {
        if let Mr::Ready(rtoken) = self.mr(slot) { Some(rtoken.into()) } else { None }
    }

    /// Begins its memory region on a link; whether there is none yet.
    pub(super) fn register(&mut self, slot: Slot) -> bool {
        let is_new = self.mr(slot) == Mr::None;
        if is_new {
            self.set_mr(slot, Mr::Pending);
        }
        is_new
    }

    /// Whether a new link must reach it: `used` in Linux.
    pub(super) fn is_used(&self) -> bool {
        matches!(
            (self.kind, self.usage),
            (_, Usage::InUse) | (Kind::Rmb, Usage::Leaving) | (Kind::Sndbuf, Usage::Entering)
        ) || self.implicit
    }
}

/// How far the memory regions of a link are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registration {
    Pending,
    Done,
    Failed,
}

/// All our buffers of a group, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    list: Vec<Buffer>,
}

impl Buffers {
    pub(super) fn get(&self, id: BufferId) -> Option<&Buffer> {
        self.list.iter().find(|buffer| buffer.id == id)
    }

    pub(super) fn get_mut(&mut self, id: BufferId) -> Option<&mut Buffer> {
        self.list.iter_mut().find(|buffer| buffer.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Buffer> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Buffer> {
        self.list.iter_mut()
    }

    /// Begins to use a buffer, a new one or one that is idle.
    pub(super) fn enter(&mut self, id: BufferId, kind: Kind) -> Result<&mut Buffer, BufferError> {
        let usage = Usage::Entering;
        if let Some(at) = self.list.iter().position(|buffer| buffer.id == id) {
            let buffer = self.list.get_mut(at).ok_or(BufferError::State)?;
            if buffer.kind != kind || buffer.usage != Usage::Idle {
                return Err(BufferError::State);
            }
            buffer.usage = usage;
            return Ok(buffer);
        }
        let max = if kind == Kind::Rmb { MAX_RMBS } else { MAX_SNDBUFS };
        if self.list.iter().filter(|buffer| buffer.kind == kind).count() >= max {
            return Err(BufferError::Full);
        }
        let mrs = Default::default();
        self.list.push(Buffer { id, kind, usage, implicit: false, mrs });
        self.list.last_mut().ok_or(BufferError::Full)
    }

    /// The RMB that could go for a new one: the first that is idle, if there are [`MAX_RMBS`].
    pub(super) fn spare_rmb(&self) -> Option<BufferId> {
        let mut rmbs = self.list.iter().filter(|buffer| buffer.kind == Kind::Rmb);
        let is_full = rmbs.clone().count() >= MAX_RMBS;
        rmbs.find(|buffer| is_full && buffer.usage == Usage::Idle).map(|buffer| buffer.id)
    }

    /// Removes a buffer.
    pub(super) fn remove(&mut self, id: BufferId) {
        self.list.retain(|buffer| buffer.id != id);
    }

    /// Forgets a link's memory regions.
    pub(super) fn clear_link(&mut self, slot: Slot) {
        for buffer in &mut self.list {
            buffer.set_mr(slot, Mr::None);
        }
    }

    /// How far the used buffers are on a link.
    pub(super) fn registration(&self, slot: Slot) -> Registration {
        let mut all = Registration::Done;
        for mr in self.list.iter().filter(|buffer| buffer.is_used()).map(|b| b.mr(slot)) {
            match mr {
                Mr::Failed => return Registration::Failed,
                Mr::None | Mr::Pending => all = Registration::Pending,
                Mr::Ready(_) => {}
            }
        }
        all
    }

    /// The RMBs that the peer knows by `carrier`'s keys, as they are on `new`; the last one first, as
    /// Linux lists those of a size.
    pub(super) fn known_to_peer(
        &self,
        carrier: Slot,
        new: Slot,
    ) -> impl Iterator<Item = (Rkey, Rtoken)> {
        let rmbs = self.list.iter().rev().filter(|b| b.kind == Kind::Rmb && b.is_used());
        rmbs.filter_map(move |b| Some((b.rtoken(carrier)?.rkey, b.rtoken(new)?)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn keys_are_packed() {
        // Two buffers and an entry of the peer's for each connection: `bench proto` has the sum.
        assert_eq!(size_of::<[Mr; SLOTS]>(), 39);
        assert_eq!(size_of::<Option<[Option<Packed>; SLOTS]>>(), 39);
        assert!(size_of::<Buffer>() <= 48);
    }

    #[test]
    fn a_region_begins_once_and_keeps_its_key() {
        let [first, second, _] = Slot::ALL;
        let rtoken = Rtoken { rkey: Rkey(0x1234_5678), vaddr: 0xFEDC_BA98_7654_3210 };
        let mut buffers = Buffers::default();
        let buffer = buffers.enter(BufferId(1), Kind::Rmb).unwrap();
        assert!(buffer.register(first) && !buffer.register(first));
        assert_eq!((buffer.mr(first), buffer.mr(second)), (Mr::Pending, Mr::None));
        buffer.set_mr(first, Mr::Ready(rtoken.into()));
        assert!(!buffer.register(first));
        assert_eq!((buffer.rtoken(first), buffer.rtoken(second)), (Some(rtoken), None));
    }
}
