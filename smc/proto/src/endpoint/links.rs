// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The links of SMC-R groups: each group's machine, what it wants and what its progress means for
//! handshakes and buffers.
//!
//! Invariant: an SMC-R group that has a machine is known to [`crate::group::Groups`], and the two
//! agree about which links are active; a buffer is zeroed only when the peer cannot write it any
//! more.

use std::time::Duration;

use smc_wire::cdc::{self, ProducerFlags};
use smc_wire::clc::Diagnosis;
use smc_wire::llc::DeleteReason;

use super::Endpoint;
use super::wish::Wish;
use crate::Instant;
use crate::group::{self, Cause, LinkPeer, Role, Version};
use crate::handshake::inventory::pnetid_of_port;
use crate::handshake::offer::Place;
use crate::handshake::pnet::PnetId;
use crate::handshake::release::Terms;
use crate::id::{BufferId, ConnId, GroupId};
use crate::smcr::link::State as LinkState;
use crate::smcr::qp::{Port, QueuePair};
use crate::smcr::rtoken::MAX_RMBS;
use crate::smcr::{self, LinkGroup, LinkId, Params, Received, Rtoken, WorkId};

/// CDC messages that are kept for a connection whose handshake is not through; at least 2.
const MAX_EARLY: usize = 16;

/// A group's links, and which ports may carry them.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) machine: LinkGroup,
    pub(super) place: Place,
    pub(super) network: Option<PnetId>,
}

impl Links {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }
}

/// What a group's links have said.
#[derive(Debug)]
pub(super) enum Event {
    /// The first contact over the fabric has come to its end.
    FirstContact(GroupId, Result<(), Diagnosis>),
    /// A link is confirmed.
    Confirmed(GroupId),
    /// A buffer is reachable, or never will be.
    Buffer(GroupId, BufferId, bool),
    /// The peer cannot write a buffer any more.
    Forgotten(GroupId, BufferId),
    /// A queue pair or a memory region is there, or not.
    Progress(GroupId),
    /// The group ends.
    Doomed(GroupId),
    /// The group has no links any more.
    Gone(GroupId),
}

/// Outcomes of [`Wish::Links`], and what links bring.
impl Endpoint {
    /// [`smcr::Wish::CreateQp`] was carried out; `None` if it failed.
    pub fn handle_qp_created(
        &mut self,
        now: Instant,
        group: GroupId,
        link: LinkId,
        qp: Option<QueuePair>,
    ) {
        self.now = now;
        self.with_links(group, |links, now| links.handle_qp_created(now, link, qp));
        self.tell_progress(group);
    }

    /// A queue pair could not be made ready to receive or to send.
    pub fn handle_qp_failed(&mut self, now: Instant, group: GroupId, link: LinkId) {
        self.now = now;
        self.with_links(group, |links, now| links.handle_qp_failed(now, link));
    }

    /// [`smcr::Wish::RegisterMr`] was carried out; `None` if it failed.
    pub fn handle_mr_registered(
        &mut self,
        now: Instant,
        group: GroupId,
        link: LinkId,
        buffer: BufferId,
        rtoken: Option<Rtoken>,
    ) {
        self.now = now;
        self.with_links(group, |links, now| links.handle_mr_registered(now, link, buffer, rtoken));
        self.tell_progress(group);
    }

    /// A send that [`smcr::Wish::PostSend`] asked for has completed, well or not.
    pub fn handle_sent(
        &mut self,
        now: Instant,
        group: GroupId,
        link: LinkId,
        work: WorkId,
        ok: bool,
    ) {
        self.now = now;
        self.with_links(group, |links, now| links.handle_sent(now, link, work, ok));
    }

    /// A link's queue pair failed.
    pub fn handle_link_failed(&mut self, now: Instant, group: GroupId, link: LinkId) {
        self.now = now;
        self.with_links(group, |links, now| links.handle_link_failed(now, link));
    }

