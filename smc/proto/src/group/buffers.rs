// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Buffers: sizes, reuse, degradation (`smc_core.c`: `__smc_buf_create`, `smc_buf_get_slot`,
//! `smc_buf_unuse`).
//!
//! Invariant: a slot is in one state, listed as reusable in its group's pool exactly if it is
//! [`State::Free`], and a buffer that had an owner is zeroed before the next one gets it.

use std::collections::VecDeque;

use smc_wire::size::BufferSize;

use super::wish::{BufferKind, Wish};
use super::{GroupError, Groups};
use crate::id::{BufferId, ConnId, GroupId};
use crate::smcd::dmb::Dmb;
use crate::stats::{Stats, Technology};

/// Receive buffers that an SMC-R peer can know of one group (`SMC_RMBS_PER_LGR_MAX`).
const RMBS: u32 = 255;

/// A buffer that a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Its name.
    pub id: BufferId,
    /// Its size, with the CDC area of a DMB.
    pub size: BufferSize,
    /// SMC-D, receive: how the device knows it; zeros else.
    pub dmb: Dmb,
}

/// What became of a wish for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquired {
    /// Here it is, zeroed.
    Ready(Buffer),
    /// A [`Wish::Register`] asks for it; [`Groups::handle_registered`] will say.
    Wait,
    /// There is none. The connection stays a member until it leaves.
    Failed(Shortage),
}

/// Why there is no buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The ISM device has no room for even the smallest DMB: decline with MAX_DMB.
    #[error("the ISM device has no room for another DMB, not even of 16 KiB")]
    MaxDmb,
    /// Anything else: decline with MEM.
    #[error("no memory for a buffer, not even of 16 KiB")]
    Memory,
}

/// Why a buffer could not be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The device has no room (`-ENOSPC`).
    #[error("no room")]
    NoSpace,
    /// There is no memory of that size, or another reason for which a smaller one might do.
    #[error("not in that size")]
    Refused,
    /// No size will do: SMC-R could not map it on its links.
    #[error("not at all")]
    Never,
}

/// Who waited for a buffer, and what it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The connection's group.
    pub group: GroupId,
    /// The connection.
    pub conn: ConnId,
    /// What the buffer is for.
    pub kind: BufferKind,
    /// What it got: [`Acquired::Wait`] means that a smaller one is asked for now.
    pub acquired: Acquired,
}

/// All buffers of all groups.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    slots: Vec<Slot>,
    vacant: Vec<BufferId>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    group: GroupId,
    /// Who has it or waits for it; none once it left.
    owner: Option<ConnId>,
    dmb: Dmb,
    size: BufferSize,
    kind: BufferKind,
    state: State,
    /// Never to be used again after its owner.
    spoiled: bool,
}

/// Bytes of state that a buffer takes.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Names nothing.
    Vacant,
    /// Asked for; `degraded` once the first size failed.
    Registering { degraded: bool },
    /// A connection has it.
    Used,
    /// On its way to the next connection.
    Zeroing,
    /// Zeroed; in its pool's list.
    Free,
}

/// A group's share of the buffers.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Those that may be used again, the latest last.
    free: Vec<BufferId>,
    /// Slots of the group, whatever their state.
    slots: u32,
    /// Receive buffers that the peer may know: all but the free ones.
    announced: u32,
}

impl Pool {
    pub(super) fn is_empty(&self) -> bool {
        self.slots == 0
    }
}

