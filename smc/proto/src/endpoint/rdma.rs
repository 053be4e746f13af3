// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a handshake over SMC-R does more: a link, memory regions, and at a first contact LLC.
//!
//! Invariant: an Accept or Confirm names a queue pair and a key that exist; a first contact ends the
//! handshake only after the link was confirmed (`smc_connect_rdma`, `smc_listen_rdma_finish`).

use smc_wire::clc::{Confirm, Diagnosis, Smcr};
use smc_wire::id::AlertToken;

use super::state::{Agreed, Handshake, Held, Over, Phase, Purpose, Remote, State, Wants};
use super::wish::Path;
use super::{CLC_WAIT, CLC_WAIT_SHORT, Endpoint};
use crate::Instant;
use crate::group::{Role, Version};
use crate::handshake::client::Chosen;
use crate::handshake::offer::Place;
use crate::handshake::reason::Failure;
use crate::id::{BufferId, ConnId, GroupId};
use crate::smcr::qp::PeerEnd;
use crate::smcr::{JoinError, LinkId, Rtoken, WAIT};

impl Endpoint {
    /// Puts the connection on a link of the group that it has joined; a new group's first.
    pub(super) fn join_links(
        &mut self,
        hs: &Handshake,
        wants: &Wants,
    ) -> Result<LinkId, Diagnosis> {
        let (Some(held), Over::Roce { port, local, gateway, terms, server }) =
            (hs.held, wants.over)
        else {
            return Err(Diagnosis::INTERR);
        };
        if held.first {
            let place = Place { vlan: wants.ask.vlan, local };
            let side = (wants.ask.role, wants.ask.version);
            self.begin_links(held.group, side, place, port, (terms, gateway));
        }
        let joined = self.with_links(held.group, |links, _| match server.filter(|_| !held.first) {
            Some(end) => links.join_on(hs.conn, end.qpn, end.gid, end.mac),
            None => links.join(hs.conn),
        });
        match joined {
            Some(Ok(link)) => Ok(link),
            Some(Err(JoinError::NoServerLink)) => Err(Diagnosis::NOSRVLINK),
            _ => Err(Diagnosis::NOACTLINK),
        }
    }

    /// Makes the buffers reachable for both sides.
    pub(super) fn share_buffers(&mut self, hs: Box<Handshake>, purpose: Purpose, wants: Wants) {
        let Some(Held {
            group, send: Some(send), receive: Some(receive), link: Some(link), ..
        }) = hs.held
        else {
            return self.end(hs, Diagnosis::INTERR.into());
        };
        match self.share(group, link, send.id, receive.id) {
            Ok(()) if self.reachable(&hs) => self.ready(hs, purpose, wants),
            Ok(()) => {
                // After that the peer has given up too.
                self.park(hs, State::Getting(purpose, wants, Phase::Links), Some(CLC_WAIT));
            }
            Err(diagnosis) => self.not_had(hs, purpose, diagnosis),
        }
    }

    /// Whether the link has its queue pair, and the buffers their memory regions, told to the peer
    /// where that is needed.
    fn reachable(&self, hs: &Handshake) -> bool {
        let Some(held) = &hs.held else { return false };
        let buffers = [held.send, held.receive];
        let shared = buffers.iter().flatten().all(|it| !self.sharing.contains(&it.id));
        shared && self.smcr(hs.conn, held).is_some()
    }

    /// A queue pair or a memory region is there: whoever waited for it goes on.
    pub(super) fn links_progressed(&mut self, group: GroupId) {
        self.links_progressed_for(group, None);
    }

    /// The same; `failed` is a buffer that cannot be made reachable.
    pub(super) fn links_progressed_for(&mut self, group: GroupId, failed: Option<BufferId>) {
        let mut last = None;
        while let Some(conn) = self.next_waiting(group, last) {
            last = Some(conn);
            let Some(hs) = self.handshakes.get(&conn) else { continue };
            if !matches!(hs.state, State::Getting(_, _, Phase::Links)) {
                continue;
            }
            let has = |held: &Held| {
                let mut buffers = [held.send, held.receive].into_iter().flatten();
                buffers.any(|it| Some(it.id) == failed)
            };
            let failed = hs.held.as_ref().is_some_and(has);
            if !failed && !self.reachable(hs) {
                continue;
            }
            let Some(mut hs) = self.take(conn) else { continue };
            match std::mem::replace(&mut hs.state, State::TAKEN) {
                State::Getting(purpose, _, _) if failed => {
                    self.not_had(hs, purpose, Diagnosis::ERR_REGBUF);
                }
                State::Getting(purpose, wants, _) => self.ready(hs, purpose, wants),
                state => self.park(hs, state, None),
            }
        }
    }

