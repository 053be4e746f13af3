// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client's steps (`smc_connect`: `__smc_connect`, `smc_connect_ism`, `smc_connect_rdma`).
//!
//! Invariant: after the Confirm was sent the handshake is through; nothing that fails later falls
//! back.

use smc_wire::clc::{AcceptConfirm, Confirm, Contact, Diagnosis, Smcr};
use smc_wire::id::Mac;

use super::late::Late;
use super::state::{Agreed, Handshake, Over, Purpose, State, Wants};
use super::wish::Wish;
use super::{CLC_WAIT, Endpoint};
use crate::Instant;
use crate::group::{Ask, LinkPeer, Peer, Role, SmcdPeer, SmcrPeer, Version, VlanState};
use crate::handshake::client::{Chosen, Means, look};
use crate::handshake::offer::{Offer, gid_to_ipv4};
use crate::handshake::reason::{End, Failure, Reason};
use crate::handshake::route::{NextHop, Route};
use crate::id::ConnId;
use crate::smcd::dmb::PeerElement;
use crate::smcr::qp::PeerEnd;

impl Endpoint {
    pub(super) fn begin_client(&mut self, conn: ConnId, route: &Route) {
        if !route.smc {
            let reason = Reason::from(Diagnosis::PEERNOSMC);
            return self.fall_back(conn, Role::Client, reason, Late::Nothing);
        }
        let mut hs = Box::new(Handshake::new(conn, Role::Client, route, State::TAKEN));
        hs.v2 = self.inventory.v2_capable();
        if route.ipsec {
            return self.end(hs, Diagnosis::IPSEC.into());
        }
        match Offer::choose(&self.host(), route) {
            Ok(offer) => self.hold_vlan_then_propose(hs, Box::new(offer)),
            Err(diagnosis) => self.end(hs, diagnosis.into()),
        }
    }

    /// Version 1's ISM device must be in the VLAN before it is offered
    /// (`smc_connect_ism_vlan_setup`).
    fn hold_vlan_then_propose(&mut self, mut hs: Box<Handshake>, offer: Box<Offer>) {
        if let Some(ism) = offer.ism1.filter(|_| offer.vlan != 0) {
            let held = self.groups.hold_vlan(ism.device, offer.vlan);
            hs.vlans.push((ism.device, offer.vlan));
            if held == VlanState::Pending {
                return self.park(hs, State::Proposing(offer), None);
            }
        }
        self.propose(hs, offer);
    }

    /// The VLAN of a version 1 device is there, or refused.
    pub(super) fn vlan_for_proposal(
        &mut self,
        mut hs: Box<Handshake>,
        offer: Box<Offer>,
        added: bool,
    ) {
        if added {
            return self.propose(hs, offer);
        }
        hs.vlans.clear();
        match offer.without_ism1() {
            Ok(offer) => self.propose(hs, Box::new(offer)),
            Err(diagnosis) => self.end(hs, diagnosis.into()),
        }
    }

    fn propose(&mut self, mut hs: Box<Handshake>, offer: Box<Offer>) {
        let proposal = offer.proposal(&self.host());
        self.send(hs.conn, |bytes| proposal.emit(bytes));
        let patience = self.config.patience.filter(|patience| *patience < CLC_WAIT);
        hs.impatient = patience.is_some();
        self.park(hs, State::Proposed(offer), Some(patience.unwrap_or(CLC_WAIT)));
    }

    /// Nobody can answer this client's Proposal soon, the caller knows: it is withdrawn, and the
    /// connection goes on as TCP. Without an effect on any other handshake.
    pub fn withdraw(&mut self, now: Instant, conn: ConnId) {
        self.now = now;
        if let Some(hs) = self.take_if(conn, |state| matches!(state, State::Proposed(_))) {
            self.withdrawn(hs);
        }
    }

    /// The Proposal was not answered in time. A Decline follows it, so that a server which sees both has
    /// nothing to do, and one that has answered meanwhile is declined.
    pub(super) fn withdrawn(&mut self, hs: Box<Handshake>) {
        let (conn, role, v2, why) = (hs.conn, hs.role, hs.v2, Diagnosis::TIMEOUT_CL);
        self.abandon(*hs);
        self.decline(conn, v2, why);
        self.fall_back(conn, role, why.into(), Late::Answer);
    }

