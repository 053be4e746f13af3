// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A server's steps (`smc_listen_work`).
//!
//! Invariant: the Accept is sent when everything behind it is there; what is found wrong in the
//! Confirm after that declines only while the client waits for it, and fails otherwise.

use smc_wire::clc::{Accept, Body, Confirm, Diagnosis, Proposal, Version as ClcVersion};

use super::late::Late;
use super::state::{Agreed, Handshake, Over, Purpose, State, Wants};
use super::wish::Wish;
use super::{CLC_WAIT, Endpoint};
use crate::Instant;
use crate::group::{Ask, LinkPeer, Peer, Role, SmcdPeer, SmcrPeer, Version};
use crate::handshake::confirm;
use crate::handshake::reason::{End, Failure, Reason};
use crate::handshake::release::Terms;
use crate::handshake::route::{NextHop, Route};
use crate::handshake::server::{Choice, Means, Step, Way};
use crate::id::ConnId;
use crate::smcd::dmb::PeerElement;

impl Endpoint {
    pub(super) fn begin_server(&mut self, conn: ConnId, route: &Route) {
        if !route.smc {
            let reason = Reason::from(Diagnosis::PEERNOSMC);
            return self.fall_back(conn, Role::Server, reason, Late::Nothing);
        }
        let hs = Box::new(Handshake::new(conn, Role::Server, route, State::TAKEN));
        self.park(hs, State::Listening, Some(CLC_WAIT));
    }

    /// [`Wish::QueryRemoteGid`] was carried out.
    pub fn handle_remote_gid(&mut self, now: Instant, conn: ConnId, reached: bool) {
        self.now = now;
        let Some(mut hs) = self.take_if(conn, State::is_asking) else { return };
        match std::mem::replace(&mut hs.state, State::TAKEN) {
            State::Choosing(mut choice) => {
                let step = choice.reached(&self.host(), reached);
                self.step(hs, choice, step);
            }
            state => self.park(hs, state, None),
        }
    }

    /// [`Wish::ResolveNextHop`] was carried out; `None` if there is no route.
    pub fn handle_next_hop(&mut self, now: Instant, conn: ConnId, hop: Option<NextHop>) {
        self.now = now;
        let Some(mut hs) = self.take_if(conn, State::is_asking) else { return };
        match std::mem::replace(&mut hs.state, State::TAKEN) {
            State::Choosing(mut choice) => {
                let step = choice.hop(&self.host(), hop);
                self.step(hs, choice, step);
            }
            State::Resolving(offer, chosen) => self.gateway_for_client(hs, &offer, chosen, hop),
            state => self.park(hs, state, None),
        }
    }

    /// The Proposal came.
    pub(super) fn proposed(&mut self, mut hs: Box<Handshake>, proposal: Proposal) {
        hs.v2 = proposal.version > ClcVersion::V1;
        if hs.route.ipsec {
            return self.end(hs, Diagnosis::IPSEC.into());
        }
        match Choice::new(&self.host(), &hs.route, proposal) {
            Ok(choice) => {
                let mut choice = Box::new(choice);
                let step = choice.step(&self.host());
                self.step(hs, choice, step);
            }
            Err(diagnosis) => self.end(hs, diagnosis.into()),
        }
    }

    /// A way could not be had: the next one.
    pub(super) fn try_next(&mut self, hs: Box<Handshake>, mut choice: Box<Choice>, why: Diagnosis) {
        let step = choice.failed(&self.host(), why);
        self.step(hs, choice, step);
    }

    fn step(&mut self, hs: Box<Handshake>, choice: Box<Choice>, step: Step) {
        let conn = hs.conn;
        match step {
            Step::Ask { device, gid, vlan } => {
                self.wishes.push_back(Wish::QueryRemoteGid { conn, device, gid, vlan });
                self.park(hs, State::Choosing(choice), None);
            }
            Step::Resolve { from, to } => {
                self.wishes.push_back(Wish::ResolveNextHop { conn, from, to });
                self.park(hs, State::Choosing(choice), None);
            }
            Step::Try(way) => match self.server_wants(&hs, &choice, &way) {
                Some(wants) => self.get(hs, Purpose::Accept(choice, way), wants),
                None => self.try_next(hs, choice, Diagnosis::NOSMCDDEV),
            },
            Step::Decline(diagnosis) => self.end(hs, diagnosis.into()),
        }
    }

