// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a way needs before its Accept or Confirm: a link group, the device's VLAN, buffers, and for
//! a mapped sender the peer's DMB (`smc_conn_create`, `smc_buf_create`, `smcd_buf_attach`).
//!
//! Invariant: what could not be had is given back at once; a client then declines, a server tries
//! its next way.

use std::time::Duration;

use smc_wire::clc::{AcceptConfirm, Body, Contact, Diagnosis, Smcd};
use smc_wire::id::{Chid, DmbToken, Eid, IsmGid, LinkGroupId};

use super::Endpoint;
use super::state::{Agreed, Handshake, Held, Over, Phase, Purpose, State, Wants};
use super::wish::{Path, Wish};
use crate::Instant;
use crate::group::{
    Acquired, BufferKind, JoinError, RegisterError, Registered, Role, Shortage, Version, VlanState,
};
use crate::handshake::first_contact;
use crate::handshake::reason::Failure;
use crate::id::{BufferId, ConnId, DeviceId};
use crate::smcd::dmb::{Dmb, PeerElement};

/// How long a handshake waits for another one's first contact with the same peer, before it goes on
/// as Linux does: without waiting.
const FIRST_CONTACT_WAIT: Duration = Duration::from_secs(1);
/// The same for SMC-R, where a first contact takes longer and Linux waits too
/// (`smc_server_lgr_pending`); shorter than [`super::CLC_WAIT`], after which the client gives up.
const FIRST_CONTACT_WAIT_SMCR: Duration = Duration::from_secs(4);

impl Endpoint {
    /// [`crate::group::Wish::Register`] was carried out: a DMB has a token and an index, other
    /// buffers have zeros there.
    pub fn handle_registered(
        &mut self,
        now: Instant,
        buffer: BufferId,
        outcome: Result<Dmb, RegisterError>,
    ) {
        self.now = now;
        let registered = self.groups.handle_registered(buffer, outcome, &mut self.stats);
        let Some(Registered { conn, kind, acquired, .. }) = registered else { return };
        let Some(mut hs) = self.take_if(conn, State::is_buffering) else { return };
        match std::mem::replace(&mut hs.state, State::TAKEN) {
            State::Getting(purpose, wants, Phase::Buffers) => {
                self.acquired(hs, purpose, wants, kind, acquired);
            }
            state => self.park(hs, state, None),
        }
    }

    /// [`crate::group::Wish::AddVlan`] was carried out, or with `false` refused.
    pub fn handle_vlan(&mut self, now: Instant, device: DeviceId, vlan: u16, added: bool) {
        self.now = now;
        self.groups.handle_vlan(device, vlan, added);
        let waits = |hs: &Handshake| {
            let at = matches!(hs.state, State::Proposing(_) | State::Getting(_, _, Phase::Vlan));
            at && hs.vlans.last() == Some(&(device, vlan))
        };
        let all = self.handshakes.values();
        let waiting: Vec<ConnId> = all.filter(|hs| waits(hs)).map(|hs| hs.conn).collect();
        for conn in waiting {
            let Some(mut hs) = self.take(conn) else { continue };
            if !added {
                hs.vlans.pop();
            }
            match (std::mem::replace(&mut hs.state, State::TAKEN), added) {
                (State::Proposing(offer), added) => self.vlan_for_proposal(hs, offer, added),
                (State::Getting(purpose, wants, _), true) => self.join(hs, purpose, wants),
                (State::Getting(purpose, ..), false) => {
                    self.not_had(hs, purpose, Diagnosis::ISMVLANERR);
                }
                (state, _) => self.park(hs, state, None),
            }
        }
    }

    /// [`Wish::Attach`] was carried out: the DMB has `len` bytes; or could not be.
    pub fn handle_attached(
        &mut self,
        now: Instant,
        conn: ConnId,
        device: DeviceId,
        token: DmbToken,
        len: Option<u64>,
    ) {
        self.now = now;
        let Some(mut hs) = self.take_if(conn, State::is_attaching) else {
            if len.is_some() {
                self.wishes.push_back(Wish::Detach { device, token });
            }
            return;
        };
        match std::mem::replace(&mut hs.state, State::TAKEN) {
            State::Mapping(chosen, wants, element) => match fitting(element, len) {
                Ok(element) => self.confirm(hs, &chosen, &wants, element),
                Err(Failure::Attach) => self.end(hs, Diagnosis::MEM.into()),
                Err(failure) => self.end_attached(hs, &wants, element, failure),
            },
            State::Attaching(agreed, wants, element) => match fitting(element, len) {
                Ok(element) => self.complete(hs, &agreed, &wants, element),
                Err(Failure::Attach) => self.end(hs, Failure::Attach.into()),
                Err(failure) => self.end_attached(hs, &wants, element, failure),
            },
            state => self.park(hs, state, None),
        }
    }