    /// [`smcr::Wish::Drain`] was carried out.
    pub fn handle_drained(&mut self, now: Instant, group: GroupId, link: LinkId) {
        self.now = now;
        self.with_links(group, |links, now| links.handle_drained(now, link));
    }

    /// A message came over a link. A CDC message is for the connection that its token names, unless
    /// that is still in its handshake: then it is kept for [`super::Path::Rdma`]. One whose token
    /// names no connection of this group is dropped (`smc_cdc_rx_handler` looks it up in the group).
    pub fn handle_recv(
        &mut self,
        now: Instant,
        group: GroupId,
        link: LinkId,
        bytes: &[u8],
    ) -> Received {
        self.now = now;
        let received = self.with_links(group, |links, now| links.handle_recv(now, link, bytes));
        match received {
            Some(Received::Cdc(message)) => {
                let conn = ConnId(message.token.0);
                match self.established.get(&conn).copied() {
                    Some(of) if of == group => Received::Cdc(message),
                    Some(_) => Received::Dropped,
                    None if self.keep(group, conn, message) => Received::Control,
                    None => Received::Dropped,
                }
            }
            received => received.unwrap_or(Received::Dropped),
        }
    }

    /// An established connection's way to its peer's RMB, after [`smcr::Wish::MoveConnection`]; `index`
    /// is the one of its [`super::Path::Rdma`]. `None` if the peer told no key for the link.
    pub fn route(&self, conn: ConnId, index: smcr::RtokenIndex) -> Option<smcr::Route> {
        let group = self.established.get(&conn)?;
        self.links.get(group)?.machine.route(conn, index)
    }

    /// Keeps a CDC message for a connection in its handshake (`smc_cdc_rx_handler` finds it by its
    /// token already).
    fn keep(&mut self, group: GroupId, conn: ConnId, message: cdc::Smcr) -> bool {
        let hs = self.handshakes.get_mut(&conn);
        let Some(hs) = hs.filter(|hs| hs.held.is_some_and(|held| held.group == group)) else {
            return false;
        };
        keep_early(&mut hs.early, message);
        true
    }
}

impl Endpoint {
    /// Begins the links of a new group (`smc_lgr_create`).
    pub(super) fn begin_links(
        &mut self,
        group: GroupId,
        (role, version): (Role, Version),
        place: Place,
        port: Port,
        (terms, gateway): (Terms, Option<smc_wire::id::Mac>),
    ) {
        let role = match role {
            Role::Client => smcr::Role::Client,
            Role::Server => smcr::Role::Server,
        };
        let seconds = u64::from(self.config.testlink_time);
        let version = match version {
            Version::V1 => smc_wire::llc::Version::V1,
            Version::V2 => smc_wire::llc::Version::V2,
        };
        let params = Params {
            peer_release: terms.release,
            max_links: terms.max_links,
            max_conns: terms.max_conns,
            gateway,
            test_link: (seconds != 0).then(|| Duration::from_secs(seconds)),
            ..Params::new(role, version, group.0.to_ne_bytes(), port)
        };
        let machine = LinkGroup::new(&params);
        let host = self.host();
        let used = host.inventory.port(port.device);
        let network = used.and_then(|it| pnetid_of_port(it, &host.config.pnet));
        let others: Vec<Port> = place.others(&host, port.device).collect();
        self.links.insert(group, Box::new(Links { machine, place, network }));
        self.with_links(group, |links, now| {
            others.into_iter().for_each(|port| links.handle_port_up(now, port));
        });
    }

