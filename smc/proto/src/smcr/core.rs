// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What all flows of a link group work on: links, ports, buffers, keys, connections, wishes.
//!
//! Invariant: a link is made, connected, activated, lost and cleared only by the methods here, so that
//! its state, keys, memory regions and connections change together.

use std::collections::VecDeque;
use std::time::Duration;

use smc_wire::id::{Mac, RoceGid};
use smc_wire::llc::{Body, DeleteReason, Message, Version};

use super::buffer::{Buffers, Mr};
use super::link::{Change, Link, LinkId, LinkIds, SLOTS, Slot, State, WorkId};
use super::member::Members;
use super::qp::{PeerEnd, Port, rtr, rts};
use super::rtoken::Rtokens;
use super::wish::Wish;
use crate::Instant;
use crate::id::{BufferId, DeviceId};

/// Which end of the first contact this side is, for the whole life of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It connected: it answers, and may ask for links.
    Client,
    /// It listened: it numbers, adds and deletes links.
    Server,
}

/// How well a group is protected against the loss of a port (`enum smc_lgr_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Redundancy {
    /// No active link.
    None,
    /// One port on each side.
    Single,
    /// Two ports on each side.
    Symmetric,
    /// Two ports here, one at the peer.
    AsymmetricPeer,
    /// One port here, two at the peer.
    AsymmetricLocal,
}

impl Redundancy {
    /// Whether one port carries two links.
    pub(super) const fn is_asymmetric(self) -> bool {
        matches!(self, Self::AsymmetricPeer | Self::AsymmetricLocal)
    }
}

/// Local ports that a group knows at a time.
const MAX_PORTS: usize = 16;

/// What all flows work on.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) role: Role,
    pub(super) version: Version,
    pub(super) id: [u8; 4],
    /// What CONFIRM LINK says; `max_conns` is 0 before release 2.1.
    pub(super) announced: Announced,
    pub(super) max_links: u8,
    pub(super) max_conns: u8,
    pub(super) gateway: Option<Mac>,
    pub(super) test_interval: Option<Duration>,
    pub(super) redundancy: Redundancy,
    pub(super) ports: Vec<Port>,
    pub(super) buffers: Buffers,
    pub(super) rtokens: Rtokens,
    pub(super) members: Members,
    /// Whether a further link shall be tried as soon as no flow is under way.
    pub(super) want_link: bool,
    /// Why the group shall end.
    pub(super) doom: Option<DeleteReason>,
    links: [Option<Link>; SLOTS],
    wishes: VecDeque<Wish>,
    next_link: u32,
    next_number: u8,
    next_work: u64,
}

/// The limits that CONFIRM LINK tells the peer (`smc_llc_send_confirm_link`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Announced {
    pub(super) max_links: u8,
    pub(super) max_conns: u8,
}

/// What a group begins with.
pub(super) struct Setup {
    pub(super) role: Role,
    pub(super) version: Version,
    pub(super) id: [u8; 4],
    pub(super) announced: Announced,
    pub(super) max_links: u8,
    pub(super) max_conns: u8,
    pub(super) gateway: Option<Mac>,
    pub(super) test_interval: Option<Duration>,
}