    /// A handshake fails that has the peer's DMB; a copied sender has none.
    pub(super) fn end_attached(
        &mut self,
        hs: Box<Handshake>,
        wants: &Wants,
        element: PeerElement,
        failure: Failure,
    ) {
        if let Over::Ism { device, mapped: true } = wants.over {
            self.wishes.push_back(Wish::Detach { device, token: element.token() });
        }
        self.end(hs, failure.into());
    }

    /// Begins to get what a way needs.
    pub(super) fn get(&mut self, hs: Box<Handshake>, purpose: Purpose, wants: Wants) {
        let under_way = match wants.ask.role {
            Role::Server => self.groups.first_contact_under_way(&wants.ask),
            Role::Client => None,
        };
        match under_way {
            Some(group) => {
                let time = match wants.over {
                    Over::Ism { .. } => FIRST_CONTACT_WAIT,
                    Over::Roce { .. } => FIRST_CONTACT_WAIT_SMCR,
                };
                let state = State::Getting(purpose, wants, Phase::FirstContact(group));
                self.park(hs, state, Some(time));
            }
            None => self.hold_vlan(hs, purpose, wants),
        }
    }

    /// The first contact that was waited for is over.
    pub(super) fn resume(&mut self, mut hs: Box<Handshake>) {
        match std::mem::replace(&mut hs.state, State::TAKEN) {
            State::Getting(purpose, wants, _) => self.get(hs, purpose, wants),
            state => self.park(hs, state, None),
        }
    }

    /// The first contact that was waited for takes too long.
    pub(super) fn resume_anyway(&mut self, mut hs: Box<Handshake>) {
        match std::mem::replace(&mut hs.state, State::TAKEN) {
            State::Getting(purpose, wants, _) => self.hold_vlan(hs, purpose, wants),
            state => self.park(hs, state, None),
        }
    }

    /// The device must be in the VLAN that the group will have.
    fn hold_vlan(&mut self, mut hs: Box<Handshake>, purpose: Purpose, wants: Wants) {
        let ask = &wants.ask;
        if let Over::Ism { device, .. } = wants.over
            && ask.vlan != 0
            && !hs.vlans.contains(&(device, ask.vlan))
        {
            let held = self.groups.hold_vlan(device, ask.vlan);
            hs.vlans.push((device, ask.vlan));
            if held == VlanState::Pending {
                return self.park(hs, State::Getting(purpose, wants, Phase::Vlan), None);
            }
        }
        self.join(hs, purpose, wants);
    }

    fn join(&mut self, mut hs: Box<Handshake>, purpose: Purpose, wants: Wants) {
        let joined = match wants.ask.role {
            Role::Client => self.groups.join_client(hs.conn, &wants.ask, wants.first),
            Role::Server => self.groups.join_server(hs.conn, &wants.ask),
        };
        let (group, first) = match joined {
            Ok(joined) => (joined.group, joined.first_contact),
            Err(JoinError::OutOfSync) => return self.end(hs, Diagnosis::SYNCERR.into()),
            Err(JoinError::Member(..)) => return self.end(hs, Diagnosis::INTERR.into()),
        };
        if first {
            self.peers.insert(group, hs.route.peer);
        }
        let held = Held { group, first, send: None, receive: None, link: None };
        hs.held = Some(held);
        if let Over::Roce { .. } = wants.over {
            match self.join_links(&hs, &wants) {
                Ok(link) => hs.held = Some(Held { link: Some(link), ..held }),
                Err(diagnosis) => return self.not_had(hs, purpose, diagnosis),
            }
        }
        self.acquire(hs, purpose, wants);
    }

    /// Gets the next buffer that is missing, in Linux's order: send, then receive.
    fn acquire(&mut self, hs: Box<Handshake>, purpose: Purpose, wants: Wants) {
        let Some(held) = &hs.held else { return };
        let (kind, bytes) = match (held.send, held.receive) {
            (None, _) if wants.over.copies() => {
                (BufferKind::Send, hs.route.sndbuf.unwrap_or(self.config.wmem))
            }
            (_, None) => {
                let bytes = hs.route.rcvbuf.unwrap_or(self.config.rmem);
                (BufferKind::Receive, bytes.min(self.largest(&wants)))
            }
            _ => return self.had(hs, purpose, wants),
        };
        match self.groups.acquire(held.group, hs.conn, kind, bytes, &mut self.stats) {
            Ok(acquired) => self.acquired(hs, purpose, wants, kind, acquired),
            Err(_) => self.end(hs, Failure::GroupGone.into()),
        }
    }