    fn server_wants(&self, hs: &Handshake, choice: &Choice, way: &Way) -> Option<Wants> {
        let (peer, over) = match way.means {
            Means::Smcd(ism, gid) => {
                let (device, emulated) = (ism.device, ism.chid.is_emulated());
                let mapped = self.inventory.ism_device(device)?.mapped;
                (Peer::Smcd(SmcdPeer { device, emulated, gid }), Over::Ism { device, mapped })
            }
            Means::Smcr { port, peer: id, gid, mac, hop } => {
                let terms = choice.terms();
                let local = hs.route.local4().filter(|_| way.version == Version::V2);
                let gateway = hop.filter(|hop| hop.gateway).map(|hop| hop.mac);
                let link = LinkPeer { gid, mac, ..LinkPeer::default() };
                let peer = SmcrPeer { id, link, max_conns: terms.max_conns };
                (Peer::Smcr(peer), Over::Roce { port, local, gateway, terms, server: None })
            }
        };
        let (role, version, vlan) = (Role::Server, way.version, way.vlan);
        Some(Wants { ask: Ask { peer, role, version, vlan }, first: false, over })
    }

    /// Group and buffers are there: sends the Accept.
    pub(super) fn answer(&mut self, hs: Box<Handshake>, choice: &Choice, way: Way, wants: Wants) {
        let terms = choice.terms();
        let agreed = Agreed { version: way.version, eid: way.eid, terms };
        let Some(ours) = self.ours(&hs, &agreed, &wants) else {
            return self.end(hs, Failure::GroupGone.into());
        };
        self.send(hs.conn, |bytes| Accept(ours).emit(bytes));
        self.park(hs, State::Answered(way, wants, terms), Some(CLC_WAIT));
    }

    /// The Confirm came.
    pub(super) fn confirmed(
        &mut self,
        hs: Box<Handshake>,
        way: &Way,
        wants: Wants,
        terms: &Terms,
        confirm: &Confirm,
    ) {
        let first = hs.held.is_some_and(|held| held.first);
        let agreed = match confirm::look(way, first, terms, &confirm.common) {
            Ok(terms) => Agreed { version: way.version, eid: way.eid, terms },
            Err(end) => return self.refuse_confirm(hs, end),
        };
        match (confirm.common.body, wants.over) {
            (Body::Smcd(peer), Over::Ism { device, mapped }) => {
                let Ok(element) = PeerElement::new(peer.token, peer.size, peer.dmbe_idx) else {
                    return self.end(hs, Failure::Lie("Confirm.dmbe_idx").into());
                };
                if !mapped {
                    return self.complete(hs, &agreed, &wants, element);
                }
                let (conn, token) = (hs.conn, element.token());
                self.wishes.push_back(Wish::Attach { conn, device, token });
                self.park(hs, State::Attaching(agreed, wants, element), None);
            }
            (Body::Smcr(peer), _) => self.complete_rdma(hs, &agreed, &peer),
            _ => self.end(hs, Failure::Lie("Confirm.type").into()),
        }
    }

    /// A Confirm is no good. Only a first contact over SMC-R can still be declined: every other
    /// client is established since it sent the Confirm, and does not read TCP any more.
    pub(super) fn refuse_confirm(&mut self, hs: Box<Handshake>, end: End) {
        let first = hs.held.is_some_and(|held| held.first && held.link.is_some());
        let end = match end {
            End::Decline(diagnosis) if !first => Failure::Late(diagnosis).into(),
            end => end,
        };
        self.end(hs, end);
    }

    /// The peer's DMB can be written: the connection is established.
    pub(super) fn complete(
        &mut self,
        hs: Box<Handshake>,
        agreed: &Agreed,
        wants: &Wants,
        peer: PeerElement,
    ) {
        match hs.path(wants, peer) {
            Some(path) => self.establish(hs, agreed, path),
            None => self.end_attached(hs, wants, peer, Failure::GroupGone),
        }
    }
}
