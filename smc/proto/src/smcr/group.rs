// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The link group as its owner sees it: inputs, commands, getters, wishes.
//!
//! Invariant: after each input and command the group has done all that it can; what is left waits for
//! another input or for [`LinkGroup::poll_timeout`].

mod drive;
mod input;
mod view;

use std::collections::VecDeque;

use smc_wire::cdc::Smcr;
use smc_wire::id::{Mac, Qpn, RoceGid};
use smc_wire::llc::DeleteReason;

use super::buffer::{Kind, Usage};
use super::core::{Core, Role};
use super::ending::Ending;
use super::first_contact::FirstContact;
use super::flow::Flow;
use super::link::{LinkId, LinkIds, Slot, State};
use super::member::JoinError;
use super::params::{MAX_CONNS, Params};
use super::qp::PeerEnd;
use super::rkey::Request;
use super::rtoken::{MAX_RMBS, Rtoken, RtokenIndex};
use super::wish::BufferError;
use crate::Instant;
use crate::id::{BufferId, ConnId};

/// What a received message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// LLC; the group has seen to it.
    Control,
    /// CDC for the connection that its token names.
    Cdc(Smcr),
    /// Not a message that this group takes; nothing happened (`smc_wr_rx_demultiplex`).
    Dropped,
}

/// [`LinkGroup::start`] came before the first link's queue pair, or a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("first link is not waiting for its peer: its queue pair must exist and not be connected")]
pub struct NotReady;

/// Where a group is in its life.
#[derive(Debug)]
enum Phase {
    /// The CLC handshake is under way.
    Preparing,
    /// From `start` on.
    Open,
    Ending(Ending),
    Gone,
}

/// A request of the peer that waits for a flow to end.
#[derive(Debug)]
struct Delayed {
    link: LinkId,
    bytes: Vec<u8>,
}

/// One SMC-R link group, client or server.
#[derive(Debug)]
pub struct LinkGroup {
    core: Core,
    phase: Phase,
    first_link: LinkId,
    flow: Option<Flow>,
    delayed: VecDeque<Delayed>,
    /// RMBs that wait for CONFIRM RKEY or DELETE RKEY, at most each one once.
    requests: VecDeque<Request>,
}

impl LinkGroup {
    /// Makes a group and wishes its first link's queue pair.
    pub fn new(params: &Params) -> Self {
        let mut core = Core::new(params.setup());
        core.add_port(params.port);
        let [slot, ..] = Slot::ALL;
        let first_link = core.create_link(slot, params.port);
        let (delayed, requests) = (VecDeque::new(), VecDeque::new());
        Self { core, phase: Phase::Preparing, first_link, flow: None, delayed, requests }
    }

    /// Connects the first link to the queue pair that Accept or Confirm named, and begins the first
    /// contact. It ends with [`Wish::FirstContactDone`] or [`Wish::FirstContactFailed`].
    ///
    /// # Errors
    /// [`NotReady`] if the queue pair does not exist yet or the first contact began already.
    ///
    /// [`Wish::FirstContactDone`]: super::Wish::FirstContactDone
    /// [`Wish::FirstContactFailed`]: super::Wish::FirstContactFailed
    pub fn start(&mut self, now: Instant, peer: PeerEnd) -> Result<(), NotReady> {
        let first = self.first_link;
        let state = self.core.link(first).map(|link| link.state());
        if !matches!(self.phase, Phase::Preparing) || state != Some(State::Activating) {
            return Err(NotReady);
        }
        self.phase = Phase::Open;
        self.core.connect(first, peer);
        self.flow = FirstContact::start(&mut self.core, now, first).map(Flow::FirstContact);
        self.settle(now);
        Ok(())
    }

