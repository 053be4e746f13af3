// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One link: a queue pair of ours connected to one of the peer's.
//!
//! Invariant: a link changes its state by the table of [`State`] only; its [`LinkId`] is never given to
//! another link, its slot and its number may be.

use std::collections::VecDeque;

use arrayvec::ArrayVec;
use smc_wire::id::Psn;
use smc_wire::llc;

use super::qp::{PathMtu, PeerEnd, Port, QueuePair};
use super::test_link::TestLink;
use crate::Instant;

/// Links that a group can have for a moment; two stay (`SMC_LINKS_PER_LGR_MAX`).
pub const SLOTS: usize = 3;

/// A link of a link group, on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// A send of ours that is under way; unique in its link group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// Some of a group's links.
pub(super) type LinkIds = ArrayVec<LinkId, SLOTS>;

/// A link's place in its group, below [`SLOTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u8);

impl Slot {
    /// All places, the first link's first.
    pub(super) const ALL: [Self; SLOTS] = [Self(0), Self(1), Self(2)];

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Where a link is in its life (`enum smc_link_state`).
///
/// | from | event | to |
/// |---|---|---|
/// | Creating | queue pair created | Activating |
/// | Creating, Activating, Active | failed, or to be deleted | Inactive |
/// | Activating | confirmed | Active |
///
/// The link's end, its queue pair's destruction, is possible in each state and leaves none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The queue pair is being created.
    Creating,
    /// It is being connected, its path is not proven.
    Activating,
    /// It carries connections.
    Active,
    /// It carries nothing more and waits for its end.
    Inactive,
}

/// What moves a link from state to state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Created,
    Confirmed,
    Down,
}

impl State {
    /// The table above; `None` where it has no row.
    pub(super) const fn next(self, change: Change) -> Option<Self> {
        match (self, change) {
            (Self::Creating, Change::Created) => Some(Self::Activating),
            (Self::Activating, Change::Confirmed) => Some(Self::Active),
            (Self::Creating | Self::Activating | Self::Active, Change::Down) => {
                Some(Self::Inactive)
            }
            _ => None,
        }
    }
}

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) slot: Slot,
    /// The number that the server gave it, as LLC names it.
    pub(super) number: u8,
    /// What the peer calls it, for display only.
    pub(super) peer_uid: [u8; 4],
    state: State,
    pub(super) port: Port,
    pub(super) qp: Option<QueuePair>,
    pub(super) peer: Option<PeerEnd>,
    /// Whether the queue pair is ready to send.
    pub(super) sends: bool,
    /// Whether it doubles a port of one side and so gets no new connections.
    pub(super) asymmetric: bool,
    /// Why it is to be deleted as soon as no flow is under way.
    pub(super) condemned: Option<llc::DeleteReason>,
    /// Answers to DELETE RKEY that are still to come over it.
    pub(super) deletes: u32,
    pub(super) outbox: Outbox,
    pub(super) test: TestLink,
}