impl Groups {
    /// Gets the connection a buffer for `bytes`, rounded up to the next size: what SO_RCVBUF or
    /// SO_SNDBUF said, which in Linux is half of `sk_rcvbuf` or `sk_sndbuf`. A free one of the group
    /// is taken, else one is registered; if that fails, the same with the next smaller size.
    ///
    /// # Errors
    /// [`GroupError`] if the group is ending, the connection is no member or has one already.
    pub fn acquire(
        &mut self,
        id: GroupId,
        conn: ConnId,
        kind: BufferKind,
        bytes: u32,
        stats: &mut Stats,
    ) -> Result<Acquired, GroupError> {
        let group = self.groups.get_mut(&id).filter(|group| !group.ending);
        let group = group.ok_or(GroupError::NoGroup(id))?;
        let smcd = group.key.ask.peer.is_smcd();
        let slot = group.members.get_mut(&conn).ok_or(GroupError::NoMember(id, conn))?.slot(kind);
        if slot.is_some() {
            return Err(GroupError::HasBuffer(conn, kind));
        }
        if !smcd && kind == BufferKind::Receive && group.pool.announced >= RMBS {
            return Ok(Acquired::Failed(Shortage::Memory));
        }
        let max = if smcd { self.limits.smcd } else { self.limits.smcr };
        let size = BufferSize::covering(bytes, max);
        let counters = stats.technology(smcd);
        if let Some(buffer) = self.buffers.reuse(&mut group.pool, kind, size, conn, counters) {
            *slot = Some(buffer.id);
            return Ok(Acquired::Ready(buffer));
        }
        let state = State::Registering { degraded: false };
        let owner = Some(conn);
        let dmb = Dmb::default();
        let asked = Slot { group: id, owner, dmb, size, kind, state, spoiled: false };
        let buffer = self.buffers.insert(asked, &mut group.pool);
        *slot = Some(buffer);
        self.wishes.push_back(Wish::Register { group: id, buffer, kind, size });
        Ok(Acquired::Wait)
    }

    /// A [`Wish::Register`] was carried out: `Ok` has the token and index of a DMB, zeros for what
    /// is none. The result is for the connection that waits; `None` if it left meanwhile, or if
    /// nobody asked for the buffer.
    pub fn handle_registered(
        &mut self,
        buffer: BufferId,
        outcome: Result<Dmb, RegisterError>,
        stats: &mut Stats,
    ) -> Option<Registered> {
        let slot = self.buffers.registering(buffer)?;
        let (id, kind) = (slot.group, slot.kind);
        let group = self.groups.get_mut(&id)?;
        let counters = stats.technology(group.key.ask.peer.is_smcd());
        let Some(conn) = slot.owner else {
            let keep = group.ending || !slot.spoiled;
            let pool = &mut group.pool;
            self.buffers.settle_unowned(buffer, outcome, keep, pool, &mut self.wishes);
            self.finish(id);
            return None;
        };
        let acquired = match outcome {
            Ok(dmb) => Acquired::Ready(self.buffers.settle(buffer, dmb, counters)?),
            Err(error) => {
                let error = if group.ending { RegisterError::Never } else { error };
                let acquired = self.buffers.degrade(
                    buffer,
                    error,
                    &mut group.pool,
                    &mut self.wishes,
                    counters,
                );
                let has = match acquired {
                    Acquired::Ready(other) => Some(other.id),
                    Acquired::Wait => Some(buffer),
                    Acquired::Failed(_) => None,
                };
                *group.members.get_mut(&conn)?.slot(kind) = has;
                acquired
            }
        };
        self.finish(id);
        Some(Registered { group: id, conn, kind, acquired })
    }

    /// A [`Wish::Zero`] was carried out: the buffer may be used again.
    pub fn handle_zeroed(&mut self, buffer: BufferId) {
        self.zeroed(buffer, true);
    }

    /// A [`Wish::Zero`] could not be carried out: the buffer is given back by [`Wish::Free`].
    pub fn handle_lost(&mut self, buffer: BufferId) {
        self.zeroed(buffer, false);
    }

    /// The buffer must not be used again after the connection that has it, because it could not be
    /// registered on all links (`is_reg_err`). One that nobody has is given back now.
    pub fn spoil(&mut self, buffer: BufferId) {
        let Some(slot) = self.buffers.get_mut(buffer) else { return };
        slot.spoiled = true;
        if slot.state == State::Free
            && let Some(group) = self.groups.get_mut(&slot.group).filter(|group| !group.ending)
        {
            self.buffers.unlist(buffer, &mut group.pool);
            self.buffers.free(buffer, &mut group.pool, &mut self.wishes);
        }
    }