    /// Makes one of our RMBs reachable to the peer: registers it on each link and tells its keys by
    /// CONFIRM RKEY; before [`Self::start`] only registers it, since CLC tells the key. Answered by
    /// [`Wish::BufferReady`]. A buffer that could not be shared has left
    /// the group; with 255 RMBs in it, the first one that is not shared makes room and leaves it.
    ///
    /// # Errors
    /// [`BufferError::Full`] with 255 shared RMBs, [`BufferError::State`] if it is shared already or
    /// a command for it is under way, [`BufferError::Gone`] if the group is.
    ///
    /// [`Wish::BufferReady`]: super::Wish::BufferReady
    pub fn share_rmb(&mut self, now: Instant, buffer: BufferId) -> Result<(), BufferError> {
        self.enter(now, buffer, Kind::Rmb, None)
    }

    /// [`Self::share_rmb`], the peer being told over `link` if that is active: Linux takes the link of
    /// the connection that the buffer is for (`smcr_lgr_reg_rmbs`).
    ///
    /// # Errors
    /// Those of [`Self::share_rmb`].
    pub fn share_rmb_over(
        &mut self,
        now: Instant,
        buffer: BufferId,
        link: LinkId,
    ) -> Result<(), BufferError> {
        self.enter(now, buffer, Kind::Rmb, Some(link))
    }

    /// Registers a send buffer on each link, also on those to come. Answered by
    /// [`Wish::BufferReady`].
    ///
    /// # Errors
    /// Those of [`Self::share_rmb`].
    ///
    /// [`Wish::BufferReady`]: super::Wish::BufferReady
    pub fn register_sndbuf(&mut self, now: Instant, buffer: BufferId) -> Result<(), BufferError> {
        self.enter(now, buffer, Kind::Sndbuf, None)
    }

    fn enter(
        &mut self,
        now: Instant,
        buffer: BufferId,
        kind: Kind,
        carrier: Option<LinkId>,
    ) -> Result<(), BufferError> {
        let preparing = matches!(self.phase, Phase::Preparing);
        if !preparing && !self.is_open() {
            return Err(BufferError::Gone);
        }
        let is_new = kind == Kind::Rmb && self.core.buffers.get(buffer).is_none();
        if let Some(spare) = self.core.buffers.spare_rmb().filter(|_| is_new) {
            self.core.forget_buffer(spare);
        }
        let entry = self.core.buffers.enter(buffer, kind)?;
        entry.implicit = preparing && kind == Kind::Rmb;
        if preparing || kind == Kind::Sndbuf {
            let links: LinkIds = self.core.links().map(|link| link.id).collect();
            links.into_iter().for_each(|link| self.core.register(link, buffer));
        } else {
            self.requests.push_back(Request { buffer, carrier, since: now });
        }
        self.settle(now);
        Ok(())
    }

    /// Tells the peer by DELETE RKEY that an RMB is no more. Answered by [`Wish::BufferFree`]; then the
    /// buffer may be shared again or dropped.
    ///
    /// # Errors
    /// [`BufferError::State`] if it is not shared or [`Self::start`] is to come; [`BufferError::Gone`]
    /// if the group is gone: the buffer is free.
    ///
    /// [`Wish::BufferFree`]: super::Wish::BufferFree
    pub fn unshare_rmb(&mut self, now: Instant, buffer: BufferId) -> Result<(), BufferError> {
        match self.phase {
            Phase::Preparing => return Err(BufferError::State),
            Phase::Open if self.is_open() => {}
            _ => return Err(BufferError::Gone),
        }
        let entry = self.core.buffers.get_mut(buffer).ok_or(BufferError::State)?;
        if entry.kind != Kind::Rmb || entry.usage != Usage::InUse {
            return Err(BufferError::State);
        }
        entry.usage = Usage::Leaving;
        self.requests.push_back(Request { buffer, carrier: None, since: now });
        self.settle(now);
        Ok(())
    }