impl Link {
    pub(super) fn new(id: LinkId, slot: Slot, number: u8, port: Port) -> Self {
        Self {
            id,
            slot,
            number,
            peer_uid: [0; 4],
            state: State::Creating,
            port,
            qp: None,
            peer: None,
            sends: false,
            asymmetric: false,
            condemned: None,
            deletes: 0,
            outbox: Outbox::default(),
            test: TestLink::default(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Changes the state by the table; whether it had a row.
    pub(super) fn change(&mut self, change: Change) -> bool {
        let next = self.state.next(change);
        if let Some(next) = next {
            self.state = next;
        }
        next.is_some()
    }

    /// `smc_link_active`
    pub(super) fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// `smc_link_usable`
    pub(super) fn is_usable(&self) -> bool {
        self.state != State::Inactive
    }

    /// `smc_link_sendable`
    pub(super) fn is_sendable(&self) -> bool {
        self.is_usable() && self.sends
    }
}

/// What the table of links shows of one (`smcr link`, `SMC_NETLINK_GET_LINK_SMCR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkView {
    /// Its local name.
    pub id: LinkId,
    /// The number that the server gave it.
    pub number: u8,
    /// Its name for display, and the peer's.
    pub uids: [[u8; 4]; 2],
    /// Where it is in its life.
    pub state: State,
    /// Whether it doubles a port of one side.
    pub asymmetric: bool,
    /// Our port.
    pub port: Port,
    /// Our queue pair.
    pub qp: Option<QueuePair>,
    /// The other end.
    pub peer: Option<PeerEnd>,
}

impl LinkView {
    /// The packet number that the link's sends began with: what Accept and Confirm carry.
    pub fn psn(&self) -> Option<Psn> {
        self.qp.map(|qp| qp.psn)
    }

    /// The MTU to say in Confirm: the smaller one, once the peer's is known.
    pub fn path_mtu(&self) -> PathMtu {
        self.peer.map_or(self.port.mtu, |peer| peer.mtu.min(self.port.mtu))
    }
}

/// LLC messages on their way: at most [`Outbox::SLOTS`] on the queue pair, as many behind them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    posted: Vec<WorkId>,
    waiting: VecDeque<(WorkId, Vec<u8>)>,
    /// When the send queue was last full with something behind it.
    full_since: Option<Instant>,
}

impl Outbox {
    /// Sends on the queue pair at a time (`SMCR_MAX_SEND_WR_DEF`).
    const SLOTS: usize = 16;

    /// Takes a message: back to be posted now, or `None` if it waits or there is no room at all.
    pub(super) fn push(
        &mut self,
        now: Instant,
        work: WorkId,
        message: Vec<u8>,
    ) -> Option<(WorkId, Vec<u8>)> {
        if self.posted.len() < Self::SLOTS {
            self.posted.push(work);
            return Some((work, message));
        }
        self.full_since.get_or_insert(now);
        if self.waiting.len() < Self::SLOTS {
            self.waiting.push_back((work, message));
        }
        None
    }

    /// A send ended; gives the next one to be posted.
    pub(super) fn sent(&mut self, now: Instant, work: WorkId) -> Option<(WorkId, Vec<u8>)> {
        let at = self.posted.iter().position(|&posted| posted == work)?;
        self.posted.swap_remove(at);
        let next = self.waiting.pop_front();
        if let Some((work, _)) = &next {
            self.posted.push(*work);
        }
        self.full_since = if self.waiting.is_empty() { None } else { Some(now) };
        next
    }

    /// Nothing more will be posted.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Since when messages wait although nothing was sent.
    pub(super) fn full_since(&self) -> Option<Instant> {
        self.full_since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_the_table() {
        use State::{Activating, Active, Creating, Inactive};
        let changes = [Change::Created, Change::Confirmed, Change::Down];
        let table = [
            (Creating, [Some(Activating), None, Some(Inactive)]),
            (Activating, [None, Some(Active), Some(Inactive)]),
            (Active, [None, None, Some(Inactive)]),
            (Inactive, [None, None, None]),
        ];
        for (state, next) in table {
            assert_eq!(changes.map(|change| state.next(change)), next, "{state:?}");
        }
    }

    #[test]
    fn full_send_queue_holds_messages_back_and_drops_the_rest() {
        let (mut outbox, now) = (Outbox::default(), Instant(1));
        let push = |outbox: &mut Outbox, n| outbox.push(now, WorkId(n), vec![0]).is_some();
        assert_eq!((0..40).filter(|&n| push(&mut outbox, n)).count(), 16);
        assert_eq!(outbox.full_since(), Some(now));
        assert_eq!(outbox.sent(now, WorkId(99)), None, "no send of ours");
        let posted: Vec<_> = (0..32).filter_map(|n| outbox.sent(Instant(2), WorkId(n))).collect();
        assert_eq!(posted.len(), 16, "those that waited, and no more");
        assert_eq!(posted.first(), Some(&(WorkId(16), vec![0])));
        assert_eq!(outbox.full_since(), None);
        assert!(push(&mut outbox, 40));
    }
}