    /// What Accept and Confirm say of our end; `None` while something of it is missing.
    pub(super) fn smcr(&self, conn: ConnId, held: &Held) -> Option<Smcr> {
        let links = &self.links.get(&held.group)?.machine;
        let (link, receive) = (links.link(held.link?)?, held.receive?);
        let (qp, rtoken) = (link.qp?, links.local_rtoken(receive.id, link.id)?);
        Some(Smcr {
            peer: self.peer_id(),
            gid: link.port.gid,
            mac: link.port.mac,
            qpn: qp.qpn,
            rkey: rtoken.rkey,
            rmbe_idx: 1,
            alert_token: AlertToken(conn.0),
            size: receive.size,
            mtu: link.path_mtu(),
            rmb_addr: rtoken.vaddr,
            psn: qp.psn,
        })
    }

    /// Stores the peer's RMB, and at a first contact connects the link.
    fn connect_link(&mut self, hs: &Handshake, peer: &Smcr) -> Result<Remote, Diagnosis> {
        let Some(Held { group, first, link: Some(link), .. }) = hs.held else {
            return Err(Diagnosis::INTERR);
        };
        let rtoken = Rtoken { rkey: peer.rkey, vaddr: peer.rmb_addr };
        let Smcr { gid, mac, qpn, psn, mtu, .. } = *peer;
        let end = PeerEnd { qpn, psn, gid, mac, mtu };
        let connected = self.with_links(group, |links, now| {
            // The key is for the link that the message names; ours may have moved meanwhile.
            let named = if first { Some(link) } else { links.find_link(gid, mac, Some(qpn)) };
            let index = named.and_then(|named| links.add_rtoken(named, rtoken));
            let index = index.ok_or(Diagnosis::ERR_RTOK)?;
            if first {
                links.start(now, end).map_err(|_| Diagnosis::ERR_RDYLNK)?;
            }
            Ok(index)
        });
        let index = connected.unwrap_or(Err(Diagnosis::NOACTLINK))?;
        let (offset, size, token) = (peer.offset(), peer.size, peer.alert_token);
        Ok(Remote { index, offset, size, token })
    }

    /// Client: connects the link and sends the Confirm.
    pub(super) fn confirm_rdma(
        &mut self,
        hs: Box<Handshake>,
        chosen: &Chosen,
        wants: &Wants,
        peer: &Smcr,
    ) {
        let agreed = chosen.agreed();
        let remote = match self.connect_link(&hs, peer) {
            Ok(remote) => remote,
            Err(diagnosis) => return self.end(hs, diagnosis.into()),
        };
        let Some(common) = self.ours(&hs, &agreed, wants) else {
            return self.end(hs, Failure::GroupGone.into());
        };
        let first = hs.held.is_some_and(|held| held.first);
        let confirm = Confirm { common, gids: self.gids(&agreed, wants).filter(|_| first) };
        self.send(hs.conn, |bytes| confirm.emit(bytes));
        self.link_or_establish(hs, &agreed, remote);
    }

    /// The ports that a Confirm of version 2 lists (`smc_fill_gid_list`).
    fn gids(&self, agreed: &Agreed, wants: &Wants) -> Option<GidList> {
        let Over::Roce { port, local, .. } = wants.over else { return None };
        let place = Place { vlan: wants.ask.vlan, local };
        let host = self.host();
        let other = place.others(&host, port.device).next();
        let gids = [Some(port), other].into_iter().flatten().map(|port| port.gid);
        (agreed.version == Version::V2).then(|| gids.collect())
    }

    /// Server: the Confirm came.
    pub(super) fn complete_rdma(&mut self, hs: Box<Handshake>, agreed: &Agreed, peer: &Smcr) {
        match self.connect_link(&hs, peer) {
            Ok(remote) => self.link_or_establish(hs, agreed, remote),
            Err(diagnosis) => self.refuse_confirm(hs, diagnosis.into()),
        }
    }

