// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Link groups: who belongs to which, how long they live, and the buffers they keep.
//!
//! Invariant: whatever a group took (buffers, a VLAN, links) it gives back once, after its last
//! connection left; a buffer has one owner at a time and reaches the next one zeroed.
//!
//! A group stands for what two hosts share over several connections. SMC-D groups are wholly here;
//! of an SMC-R group the membership is, its links are the machine's with the same [`GroupId`], which
//! says by [`Groups::set_link`] which of them a connection could use.
//!
//! # A group's life
//! ```text
//!            join: no group fits                       the last one left: 600 s, SMC-R client 610 s
//!  (nothing) ───────────────────> open ⇄ open, idle ──────────────────────────────────────┐
//!                                  │ terminate: Kill for each connection                  │
//!                                  v                                                      v
//!                                ending: fits nobody; waits for leave() of each one, for its links
//!                                  │     and for buffers on their way
//!                                  v
//!                                 Gone
//! ```
//!
//! # A buffer's life
//! ```text
//!  acquire ─> registering ──ok──> used ──leave──> zeroing ──handle_zeroed──> reusable ─> used …
//!                │ error: one size smaller          │ discard, spoiled,       │ the group ends
//!                v                                  v group ends              v
//!              failed                             Free                      Free
//! ```

mod buffers;
mod event;
mod key;
mod life;
mod vlan;
mod wish;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smc_wire::size::BufferSize;

pub use self::buffers::{Acquired, Buffer, RegisterError, Registered, Shortage};
use self::buffers::{Buffers, Pool};
pub use self::key::{Ask, LINKS, LinkPeer, Peer, Role, SmcdPeer, SmcrPeer, Version};
use self::key::{Ends, Key};
pub use self::life::{Fate, IDLE, IDLE_CLIENT, JoinError, Joined};
pub use self::vlan::VlanState;
use self::vlan::Vlans;
pub use self::wish::{BufferKind, Cause, Wish};
use crate::Instant;
use crate::id::{BufferId, ConnId, GroupId};

/// Sizes that the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest SMC-D buffer, at most [`BufferSize::MAX_SMCD`] if peers shall be Linux.
    pub smcd: BufferSize,
    /// The largest SMC-R buffer.
    pub smcr: BufferSize,
}

impl Default for Limits {
    /// Linux's: 1 MiB for SMC-D, 512 MiB for SMC-R.
    fn default() -> Self {
        Self { smcd: BufferSize::MAX_SMCD, smcr: BufferSize::MAX }
    }
}

/// Bytes of state that a group takes here, without members and buffers; SMC-R's machine comes on top.
pub const GROUP_BYTES: usize = size_of::<Group>();
/// Bytes of state that a connection takes in its group, its two buffers included.
pub const MEMBER_BYTES: usize = size_of::<(ConnId, Member)>() + 2 * buffers::SLOT_BYTES;

/// All link groups of one end.
#[derive(Debug)]
pub struct Groups {
    limits: Limits,
    groups: BTreeMap<GroupId, Box<Group>>,
    /// The groups that are not ending, by what a connection must have in common with them.
    by_ends: BTreeSet<(Ends, GroupId)>,
    last: GroupId,
    buffers: Buffers,
    vlans: Vlans,
    idle: BTreeSet<(Instant, GroupId)>,
    wishes: VecDeque<Wish>,
}

/// A misuse by the caller: it named what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// There is no such group, or it is ending.
    #[error("link group {:#x} does not exist or is ending", .0.0)]
    NoGroup(GroupId),
    /// The connection is no member of the group.
    #[error("connection {} is no member of link group {:#x}", .1.0, .0.0)]
    NoMember(GroupId, ConnId),
    /// The connection has such a buffer already.
    #[error("connection {} has a {:?} buffer already", .0.0, .1)]
    HasBuffer(ConnId, BufferKind),
}

/// One link group.
#[derive(Debug)]
struct Group {
    key: Key,
    members: BTreeMap<ConnId, Member>,
    pool: Pool,
    /// When it ends unless somebody joins.
    deadline: Option<Instant>,
    /// SMC-R: the peer has no room for another of our RMBs, or its links want no connections.
    closed: bool,
    /// The first contact has come to its end.
    settled: bool,
    /// Fits nobody any more.
    ending: bool,
    /// SMC-R: the machine has not yet said that the links are gone.
    links_up: bool,
}

/// A connection's buffers.
#[derive(Debug, Default, Clone, Copy)]
struct Member {
    receive: Option<BufferId>,
    send: Option<BufferId>,
}

impl Member {
    fn slot(&mut self, kind: BufferKind) -> &mut Option<BufferId> {
        match kind {
            BufferKind::Receive => &mut self.receive,
            BufferKind::Send => &mut self.send,
        }
    }
}

/// What `smcd linkgroup` and `smcr linkgroup` show of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its number.
    pub id: GroupId,
    /// What it was made for.
    pub ask: Ask,
    /// Connections that belong to it.
    pub connections: usize,
    /// Bytes of its receive buffers, in use or not.
    pub receive_bytes: u64,
    /// Bytes of its send buffers, in use or not.
    pub send_bytes: u64,
    /// Whether it is ending.
    pub ending: bool,
}

impl Groups {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            groups: BTreeMap::new(),
            by_ends: BTreeSet::new(),
            last: GroupId(0),
            buffers: Buffers::default(),
            vlans: Vlans::default(),
            idle: BTreeSet::new(),
            wishes: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.idle.first().map(|(deadline, _)| *deadline)
    }

    /// Whom a group is with, also while it ends.
    pub fn peer(&self, group: GroupId) -> Option<&Peer> {
        self.groups.get(&group).map(|group| &group.key.ask.peer)
    }

    /// Connections that belong to the group now, also while it ends.
    pub fn members(&self, group: GroupId) -> impl Iterator<Item = ConnId> + '_ {
        self.groups.get(&group).into_iter().flat_map(|group| group.members.keys().copied())
    }

    /// All groups, for an operator.
    pub fn infos(&self) -> impl Iterator<Item = GroupInfo> + '_ {
        self.groups.iter().map(|(&id, group)| GroupInfo {
            id,
            ask: group.key.ask,
            connections: group.members.len(),
            receive_bytes: self.buffers.bytes(id, BufferKind::Receive),
            send_bytes: self.buffers.bytes(id, BufferKind::Send),
            ending: group.ending,
        })
    }
}