    /// Does something to a group's links and takes up what they want then; `None` if it has none.
    pub(super) fn with_links<R>(
        &mut self,
        group: GroupId,
        act: impl FnOnce(&mut LinkGroup, Instant) -> R,
    ) -> Option<R> {
        let links = self.links.get_mut(&group)?;
        let result = act(&mut links.machine, self.now);
        let mut changed = false;
        while let Some(wish) = links.machine.poll_wish() {
            changed = true;
            let event = match wish {
                smcr::Wish::FirstContactDone => Event::FirstContact(group, Ok(())),
                smcr::Wish::FirstContactFailed(why) => Event::FirstContact(group, Err(why)),
                smcr::Wish::BufferReady { buffer, result } => {
                    Event::Buffer(group, buffer, result.is_ok())
                }
                smcr::Wish::BufferFree { buffer } => Event::Forgotten(group, buffer),
                smcr::Wish::KillConnection { .. } => Event::Doomed(group),
                smcr::Wish::GroupGone { .. } => Event::Gone(group),
                smcr::Wish::LinkUp { .. } => Event::Confirmed(group),
                smcr::Wish::MoveConnection { conn, to, .. }
                    if self.handshakes.contains_key(&conn) =>
                {
                    let hs = self.handshakes.get_mut(&conn);
                    if let Some(held) = hs.and_then(|hs| hs.held.as_mut()) {
                        held.link = Some(to);
                    }
                    Event::Progress(group)
                }
                wish => {
                    if let smcr::Wish::DestroyQp { link } = wish {
                        self.groups.set_link(group, link.0, None);
                    }
                    self.wishes.push_back(Wish::Links { group, wish });
                    continue;
                }
            };
            self.events.push_back(event);
        }
        if changed {
            self.tell_groups(group);
        }
        Some(result)
    }

    /// Lets handshakes look whether they can go on; once for answers that came together.
    fn tell_progress(&mut self, group: GroupId) {
        let told = matches!(self.events.back(), Some(Event::Progress(last)) if *last == group);
        if !told {
            self.events.push_back(Event::Progress(group));
        }
    }

    /// Tells which links new connections can be found by, and whether there is room for them.
    fn tell_groups(&mut self, group: GroupId) {
        let Some(links) = self.links.get(&group) else { return };
        for link in links.machine.links() {
            let active = link.state == LinkState::Active && links.machine.is_open();
            let end = link.peer.filter(|_| active);
            let end = end.map(|it| LinkPeer { gid: it.gid, mac: it.mac, qpn: it.qpn });
            self.groups.set_link(group, link.id.0, end);
        }
        self.groups.set_open(group, links.machine.rtoken_count() < MAX_RMBS);
    }

    /// Sees to what links have said.
    pub(super) fn link_event(&mut self, event: Event) {
        match event {
            Event::FirstContact(group, result) => self.first_contact_ended(group, result),
            Event::Confirmed(group) => self.link_confirmed(group),
            Event::Buffer(group, buffer, ok) => self.buffer_shared(group, buffer, ok),
            Event::Forgotten(group, buffer) => self.forgotten(group, buffer),
            Event::Progress(group) => self.links_progressed(group),
            Event::Doomed(group) => {
                self.groups.terminate(group, Cause::NoLink);
            }
            Event::Gone(group) => {
                self.links.remove(&group);
                self.groups.terminate(group, Cause::NoLink);
                self.groups.handle_links_gone(group);
            }
        }
    }

    /// A group ends, and its links with it.
    pub(super) fn end_links(&mut self, group: GroupId, cause: Cause) {
        let reason = match cause {
            Cause::Idle | Cause::Early | Cause::OutOfSync | Cause::PeerGone => {
                DeleteReason::PROGRAM
            }
            Cause::Operator => DeleteReason::OPERATOR,
            Cause::NoLink | Cause::DeviceGone => DeleteReason::LOST_PATH,
            Cause::Violation => DeleteReason::PROTOCOL_VIOLATION,
        };
        let orderly = cause == Cause::Idle;
        let ended = self.with_links(group, |links, now| links.terminate(now, orderly, reason));
        if ended.is_none() {
            self.groups.handle_links_gone(group);
        }
    }