    /// Takes an RMB that is not shared, or a send buffer, out of the group.
    ///
    /// # Errors
    /// [`BufferError::State`] if it is not known, shared, or a command for it is under way.
    pub fn drop_buffer(&mut self, buffer: BufferId) -> Result<(), BufferError> {
        let entry = self.core.buffers.get(buffer).ok_or(BufferError::State)?;
        match (entry.kind, entry.usage) {
            (Kind::Rmb, Usage::Idle) | (Kind::Sndbuf, Usage::InUse) => {}
            _ => return Err(BufferError::State),
        }
        self.core.forget_buffer(buffer);
        Ok(())
    }

    /// Puts a new connection on a link (`smcr_lgr_conn_assign_link`): on the server in turn on each of
    /// two symmetric ones, on the client on the first, until [`Self::join_on`].
    ///
    /// # Errors
    /// [`JoinError::Full`] on the server with as many connections as negotiated or 255 RMBs of the
    /// peer; [`JoinError::NoActiveLink`].
    pub fn join(&mut self, conn: ConnId) -> Result<LinkId, JoinError> {
        let count = self.core.members.len();
        let max = match self.core.role {
            Role::Client => MAX_CONNS,
            Role::Server => self.core.max_conns,
        };
        if count >= usize::from(max) || self.core.rtokens.len() >= MAX_RMBS {
            return Err(JoinError::Full(max));
        }
        let preparing = matches!(self.phase, Phase::Preparing);
        let links = self.core.links().filter(|link| match preparing {
            true => link.is_usable(),
            false => link.is_active() && !link.asymmetric && self.is_open(),
        });
        let links: LinkIds = links.map(|link| link.id).collect();
        let second = self.core.role == Role::Server && count % 2 == 1;
        let link = links.get(usize::from(second)).or(links.first());
        let link = *link.ok_or(JoinError::NoActiveLink)?;
        self.core.members.put(conn, link);
        Ok(link)
    }

    /// Puts a connection on the link that the server's Accept names by its end (`smc_connect_rdma`).
    ///
    /// # Errors
    /// [`JoinError::NoServerLink`] if no active link ends there; [`JoinError::Full`] with 255
    /// connections.
    pub fn join_on(
        &mut self,
        conn: ConnId,
        qpn: Qpn,
        gid: RoceGid,
        mac: Mac,
    ) -> Result<LinkId, JoinError> {
        let is_new = self.core.members.link(conn).is_none();
        if is_new && self.core.members.len() >= usize::from(MAX_CONNS) {
            return Err(JoinError::Full(MAX_CONNS));
        }
        let link = self.find_link(gid, mac, Some(qpn)).ok_or(JoinError::NoServerLink)?;
        self.core.members.put(conn, link);
        Ok(link)
    }

    /// Takes a connection out of the group.
    pub fn leave(&mut self, conn: ConnId) {
        self.core.members.remove(conn);
    }

    /// Stores the peer's RMB as Accept or Confirm tells it (`smc_rmb_rtoken_handling`).
    ///
    /// `None` if the link is gone or the peer has 255 RMBs: decline with `ERR_RTOK`.
    pub fn add_rtoken(&mut self, link: LinkId, rtoken: Rtoken) -> Option<RtokenIndex> {
        self.core.rtokens.add(self.core.slot(link)?, rtoken)
    }

    /// Deletes one link in an orderly way; whether there is such an active one. Its connections move;
    /// with no other link the group ends.
    pub fn delete_link(&mut self, now: Instant, link: LinkId, reason: DeleteReason) -> bool {
        let link = self.core.link_mut(link).filter(|link| link.is_active());
        let found = link.map(|link| link.condemned = Some(reason)).is_some();
        self.settle(now);
        found
    }

    /// Ends the group: connections are killed, the peer is told, then [`Wish::GroupGone`].
    ///
    /// `orderly` says that no connection is left (`smc_lgr_free_work`).
    ///
    /// [`Wish::GroupGone`]: super::Wish::GroupGone
    pub fn terminate(&mut self, now: Instant, orderly: bool, reason: DeleteReason) {
        self.begin_end(now, orderly, reason);
    }
}