    fn zeroed(&mut self, buffer: BufferId, well: bool) {
        let Some(slot) = self.buffers.get_mut(buffer) else { return };
        if slot.state != State::Zeroing {
            return;
        }
        let id = slot.group;
        let Some(group) = self.groups.get_mut(&id) else { return };
        // an ending group gives all back together, when its links are gone
        if group.ending || (well && !slot.spoiled) {
            self.buffers.list(buffer, &mut group.pool);
        } else {
            self.buffers.free(buffer, &mut group.pool, &mut self.wishes);
        }
        self.finish(id);
    }
}

/// What a released buffer comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// The next connection.
    Reuse,
    /// Its end.
    Discard,
    /// Its end, after all has been done as for the next connection. The peer's queue pairs reach an
    /// SMC-R buffer until it was told, and a write to a memory region that is gone breaks the link.
    Retire,
    /// Its end, together with the group.
    WithGroup,
}

impl Buffers {
    /// Bytes of a group's buffers of one kind.
    pub(super) fn bytes(&self, group: GroupId, kind: BufferKind) -> u64 {
        let counts = |slot: &&Slot| {
            let there = !matches!(slot.state, State::Vacant | State::Registering { .. });
            there && slot.group == group && slot.kind == kind
        };
        self.slots.iter().filter(counts).map(|slot| u64::from(slot.size.bytes())).sum()
    }

    /// A connection has no use for the buffer any more.
    pub(super) fn release(
        &mut self,
        buffer: BufferId,
        how: Release,
        pool: &mut Pool,
        wishes: &mut VecDeque<Wish>,
        counters: &mut Technology,
    ) {
        let Some(slot) = self.get_mut(buffer) else { return };
        slot.owner = None;
        if slot.state != State::Used {
            slot.spoiled |= matches!(how, Release::Discard | Release::Retire);
            return; // on its way, see settle_unowned
        }
        counters.direction(slot.kind).buffer_released(slot.size);
        match how {
            Release::WithGroup => self.list(buffer, pool),
            Release::Reuse | Release::Retire if !slot.spoiled => {
                slot.spoiled = how == Release::Retire;
                slot.state = State::Zeroing;
                wishes.push_back(Wish::Zero { group: slot.group, buffer });
            }
            Release::Reuse | Release::Retire | Release::Discard => self.free(buffer, pool, wishes),
        }
    }

    /// Gives back all that an ending group has and nobody uses.
    pub(super) fn free_all(&mut self, pool: &mut Pool, wishes: &mut VecDeque<Wish>) {
        while let Some(&buffer) = pool.free.last() {
            self.unlist(buffer, pool);
            self.free(buffer, pool, wishes);
        }
    }

    /// Takes a free buffer of exactly this size, the one that was used last.
    fn reuse(
        &mut self,
        pool: &mut Pool,
        kind: BufferKind,
        size: BufferSize,
        conn: ConnId,
        counters: &mut Technology,
    ) -> Option<Buffer> {
        let fits = |id: &BufferId| {
            self.get(*id).is_some_and(|slot| slot.kind == kind && slot.size == size)
        };
        let id = *pool.free.iter().rfind(|id| fits(id))?;
        self.unlist(id, pool);
        let slot = self.get_mut(id)?;
        slot.state = State::Used;
        slot.owner = Some(conn);
        counters.direction(kind).buffer_reused(size);
        Some(Buffer { id, size, dmb: slot.dmb })
    }

    /// The buffer was registered for the connection that waits.
    fn settle(&mut self, id: BufferId, dmb: Dmb, counters: &mut Technology) -> Option<Buffer> {
        let slot = self.get_mut(id)?;
        slot.state = State::Used;
        slot.dmb = dmb;
        counters.direction(slot.kind).buffer_allocated(slot.size);
        Some(Buffer { id, size: slot.size, dmb })
    }