    pub(super) fn links_timed_out(&mut self) {
        let now = self.now;
        let due = |links: &Links| links.poll_timeout().is_some_and(|at| at <= now);
        let all = self.links.iter().filter(|(_, links)| due(links));
        let groups: Vec<GroupId> = all.map(|(group, _)| *group).collect();
        for group in groups {
            self.with_links(group, |links, now| links.handle_timeout(now));
        }
    }
}

/// SMC-R's buffers.
impl Endpoint {
    /// Makes a connection's buffers reachable, those that are not already; the peer is told over the
    /// connection's link.
    pub(super) fn share(
        &mut self,
        group: GroupId,
        link: LinkId,
        send: BufferId,
        receive: BufferId,
    ) -> Result<(), Diagnosis> {
        let shared = self.with_links(group, |links, now| {
            let mut ids = links.links().map(|link| link.id);
            let known = ids.any(|link| links.local_rtoken(send, link).is_some());
            drop(ids);
            if !known {
                links.register_sndbuf(now, send)?;
            }
            links.share_rmb_over(now, receive, link).map(|()| !known)
        });
        match shared {
            Some(Ok(sending)) => {
                self.sharing.insert(receive);
                if sending {
                    self.sharing.insert(send);
                }
                Ok(())
            }
            Some(Err(_)) => Err(Diagnosis::ERR_REGBUF),
            None => Err(Diagnosis::NOACTLINK),
        }
    }

    fn buffer_shared(&mut self, group: GroupId, buffer: BufferId, ok: bool) {
        self.sharing.remove(&buffer);
        if !ok {
            self.groups.spoil(buffer);
        }
        if self.leaving.remove(&buffer) {
            // Its connection has left meanwhile.
            return self.zero(group, buffer);
        }
        self.links_progressed_for(group, (!ok).then_some(buffer));
    }

    /// A buffer shall be zeroed: not before the peer has been told that its key is no more.
    pub(super) fn zero(&mut self, group: GroupId, buffer: BufferId) {
        let told = self.with_links(group, |links, now| links.unshare_rmb(now, buffer).is_ok());
        if told == Some(true) || self.sharing.contains(&buffer) {
            self.leaving.insert(buffer);
        } else {
            self.wishes.push_back(Wish::Group(group::Wish::Zero { group, buffer }));
        }
    }

    fn forgotten(&mut self, group: GroupId, buffer: BufferId) {
        self.sharing.remove(&buffer);
        if self.leaving.remove(&buffer) {
            self.wishes.push_back(Wish::Group(group::Wish::Zero { group, buffer }));
        }
    }

    /// A buffer's memory goes: its memory regions go before.
    pub(super) fn free(&mut self, group: GroupId, buffer: BufferId) {
        self.with_links(group, |links, _| links.drop_buffer(buffer).is_ok());
        self.wishes.push_back(Wish::Group(group::Wish::Free { group, buffer }));
    }
}

/// Keeps a message behind those that came before. Cursors and states are absolute, so when there are
/// too many the newest stands for the one before it, unless that one marks the last urgent byte,
/// which is where its own cursor points.
fn keep_early(early: &mut Vec<cdc::Smcr>, mut message: cdc::Smcr) {
    const REPLY: ProducerFlags = ProducerFlags::CONSUMER_UPDATE_REQUESTED;
    const URGENT: ProducerFlags = ProducerFlags::URGENT_PRESENT;
    if let Some(newest) = early.last().filter(|_| early.len() >= MAX_EARLY) {
        let ahead = message.seqno.wrapping_sub(newest.seqno).cast_signed();
        if ahead < 0 || message.flags.contains(ProducerFlags::FAILOVER_VALIDATION) {
            return; // repeats or confirms what is here
        }
        let marked = newest.flags.contains(URGENT) && !message.flags.contains(URGENT);
        let old = early.remove(early.len() - 1 - usize::from(marked));
        message.flags.insert(if old.flags.contains(REPLY) { REPLY } else { ProducerFlags::EMPTY });
    }
    early.push(message);
}