    fn link_or_establish(&mut self, hs: Box<Handshake>, agreed: &Agreed, remote: Remote) {
        match hs.held.is_some_and(|held| held.first) {
            true => self.park(hs, State::Linking(*agreed, remote, None), None),
            false => self.establish_rdma(hs, agreed, remote),
        }
    }

    pub(super) fn establish_rdma(
        &mut self,
        mut hs: Box<Handshake>,
        agreed: &Agreed,
        remote: Remote,
    ) {
        let Remote { index, offset, size, token } = remote;
        let route = hs.held.and_then(|held| {
            let links = &self.links.get(&held.group)?.machine;
            Some((held.send?, links.route(hs.conn, index)?))
        });
        let Some((send, route)) = route else {
            return self.end(hs, Failure::GroupGone.into());
        };
        let early = std::mem::take(&mut hs.early);
        let path = Path::Rdma { send, route, index, offset, size, token, early };
        self.establish(hs, agreed, path);
    }

    /// The first link is confirmed.
    pub(super) fn link_confirmed(&mut self, group: GroupId) {
        let now = self.now;
        let mut last = None;
        while let Some(conn) = self.next_waiting(group, last) {
            last = Some(conn);
            let state = self.handshakes.get_mut(&conn).map(|hs| &mut hs.state);
            if let Some(State::Linking(_, _, since)) = state {
                since.get_or_insert(now);
            }
        }
    }

    /// The first contact over the fabric has come to its end.
    pub(super) fn first_contact_ended(&mut self, group: GroupId, result: Result<(), Diagnosis>) {
        let mut last = None;
        while let Some(conn) = self.next_waiting(group, last) {
            last = Some(conn);
            let Some(mut hs) = self.take_if(conn, |state| !state.is_first_contact()) else {
                continue;
            };
            match (std::mem::replace(&mut hs.state, State::TAKEN), result) {
                (State::Linking(agreed, remote, since), Ok(())) => {
                    self.linked(hs, &agreed, remote, since);
                }
                (State::Linking(..), Err(diagnosis)) => self.not_linked(hs, diagnosis),
                (State::Getting(purpose, ..), Err(diagnosis)) => {
                    self.not_had(hs, purpose, diagnosis);
                }
                (state, _) => self.park(hs, state, None),
            }
        }
    }

    /// A client whose server offered no second link in time may yet be told that the first one has
    /// failed (`smcr_clnt_conf_first_link`). It waits longer than the server does for a Decline of
    /// the client.
    fn linked(
        &mut self,
        hs: Box<Handshake>,
        agreed: &Agreed,
        remote: Remote,
        since: Option<Instant>,
    ) {
        let late = since.is_some_and(|since| self.now.since(since) >= WAIT);
        if hs.role == Role::Client && late {
            return self.park(hs, State::Linked(*agreed, remote), Some(2 * CLC_WAIT_SHORT));
        }
        self.establish_rdma(hs, agreed, remote);
    }

    /// A link that was not confirmed in time may have been declined: that is waited for a little
    /// while (`smcr_clnt_conf_first_link`, `smcr_serv_conf_first_link`).
    fn not_linked(&mut self, hs: Box<Handshake>, diagnosis: Diagnosis) {
        if diagnosis != Diagnosis::TIMEOUT_CL {
            return self.end(hs, diagnosis.into());
        }
        self.last_word(hs, diagnosis);
    }

    /// Waits for the peer's Decline before sending one; a client longer, so that the two do not
    /// cross.
    pub(super) fn last_word(&mut self, mut hs: Box<Handshake>, diagnosis: Diagnosis) {
        let time = match hs.role {
            Role::Client => 2 * CLC_WAIT_SHORT,
            Role::Server => CLC_WAIT_SHORT,
        };
        self.give_back(&mut hs);
        self.park(hs, State::LastWord(diagnosis), Some(time));
    }
}

/// A Confirm's list of ports.
type GidList = arrayvec::ArrayVec<smc_wire::id::RoceGid, { smc_wire::clc::MAX_GIDS }>;
