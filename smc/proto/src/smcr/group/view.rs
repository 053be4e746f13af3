// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a group stands.
//!
//! Invariant: nothing here changes the group.

use smc_wire::id::{Mac, Qpn, RoceGid};
use smc_wire::llc::Version;

use super::super::confirm_link;
use super::super::core::{Redundancy, Role};
use super::super::link::{LinkId, LinkView};
use super::super::qp::PeerEnd;
use super::super::route::Route;
use super::super::rtoken::{Rtoken, RtokenIndex};
use super::{LinkGroup, Phase};
use crate::id::{BufferId, ConnId};

impl LinkGroup {
    /// Whether the group takes new connections and buffers.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.core.doom.is_none()
    }

    /// Whether the group is over and may be dropped.
    pub fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// Whether nothing is under way: no flow, no waiting command.
    pub fn is_quiet(&self) -> bool {
        self.flow.is_none() && self.requests.is_empty() && self.delayed.is_empty()
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.core.role
    }

    /// How well the group is protected against the loss of a port.
    pub fn redundancy(&self) -> Redundancy {
        self.core.redundancy
    }

    /// The first contact's link.
    pub fn first_link(&self) -> LinkId {
        self.first_link
    }

    /// The links, the first slot's first.
    pub fn links(&self) -> impl Iterator<Item = LinkView> {
        self.core.links().map(|link| LinkView {
            id: link.id,
            number: link.number,
            uids: [confirm_link::uid(self.core.id, link.number), link.peer_uid],
            state: link.state(),
            asymmetric: link.asymmetric,
            port: link.port,
            qp: link.qp,
            peer: link.peer,
        })
    }

    /// One link.
    pub fn link(&self, id: LinkId) -> Option<LinkView> {
        self.links().find(|link| link.id == id)
    }

    /// The active link that ends at the peer's port and, on a client, queue pair: whether a new
    /// connection can use this group (`smcr_lgr_match`).
    pub fn find_link(&self, gid: RoceGid, mac: Mac, qpn: Option<Qpn>) -> Option<LinkId> {
        let fits = |peer: PeerEnd| {
            peer.gid == gid
                && (self.core.version == Version::V2 || peer.mac == mac)
                && qpn.is_none_or(|qpn| qpn == peer.qpn)
        };
        let found = self.core.links().find(|link| link.is_active() && link.peer.is_some_and(fits));
        found.filter(|_| self.is_open()).map(|link| link.id)
    }

    /// Connections in the group.
    pub fn connections(&self) -> usize {
        self.core.members.len()
    }

    /// Connections on one link (`SMC_NLA_LINK_CONN_CNT`).
    pub fn connections_on(&self, link: LinkId) -> usize {
        self.core.members.on(link)
    }

    /// The link that a connection uses.
    pub fn link_of(&self, conn: ConnId) -> Option<LinkId> {
        self.core.members.link(conn)
    }

    /// Our buffer's key and address on a link: for Accept or Confirm, and for local use.
    pub fn local_rtoken(&self, buffer: BufferId, link: LinkId) -> Option<Rtoken> {
        self.core.buffers.get(buffer)?.rtoken(self.core.slot(link)?)
    }

    /// The peer's RMB over a link; `None` if the peer has told no key for it there.
    pub fn rtoken(&self, index: RtokenIndex, link: LinkId) -> Option<Rtoken> {
        self.core.rtokens.get(index, self.core.slot(link)?)
    }

    /// RMBs of the peer that are known.
    pub fn rtoken_count(&self) -> usize {
        self.core.rtokens.len()
    }

    /// A connection's way to an RMB of the peer's.
    pub fn route(&self, conn: ConnId, index: RtokenIndex) -> Option<Route> {
        let link = self.link_of(conn)?;
        Some(Route { link, rtoken: self.rtoken(index, link)? })
    }
}
