// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A server's steps (`smc_listen_work`).
//!
//! Invariant: the Accept is sent when everything behind it is there; what is found wrong in the
//! Confirm after that declines only where Linux does, and fails otherwise.

use smc_wire::clc::{Accept, Body, Confirm, Diagnosis, Proposal, Version as ClcVersion};
use smc_wire::id::IsmGid;

use super::state::{Handshake, Purpose, State, Wants};
use super::wish::Wish;
use super::{CLC_WAIT, Endpoint};
use crate::Instant;
use crate::group::{Ask, Peer, Role, SmcdPeer};
use crate::handshake::confirm;
use crate::handshake::offer::ChosenIsm;
use crate::handshake::reason::{Failure, Reason};
use crate::handshake::release::Terms;
use crate::handshake::route::{NextHop, Route};
use crate::handshake::server::{Choice, Means, Step, Way};
use crate::id::ConnId;
use crate::smcd::dmb::PeerElement;

impl Endpoint {
    pub(super) fn begin_server(&mut self, conn: ConnId, route: &Route) {
        if !route.smc {
            let reason = Reason::from(Diagnosis::PEERNOSMC);
            return self.fall_back(conn, Role::Server, reason);
        }
        let hs = Box::new(Handshake::new(conn, Role::Server, route, State::TAKEN));
        self.park(hs, State::Listening, Some(CLC_WAIT));
    }

    /// [`Wish::QueryRemoteGid`] was carried out.
    pub fn handle_remote_gid(&mut self, now: Instant, conn: ConnId, reached: bool) {
        self.now = now;
        let Some(mut hs) = self.take(conn) else { return };
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
        let Some(mut hs) = self.take(conn) else { return };
        match std::mem::replace(&mut hs.state, State::TAKEN) {
            State::Choosing(mut choice) => {
                let step = choice.hop(&self.host(), hop);
                self.step(hs, choice, step);
            }
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
            Step::Try(way) => match way.means {
                Means::Smcd(ism, gid) => match self.server_wants(&way, &ism, gid) {
                    Some(wants) => self.get(hs, Purpose::Accept(choice, way), wants),
                    None => self.try_next(hs, choice, Diagnosis::NOSMCDDEV),
                },
                Means::Smcr { .. } => self.try_next(hs, choice, Diagnosis::NOSMCRDEV),
            },
            Step::Decline(diagnosis) => self.end(hs, diagnosis.into()),
        }
    }

    fn server_wants(&self, way: &Way, ism: &ChosenIsm, gid: IsmGid) -> Option<Wants> {
        let mapped = self.inventory.ism_device(ism.device)?.mapped;
        let peer = SmcdPeer { device: ism.device, emulated: ism.chid.is_emulated(), gid };
        let (role, version, vlan) = (Role::Server, way.version, way.vlan);
        let ask = Ask { peer: Peer::Smcd(peer), role, version, vlan };
        Some(Wants { ask, first: false, device: ism.device, mapped })
    }

    /// Group and buffers are there: sends the Accept.
    pub(super) fn answer(&mut self, hs: Box<Handshake>, choice: &Choice, way: Way, wants: Wants) {
        let terms = choice.terms();
        let Some(ours) = self.ours(&hs, way.version, way.eid, &terms, &wants) else {
            return self.end(hs, Failure::GroupGone.into());
        };
        self.send(hs.conn, |bytes| Accept(ours).emit(bytes));
        self.park(hs, State::Answered(way, wants, terms), Some(CLC_WAIT));
    }

    /// The Confirm came.
    pub(super) fn confirmed(
        &mut self,
        hs: Box<Handshake>,
        way: Way,
        wants: &Wants,
        terms: &Terms,
        confirm: &Confirm,
    ) {
        let first = hs.held.is_some_and(|held| held.first);
        let terms = match confirm::look(&way, first, terms, &confirm.common) {
            Ok(terms) => terms,
            Err(end) => return self.end(hs, end),
        };
        let Body::Smcd(peer) = confirm.common.body else { return };
        let Ok(element) = PeerElement::new(peer.token, peer.size, peer.dmbe_idx) else {
            return self.end(hs, Failure::Lie("Confirm.dmbe_idx").into());
        };
        if wants.mapped {
            let (conn, device, token) = (hs.conn, wants.device, element.token());
            self.wishes.push_back(Wish::Attach { conn, device, token });
            return self.park(hs, State::Attaching(way, *wants, terms, element), None);
        }
        self.complete(hs, &way, wants, &terms, element);
    }

    /// The peer's DMB can be written: the connection is established.
    pub(super) fn complete(
        &mut self,
        hs: Box<Handshake>,
        way: &Way,
        wants: &Wants,
        terms: &Terms,
        peer: PeerElement,
    ) {
        match hs.path(wants, peer) {
            Some(path) => self.establish(hs, (way.version, way.eid, *terms), path),
            None => self.end(hs, Failure::GroupGone.into()),
        }
    }
}
