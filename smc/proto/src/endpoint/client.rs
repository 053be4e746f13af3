// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A client's steps (`smc_connect`: `__smc_connect`, `smc_connect_ism`, `smc_connect_rdma`).
//!
//! Invariant: after the Confirm was sent the handshake is through; nothing that fails later falls
//! back.

use smc_wire::clc::{AcceptConfirm, Confirm, Contact, Diagnosis};

use super::state::{Handshake, Purpose, State, Wants};
use super::wish::Wish;
use super::{CLC_WAIT, Endpoint};
use crate::group::{Ask, Peer, Role, SmcdPeer, VlanState};
use crate::handshake::client::{Chosen, Means, look};
use crate::handshake::offer::Offer;
use crate::handshake::reason::{End, Failure, Reason};
use crate::handshake::route::Route;
use crate::id::ConnId;
use crate::smcd::dmb::PeerElement;

impl Endpoint {
    pub(super) fn begin_client(&mut self, conn: ConnId, route: &Route) {
        if !route.smc {
            let reason = Reason::from(Diagnosis::PEERNOSMC);
            return self.fall_back(conn, Role::Client, reason);
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

    fn propose(&mut self, hs: Box<Handshake>, offer: Box<Offer>) {
        let proposal = offer.proposal(&self.host());
        self.send(hs.conn, |bytes| proposal.emit(bytes));
        self.park(hs, State::Proposed(offer), Some(CLC_WAIT));
    }

    /// The Accept came.
    pub(super) fn accepted(
        &mut self,
        mut hs: Box<Handshake>,
        offer: &Offer,
        accept: &AcceptConfirm,
    ) {
        let chosen = look(&self.host(), offer, accept);
        hs.v2 = matches!(accept.contact, Contact::V2 { .. });
        let wants = chosen.and_then(|chosen| Ok((self.client_wants(offer, &chosen)?, chosen)));
        match wants {
            Ok((wants, chosen)) => self.get(hs, Purpose::Confirm(chosen), wants),
            Err(end) => self.end(hs, end),
        }
    }

    fn client_wants(&self, offer: &Offer, chosen: &Chosen) -> Result<Wants, End> {
        match chosen.means {
            Means::Smcd(ism, peer) => {
                let device = self.inventory.ism_device(ism.device).ok_or(Failure::GroupGone)?;
                let emulated = ism.chid.is_emulated();
                let peer = SmcdPeer { device: ism.device, emulated, gid: peer.gid };
                let (role, version, vlan) = (Role::Client, chosen.version, offer.vlan);
                let ask = Ask { peer: Peer::Smcd(peer), role, version, vlan };
                let (device, mapped) = (ism.device, device.mapped);
                Ok(Wants { ask, first: chosen.first, device, mapped })
            }
            Means::Smcr { .. } => Err(Diagnosis::MODEUNSUPP.into()),
        }
    }

    /// Group and buffers are there: map the peer's DMB, or confirm.
    pub(super) fn ready_to_confirm(&mut self, hs: Box<Handshake>, chosen: Chosen, wants: Wants) {
        let Means::Smcd(_, peer) = chosen.means else { return };
        let Ok(element) = PeerElement::new(peer.token, peer.size, peer.dmbe_idx) else {
            return self.end(hs, Failure::Lie("Accept.dmbe_idx").into());
        };
        if wants.mapped {
            let (conn, device, token) = (hs.conn, wants.device, element.token());
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
        let common = self.ours(&hs, chosen.version, chosen.eid, &chosen.terms, wants);
        let (Some(common), Some(path)) = (common, hs.path(wants, peer)) else {
            return self.end(hs, Failure::GroupGone.into());
        };
        let confirm = Confirm { common, gids: None };
        self.send(hs.conn, |bytes| confirm.emit(bytes));
        self.establish(hs, (chosen.version, chosen.eid, chosen.terms), path);
    }
}