impl Core {
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { role, version, id, announced, max_links, max_conns, gateway, test_interval } =
            setup;
        Self {
            role,
            version,
            id,
            announced,
            max_links,
            max_conns,
            gateway,
            test_interval,
            redundancy: Redundancy::None,
            ports: Vec::new(),
            buffers: Buffers::default(),
            rtokens: Rtokens::default(),
            members: Members::default(),
            want_link: false,
            doom: None,
            links: [const { None }; SLOTS],
            wishes: VecDeque::new(),
            next_link: 0,
            next_number: 0,
            next_work: 0,
        }
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        self.wishes.push_back(wish);
    }

    pub(super) fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// Ends the group as soon as the input is handled; the first reason counts
    /// (`smc_llc_set_termination_rsn`).
    pub(super) fn end(&mut self, reason: DeleteReason) {
        self.doom.get_or_insert(reason);
    }

    // Links

    /// The links, the first slot's first.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten()
    }

    pub(super) fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut().flatten()
    }

    pub(super) fn link(&self, id: LinkId) -> Option<&Link> {
        self.links().find(|link| link.id == id)
    }

    pub(super) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links_mut().find(|link| link.id == id)
    }

    pub(super) fn slot(&self, id: LinkId) -> Option<Slot> {
        self.link(id).map(|link| link.slot)
    }

    /// The link that LLC calls `number`.
    pub(super) fn numbered(&self, number: u8) -> Option<&Link> {
        self.links().find(|link| link.number == number)
    }

    /// The first active link but `other` (`smc_switch_conns`).
    pub(super) fn active_but(&self, other: LinkId) -> Option<LinkId> {
        self.links().find(|link| link.is_active() && link.id != other).map(|link| link.id)
    }

    /// The first active link.
    pub(super) fn active(&self) -> Option<LinkId> {
        self.links().find(|link| link.is_active()).map(|link| link.id)
    }

    pub(super) fn is_usable(&self, id: LinkId) -> bool {
        self.link(id).is_some_and(Link::is_usable)
    }

    /// The place for a link that makes the group `target` (`smc_llc_alloc_alt_link`).
    pub(super) fn free_slot(&self, target: Redundancy) -> Option<Slot> {
        let asymmetric = target.is_asymmetric();
        if self.redundancy == Redundancy::Symmetric
            || (self.redundancy != Redundancy::Single && asymmetric)
        {
            return None;
        }
        let free = |slot: &Slot| self.links.get(slot.index()).is_some_and(Option::is_none);
        let mut slots = Slot::ALL.into_iter().filter(free);
        if asymmetric { slots.next_back() } else { slots.next() }
    }

    /// Begins a link; its number is the next free one (`smcr_link_init`).
    pub(super) fn create_link(&mut self, slot: Slot, port: Port) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link = self.next_link.wrapping_add(1);
        loop {
            self.next_number = self.next_number.wrapping_add(1);
            let taken = self.numbered(self.next_number).is_some();
            if self.next_number != 0 && !taken {
                break;
            }
        }
        let link = Link::new(id, slot, self.next_number, port);
        if let Some(place) = self.links.get_mut(slot.index()) {
            *place = Some(link);
        }
        self.wish(Wish::CreateQp { link: id, port });
        id
    }

    /// Connects a link's queue pair; the server's also sends at once (`smc_ib_ready_link`).
    pub(super) fn connect(&mut self, id: LinkId, peer: PeerEnd) {
        let gateway = self.gateway;
        let Some(link) = self.link_mut(id) else { return };
        link.peer = Some(peer);
        let attributes = rtr(&link.port, &peer, gateway);
        self.wish(Wish::ModifyRtr { link: id, attributes });
        if self.role == Role::Server {
            self.let_send(id);
        }
    }

    /// Makes a connected link's queue pair ready to send (`smc_ib_modify_qp_rts`).
    pub(super) fn let_send(&mut self, id: LinkId) {
        let Some(link) = self.link_mut(id) else { return };
        let Some(qp) = link.qp else { return };
        link.sends = true;
        self.wish(Wish::ModifyRts { link: id, attributes: rts(&qp) });
    }

    /// A link is proven and carries connections (`smc_llc_link_active`).
    pub(super) fn activate(&mut self, now: Instant, id: LinkId) {
        let interval = self.test_interval;
        let Some(link) = self.link_mut(id) else { return };
        if link.change(Change::Confirmed) {
            link.test.start(now, interval);
            self.wish(Wish::LinkUp { link: id });
            self.recount();
        }
    }

    /// A link carries nothing more; whether it did until now (`smc_link_downing`).
    pub(super) fn deactivate(&mut self, id: LinkId) -> bool {
        let Some(link) = self.link_mut(id) else { return false };
        link.test.stop();
        link.outbox.stop();
        link.change(Change::Down)
    }

    /// Gives a link's connections to another active one, not on `not_on`; `None` if there is none
    /// (`smc_switch_conns`).
    pub(super) fn switch_connections(
        &mut self,
        from: LinkId,
        not_on: Option<DeviceId>,
    ) -> Option<LinkId> {
        let fits =
            |link: &&Link| link.is_active() && link.id != from && Some(link.port.device) != not_on;
        let to = self.links().find(fits)?.id;
        for conn in self.members.switch(from, to) {
            self.wishes.push_back(Wish::MoveConnection { conn, from, to });
        }
        Some(to)
    }

    /// Aborts all connections.
    pub(super) fn kill_members(&mut self) {
        let kill = self.members.drain().map(|conn| Wish::KillConnection { conn });
        self.wishes.extend(kill);
    }

    /// Destroys a link (`smcr_link_clear`).
    pub(super) fn clear_link(&mut self, id: LinkId) {
        let Some(slot) = self.slot(id) else { return };
        self.rtokens.clear_link(slot);
        self.buffers.clear_link(slot);
        if let Some(place) = self.links.get_mut(slot.index()) {
            *place = None;
        }
        self.wish(Wish::DestroyQp { link: id });
    }

    /// Sees anew how redundant the active links are, and which one doubles a port; without any the
    /// group ends (`smcr_lgr_set_type`, `..._asym`).
    ///
    /// Linux remembers what the last flow made of the group; counting ports gives the same for what
    /// its flows can make, and is right after any loss.
    pub(super) fn recount(&mut self) {
        let active = || self.links().filter(|link| link.is_active());
        let peer_gid = |link: &Link| link.peer.map(|peer| peer.gid);
        let here = active().any(|a| active().any(|b| a.port.gid != b.port.gid));
        let there = active().any(|a| active().any(|b| peer_gid(a) != peer_gid(b)));
        let redundancy = match (here, there) {
            _ if active().next().is_none() => Redundancy::None,
            (true, true) => Redundancy::Symmetric,
            (true, false) => Redundancy::AsymmetricPeer,
            (false, true) => Redundancy::AsymmetricLocal,
            (false, false) => Redundancy::Single,
        };
        let last = active().last().map(|link| link.id).filter(|_| redundancy.is_asymmetric());
        self.redundancy = redundancy;
        for link in self.links_mut() {
            link.asymmetric = Some(link.id) == last;
        }
        if redundancy == Redundancy::None {
            self.end(DeleteReason::LOST_PATH);
        }
    }

    /// Of three links, the one that shares our port with one and the peer's port with the other
    /// (`smc_llc_find_asym_link`).
    pub(super) fn asymmetric_link(&self) -> Option<LinkId> {
        let usable = || self.links().filter(|link| link.is_usable());
        let doubles = |link: &&Link| {
            let others = || usable().filter(|other| other.id != link.id);
            let peer_gid = |link: &Link| link.peer.map(|peer| peer.gid);
            others().any(|other| other.port.gid == link.port.gid)
                && others().any(|other| {
                    other.port.gid != link.port.gid && peer_gid(other) == peer_gid(link)
                })
        };
        usable().find(doubles).map(|link| link.id)
    }

    /// A port that is up and not `but` (`smc_pnet_find_alt_roce`).
    pub(super) fn alternate_port(&self, but: DeviceId) -> Option<Port> {
        self.ports.iter().find(|port| port.device != but).copied()
    }

    /// A port came up or changed.
    pub(super) fn add_port(&mut self, port: Port) {
        self.ports.retain(|known| known.device != port.device);
        if self.ports.len() < MAX_PORTS {
            self.ports.push(port);
        }
    }

    /// Whether an ADD LINK of the peer's comes from the port that `link` leads to.
    pub(super) fn is_same_peer_port(&self, link: LinkId, gid: RoceGid, mac: Mac) -> bool {
        let peer = self.link(link).and_then(|link| link.peer);
        peer.is_some_and(|peer| peer.gid == gid && (self.version == Version::V2 || peer.mac == mac))
    }

    // Messages

    /// Sends an LLC message; `None` if the link cannot send.
    pub(super) fn send(
        &mut self,
        now: Instant,
        link: LinkId,
        response: bool,
        body: Body,
    ) -> Option<WorkId> {
        let message = Message { version: self.version, response, body };
        let work = WorkId(self.next_work);
        let target = self.link_mut(link).filter(|link| link.is_sendable())?;
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes).ok()?;
        if let Some((work, message)) = target.outbox.push(now, work, bytes) {
            self.wish(Wish::PostSend { link, work, message });
        }
        self.next_work = self.next_work.wrapping_add(1);
        Some(work)
    }

    /// A send ended well: the next one that waited is posted.
    pub(super) fn sent(&mut self, now: Instant, link: LinkId, work: WorkId) {
        let next = self.link_mut(link).and_then(|link| link.outbox.sent(now, work));
        if let Some((work, message)) = next {
            self.wish(Wish::PostSend { link, work, message });
        }
    }

    // Buffers

    /// Registers a buffer on a link where it is not yet.
    pub(super) fn register(&mut self, id: LinkId, buffer: BufferId) {
        let link = self.link(id).filter(|link| link.state() != State::Creating && link.is_usable());
        let Some(slot) = link.map(|link| link.slot) else { return };
        let Some(entry) = self.buffers.get_mut(buffer) else { return };
        if entry.register(slot) {
            self.wish(Wish::RegisterMr { link: id, buffer });
        }
    }

    /// Registers all used buffers on a new link (`smcr_buf_map_lgr`, `smcr_buf_reg_lgr`).
    pub(super) fn register_all(&mut self, id: LinkId) {
        let link = self.link(id).filter(|link| link.state() != State::Creating && link.is_usable());
        let Some(slot) = link.map(|link| link.slot) else { return };
        for buffer in self.buffers.iter_mut().filter(|buffer| buffer.is_used()) {
            if buffer.register(slot) {
                self.wishes.push_back(Wish::RegisterMr { link: id, buffer: buffer.id });
            }
        }
    }

    /// Takes a buffer out of the group, with its memory regions.
    pub(super) fn forget_buffer(&mut self, buffer: BufferId) {
        let Some(entry) = self.buffers.get(buffer) else { return };
        let there = |link: &&Link| matches!(entry.mr(link.slot), Mr::Pending | Mr::Ready(_));
        let links: LinkIds = self.links().filter(there).map(|link| link.id).collect();
        for link in links {
            self.wish(Wish::DeregisterMr { link, buffer });
        }
        self.buffers.remove(buffer);
    }
}