    /// Bytes of the largest receive buffer that can be had.
    fn largest(&self, wants: &Wants) -> u32 {
        let device = match wants.over {
            Over::Ism { device, .. } => self.inventory.ism_device(device),
            Over::Roce { .. } => None,
        };
        device.map_or(u32::MAX, |device| device.max_dmb)
    }

    fn acquired(
        &mut self,
        mut hs: Box<Handshake>,
        purpose: Purpose,
        wants: Wants,
        kind: BufferKind,
        acquired: Acquired,
    ) {
        match (acquired, &mut hs.held) {
            (Acquired::Ready(buffer), Some(held)) => {
                match kind {
                    BufferKind::Send => held.send = Some(buffer),
                    BufferKind::Receive => held.receive = Some(buffer),
                }
                self.acquire(hs, purpose, wants);
            }
            (Acquired::Failed(shortage), _) => {
                let diagnosis = match shortage {
                    Shortage::MaxDmb => Diagnosis::MAX_DMB,
                    Shortage::Memory => Diagnosis::MEM,
                };
                self.not_had(hs, purpose, diagnosis);
            }
            _ => self.park(hs, State::Getting(purpose, wants, Phase::Buffers), None),
        }
    }

    /// The buffers are there.
    fn had(&mut self, hs: Box<Handshake>, purpose: Purpose, wants: Wants) {
        match wants.over {
            Over::Ism { .. } => self.ready(hs, purpose, wants),
            Over::Roce { .. } => self.share_buffers(hs, purpose, wants),
        }
    }

    /// Everything is there.
    pub(super) fn ready(&mut self, hs: Box<Handshake>, purpose: Purpose, wants: Wants) {
        match purpose {
            Purpose::Confirm(chosen) => self.ready_to_confirm(hs, chosen, wants),
            Purpose::Accept(choice, way) => self.answer(hs, &choice, way, wants),
        }
    }

    /// Something is not to be had.
    pub(super) fn not_had(&mut self, mut hs: Box<Handshake>, purpose: Purpose, why: Diagnosis) {
        match purpose {
            Purpose::Confirm(_) => self.end(hs, why.into()),
            Purpose::Accept(choice, _) => {
                self.give_back(&mut hs);
                self.try_next(hs, choice, why);
            }
        }
    }

    /// This side's part of an Accept or Confirm; `None` if the device or the group has gone.
    pub(super) fn ours(
        &self,
        hs: &Handshake,
        agreed: &Agreed,
        wants: &Wants,
    ) -> Option<AcceptConfirm> {
        let held = hs.held.as_ref()?;
        let (body, direct) = match wants.over {
            Over::Ism { device, .. } => (Body::Smcd(self.smcd(held, agreed, device)?), None),
            Over::Roce { gateway, .. } => {
                (Body::Smcr(self.smcr(hs.conn, held)?), Some(gateway.is_none()))
            }
        };
        let contact = match agreed.version {
            Version::V1 => Contact::V1 { first: held.first },
            Version::V2 => {
                let first = || first_contact::ours(&self.config, &agreed.terms, direct);
                let eid = agreed.eid.unwrap_or(Eid([0; 32]));
                Contact::V2 { eid, first: held.first.then(first) }
            }
        };
        Some(AcceptConfirm { contact, body })
    }

    fn smcd(&self, held: &Held, agreed: &Agreed, device: DeviceId) -> Option<Smcd> {
        let device = self.inventory.ism_device(device)?;
        let receive = held.receive?;
        let v1 = agreed.version == Version::V1;
        let ext = if v1 || !device.chid.is_emulated() { 0 } else { device.gid.ext };
        Some(Smcd {
            gid: IsmGid { ext, ..device.gid },
            chid: if v1 { Chid::default() } else { device.chid },
            token: receive.dmb.token,
            dmbe_idx: 0,
            size: receive.size,
            link_id: LinkGroupId(held.group.0.to_ne_bytes()),
        })
    }
}

impl Handshake {
    /// How bytes reach the peer's element of a DMB.
    pub(super) fn path(&self, wants: &Wants, peer: PeerElement) -> Option<Path> {
        match wants.over {
            Over::Ism { device, mapped: true } => Some(Path::Mapped { device, peer }),
            Over::Ism { device, .. } => Some(Path::Copied { device, send: self.held?.send?, peer }),
            Over::Roce { .. } => None,
        }
    }
}

/// The element, if the DMB was attached and holds it.
fn fitting(element: PeerElement, len: Option<u64>) -> Result<PeerElement, Failure> {
    let len = len.ok_or(Failure::Attach)?;
    element.within(len).map_err(|_| Failure::Lie("DMB element"))
}