    /// The Accept came.
    pub(super) fn accepted(
        &mut self,
        mut hs: Box<Handshake>,
        offer: Box<Offer>,
        accept: &AcceptConfirm,
    ) {
        let chosen = look(&self.host(), &offer, accept);
        hs.v2 = matches!(accept.contact, Contact::V2 { .. });
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(end) => return self.end(hs, end),
        };
        if let Means::Smcr { peer, direct: Some(false), .. } = chosen.means {
            let Some((from, to)) = hs.route.local4().zip(gid_to_ipv4(peer.gid)) else {
                return self.end(hs, Diagnosis::NOROUTE.into());
            };
            self.wishes.push_back(Wish::ResolveNextHop { conn: hs.conn, from, to });
            return self.park(hs, State::Resolving(offer, chosen), None);
        }
        self.take_up(hs, &offer, chosen, None);
    }

    /// The next hop to a server that says that there is a gateway (`smc_connect_rdma_v2_prepare`).
    pub(super) fn gateway_for_client(
        &mut self,
        hs: Box<Handshake>,
        offer: &Offer,
        chosen: Chosen,
        hop: Option<NextHop>,
    ) {
        match hop {
            None => self.end(hs, Diagnosis::NOROUTE.into()),
            Some(hop) if !hop.gateway => self.end(hs, Diagnosis::NOINDIRECT.into()),
            Some(hop) => self.take_up(hs, offer, chosen, Some(hop.mac)),
        }
    }

    fn take_up(&mut self, hs: Box<Handshake>, offer: &Offer, chosen: Chosen, gateway: Option<Mac>) {
        match self.client_wants(&hs, offer, &chosen, gateway) {
            Ok(wants) => self.get(hs, Purpose::Confirm(chosen), wants),
            Err(end) => self.end(hs, end),
        }
    }

    fn client_wants(
        &self,
        hs: &Handshake,
        offer: &Offer,
        chosen: &Chosen,
        gateway: Option<Mac>,
    ) -> Result<Wants, End> {
        let (peer, over) = match chosen.means {
            Means::Smcd(ism, peer) => {
                let device = self.inventory.ism_device(ism.device).ok_or(Diagnosis::NOSMCDDEV)?;
                let emulated = ism.chid.is_emulated();
                let peer = SmcdPeer { device: ism.device, emulated, gid: peer.gid };
                (Peer::Smcd(peer), Over::Ism { device: ism.device, mapped: device.mapped })
            }
            Means::Smcr { port, peer, .. } => {
                let Smcr { peer: id, gid, mac, qpn, psn, mtu, .. } = peer;
                let terms = chosen.terms;
                let server = Some(PeerEnd { qpn, psn, gid, mac, mtu });
                let local = hs.route.local4().filter(|_| chosen.version == Version::V2);
                let link = LinkPeer { gid, mac, qpn };
                let peer = SmcrPeer { id, link, max_conns: terms.max_conns };
                (Peer::Smcr(peer), Over::Roce { port, local, gateway, terms, server })
            }
        };
        let (role, version, vlan) = (Role::Client, chosen.version, offer.vlan);
        Ok(Wants { ask: Ask { peer, role, version, vlan }, first: chosen.first, over })
    }

    /// Group and buffers are there: map the peer's DMB, or confirm.
    pub(super) fn ready_to_confirm(&mut self, hs: Box<Handshake>, chosen: Chosen, wants: Wants) {
        let (peer, over) = match (chosen.means, wants.over) {
            (Means::Smcd(_, peer), Over::Ism { device, mapped }) => (peer, (device, mapped)),
            (Means::Smcr { peer, .. }, _) => return self.confirm_rdma(hs, &chosen, &wants, &peer),
            _ => return self.end(hs, Diagnosis::INTERR.into()),
        };
        let Ok(element) = PeerElement::new(peer.token, peer.size, peer.dmbe_idx) else {
            return self.end(hs, Failure::Lie("Accept.dmbe_idx").into());
        };
        if let (device, true) = over {
            let (conn, token) = (hs.conn, element.token());
            self.wishes.push_back(Wish::Attach { conn, device, token });
            return self.park(hs, State::Mapping(chosen, wants, element), None);
        }
        self.confirm(hs, &chosen, &wants, element);
    }

    /// Sends the Confirm: the connection is established.
    pub(super) fn confirm(
        &mut self,
        hs: Box<Handshake>,
        chosen: &Chosen,
        wants: &Wants,
        peer: PeerElement,
    ) {
        let agreed = chosen.agreed();
        let common = self.ours(&hs, &agreed, wants);
        let (Some(common), Some(path)) = (common, hs.path(wants, peer)) else {
            return self.end_attached(hs, wants, peer, Failure::GroupGone);
        };
        let confirm = Confirm { common, gids: None };
        self.send(hs.conn, |bytes| confirm.emit(bytes));
        self.establish(hs, &agreed, path);
    }
}

impl Chosen {
    /// What both sides have agreed on.
    pub(super) fn agreed(&self) -> Agreed {
        Agreed { version: self.version, eid: self.eid, terms: self.terms }
    }
}