    /// The buffer's registration came to an end, but the connection has left.
    fn settle_unowned(
        &mut self,
        id: BufferId,
        outcome: Result<Dmb, RegisterError>,
        keep: bool,
        pool: &mut Pool,
        wishes: &mut VecDeque<Wish>,
    ) {
        let Some(slot) = self.get_mut(id) else { return };
        match outcome {
            Err(_) => self.vacate(id, pool),
            Ok(_) if !keep => self.free(id, pool, wishes),
            Ok(dmb) => {
                slot.dmb = dmb;
                self.list(id, pool);
            }
        }
    }

    /// The buffer could not be registered: goes on with one of the next smaller size.
    fn degrade(
        &mut self,
        id: BufferId,
        error: RegisterError,
        pool: &mut Pool,
        wishes: &mut VecDeque<Wish>,
        counters: &mut Technology,
    ) -> Acquired {
        let Some(Slot { group, owner: Some(conn), size, kind, state, .. }) = self.get(id).copied()
        else {
            return Acquired::Failed(Shortage::Memory);
        };
        let smaller = size.smaller().filter(|_| error != RegisterError::Never);
        if error != RegisterError::Never && state == (State::Registering { degraded: false }) {
            counters.direction(kind).buffer_downgraded();
        }
        let Some(size) = smaller else {
            self.vacate(id, pool);
            let no_space = error == RegisterError::NoSpace;
            return Acquired::Failed(if no_space { Shortage::MaxDmb } else { Shortage::Memory });
        };
        if let Some(buffer) = self.reuse(pool, kind, size, conn, counters) {
            self.vacate(id, pool);
            return Acquired::Ready(buffer);
        }
        if let Some(slot) = self.get_mut(id) {
            slot.size = size;
            slot.state = State::Registering { degraded: true };
        }
        wishes.push_back(Wish::Register { group, buffer: id, kind, size });
        Acquired::Wait
    }

    fn registering(&self, id: BufferId) -> Option<Slot> {
        let slot = self.get(id)?;
        matches!(slot.state, State::Registering { .. }).then_some(*slot)
    }

    fn insert(&mut self, slot: Slot, pool: &mut Pool) -> BufferId {
        pool.slots += 1;
        pool.announced += u32::from(slot.kind == BufferKind::Receive);
        if let Some(id) = self.vacant.pop() {
            if let Some(place) = self.get_mut(id) {
                *place = slot;
            }
            return id;
        }
        let id = BufferId(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        self.slots.push(slot);
        id
    }

    /// Makes the buffer one that the pool may hand out.
    fn list(&mut self, id: BufferId, pool: &mut Pool) {
        pool.announced -= u32::from(self.is_receive(id));
        if let Some(slot) = self.get_mut(id) {
            slot.state = State::Free;
            pool.free.push(id);
        }
    }

    /// Takes back what [`Self::list`] did.
    fn unlist(&mut self, id: BufferId, pool: &mut Pool) {
        if let Some(at) = pool.free.iter().rposition(|listed| *listed == id) {
            pool.free.remove(at);
            pool.announced += u32::from(self.is_receive(id));
        }
    }

    fn free(&mut self, buffer: BufferId, pool: &mut Pool, wishes: &mut VecDeque<Wish>) {
        let Some(slot) = self.get(buffer) else { return };
        wishes.push_back(Wish::Free { group: slot.group, buffer });
        self.vacate(buffer, pool);
    }

    fn vacate(&mut self, id: BufferId, pool: &mut Pool) {
        pool.slots -= 1;
        pool.announced -= u32::from(self.is_receive(id));
        if let Some(slot) = self.get_mut(id) {
            slot.state = State::Vacant;
            self.vacant.push(id);
        }
    }

    fn is_receive(&self, id: BufferId) -> bool {
        self.get(id).is_some_and(|slot| slot.kind == BufferKind::Receive)
    }

    fn get(&self, id: BufferId) -> Option<&Slot> {
        self.slots.get(usize::try_from(id.0).ok()?)
    }

    fn get_mut(&mut self, id: BufferId) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(id.0).ok()?)
    }
}
