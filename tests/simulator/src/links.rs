// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Carries out what SMC-R link groups wish, and brings them what RoCE brings.
//!
//! Invariant: what was posted on one queue pair leaves, and completes, in its order.

use std::time::Duration;

use smc_proto::conn::{Gone, Receipt, Write};
use smc_proto::id::{DeviceId, GroupId};
use smc_proto::smcr::{LinkId, Received, Wish};
use smc_wire::cdc::Smcr;
use smc_wire::llc;

use crate::coverage::Kind;
use crate::roce::{Place, Qp, RETRIES, SLOTS, Work};
use crate::socket::{Phase, Socket};
use crate::world::{Event, World};

/// How long a queue pair waits before it repeats a packet.
const REPEAT: Duration = Duration::from_millis(5);

impl World {
    /// Carries out a wish of the links of a group.
    pub(crate) fn carry_out_links(&mut self, host: usize, group: GroupId, wish: Wish) {
        let now = self.now();
        let place = |link: LinkId| (host, group, link);
        match wish {
            Wish::CreateQp { link, port } => {
                let qp = self.roce.create(place(link), port.device);
                let endpoint = &mut self.hosts[host].endpoint;
                endpoint.handle_qp_created(now, group, link, Some(qp));
            }
            Wish::ModifyRtr { link, attributes } => {
                if let Some(qp) = self.roce.qp(place(link)) {
                    qp.rtr = Some(attributes);
                }
            }
            Wish::ModifyRts { link, attributes } => {
                if let Some(qp) = self.roce.qp(place(link)) {
                    qp.rts = Some(attributes);
                }
            }
            Wish::RegisterMr { link, buffer } => {
                let failed = self.hosts[host].fails();
                let rtoken = (!failed).then(|| self.roce.register(place(link), buffer));
                let endpoint = &mut self.hosts[host].endpoint;
                endpoint.handle_mr_registered(now, group, link, buffer, rtoken);
            }
            Wish::DeregisterMr { link, buffer } => self.roce.deregister(place(link), buffer),
            Wish::PostSend { link, work, message } => {
                self.saw_llc(&message);
                self.post(place(link), Work::Llc { work, bytes: message });
            }
            Wish::Drain { link } => {
                if let Some(qp) = self.roce.qp(place(link)) {
                    qp.drain = true;
                }
                self.drained(place(link));
            }
            Wish::DestroyQp { link } => {
                // The connections that have posted there are told; the group has forgotten the link.
                if let Some(qpn) = self.roce.number(place(link)) {
                    self.fail(qpn);
                }
                self.roce.destroy(place(link));
            }
            Wish::MoveConnection { conn, .. } => self.move_connection(host, conn),
            other => {
                self.wrong.get_or_insert(format!("a wish that nobody should see: {other:?}"));
            }
        }
    }

    fn move_connection(&mut self, host: usize, id: smc_proto::id::ConnId) {
        let Some((conn, side)) = self.find(host, id) else { return };
        let Some(smc) = self.pairs[conn].sides[side].smc() else { return };
        let Some((index, _)) = smc.remote() else { return };
        smc.route = self.hosts[host].endpoint.route(id, index);
        let moved = smc.route.is_some();
        self.coverage.saw(Kind::Ending, if moved { "moved to another link" } else { "not moved" });
        if moved {
            smc.conn.handle_slots(true);
            smc.conn.switch_link();
        } else {
            self.gone(conn, side, Gone::Unreachable);
        }
    }

    /// Posts a connection's bytes.
    pub(crate) fn post_write(&mut self, conn: usize, side: usize, write: Write) {
        let socket = &mut self.pairs[conn].sides[side];
        let (host, Some(smc)) = (socket.host, socket.smc()) else { return };
        let (Some(route), Some((_, offset))) = (smc.route, smc.remote()) else { return };
        let bytes = smc.send[write.from as usize..][..write.len as usize].to_vec();
        let address = route.rtoken.vaddr + u64::from(offset) + u64::from(write.to);
        let place = (host, smc.established.group, route.link);
        self.post(place, Work::Write { rkey: route.rtoken.rkey, address, bytes });
    }

    /// Posts a connection's message.
    pub(crate) fn post_cdc(&mut self, conn: usize, side: usize, message: &Smcr, receipt: Receipt) {
        self.coverage.saw(Kind::Message, format!("CDC: {} / {}", message.flags, message.state));
        let socket = &mut self.pairs[conn].sides[side];
        let (host, Some(smc)) = (socket.host, socket.smc()) else { return };
        let Some(route) = smc.route else { return };
        let place = (host, smc.established.group, route.link);
        let mut bytes = vec![0; Smcr::LEN];
        if message.emit(&mut bytes).is_err() || self.roce.qp(place).is_none() {
            // The link is gone already.
            smc.conn.handle_flushed(receipt);
            return;
        }
        self.post(place, Work::Cdc { conn, side, receipt, bytes });
        let full = self.roce.qp(place).is_some_and(|qp| qp.sends >= SLOTS);
        if let Some(smc) = self.pairs[conn].sides[side].smc() {
            smc.conn.handle_slots(!full);
        }
    }

    fn post(&mut self, place: Place, work: Work) {
        let time = self.now().after(self.delay());
        let Some(qpn) = self.roce.number(place) else { return };
        let Some(qp) = self.roce.qps.get_mut(&qpn) else { return };
        qp.sends += usize::from(!matches!(work, Work::Write { .. }));
        qp.queue.push_back(work);
        let time = time.max(qp.free[0]);
        qp.free[0] = time;
        self.schedule.at(time, Event::Transmit { qpn, since: time });
    }

    fn port_is_up(&self, host: usize, port: DeviceId) -> bool {
        self.hosts[host].alive && !self.hosts[host].down.contains(&port)
    }

    /// The first thing in a send queue leaves, or fails; `since` is when it was first tried.
    pub(crate) fn transmit(&mut self, qpn: u32, since: smc_proto::Instant) {
        let Some(qp) = self.roce.qps.get(&qpn) else { return };
        let (place, port, failed) = (qp.place, qp.port, qp.failed);
        let target = self.roce.peer(qpn).filter(|to| {
            let there = &self.roce.qps[to];
            self.port_is_up(place.0, port) && self.port_is_up(there.place.0, there.port)
        });
        if target.is_none() && !failed && self.now().since(since) < RETRIES {
            self.schedule.after(REPEAT, Event::Transmit { qpn, since });
            return;
        }
        let Some(qp) = self.roce.qps.get_mut(&qpn) else { return };
        let Some(work) = qp.queue.pop_front() else { return };
        let ok = target.is_some_and(|to| self.deliver(to, &work));
        if !ok {
            self.fail(qpn);
        }
        self.complete_later(qpn, work, ok);
    }

    /// A link is proven when the answer to a CONFIRM LINK has come.
    fn note_confirmed(&mut self, to: u32, bytes: &[u8]) {
        let Ok(message) = llc::Message::parse(bytes) else { return };
        if message.response && matches!(message.body, llc::Body::ConfirmLink(_)) {
            let from = self.roce.peer(to);
            for qpn in [Some(to), from].into_iter().flatten() {
                if let Some(qp) = self.roce.qps.get_mut(&qpn) {
                    qp.confirmed = true;
                }
            }
        }
    }

    /// A work request reaches its target; whether that takes it.
    fn deliver(&mut self, to: u32, work: &Work) -> bool {
        let now = self.now();
        if let Work::Llc { bytes, .. } = work {
            self.note_confirmed(to, bytes);
        }
        let (host, group, link) = self.roce.qps[&to].place;
        match work {
            Work::Write { rkey, address, bytes } => self.roce.write(to, *rkey, *address, bytes),
            Work::Llc { bytes, .. } | Work::Cdc { bytes, .. } => {
                let received = self.hosts[host].endpoint.handle_recv(now, group, link, bytes);
                if let Received::Cdc(message) = received {
                    self.cdc_came(host, &message);
                }
                true
            }
        }
    }

    fn cdc_came(&mut self, host: usize, message: &Smcr) {
        let Some((conn, side)) = self.find(host, smc_proto::id::ConnId(message.token.0)) else {
            return;
        };
        if let Some(smc) = self.pairs[conn].sides[side].smc()
            && !smc.released
        {
            smc.conn.handle_cdc_smcr(message);
            self.note_lie(conn, side);
        }
    }

    /// A queue pair fails with all that is posted on it.
    pub(crate) fn fail(&mut self, qpn: u32) {
        let Some(qp) = self.roce.qps.get_mut(&qpn) else { return };
        let place = qp.place;
        let known = std::mem::replace(&mut qp.failed, true);
        let rest: Vec<_> = qp.queue.drain(..).collect();
        for work in rest {
            self.complete_later(qpn, work, false);
        }
        if !known {
            let delay = self.delay();
            self.schedule.after(delay, Event::LinkFailed { place });
        }
    }

    fn complete_later(&mut self, qpn: u32, work: Work, ok: bool) {
        let time = self.now().after(self.delay());
        let Some(qp) = self.roce.qps.get_mut(&qpn) else { return };
        let time = time.max(qp.free[1]);
        qp.free[1] = time;
        self.schedule.at(time, Event::Complete { qpn, work, ok });
    }

    /// A work request completes.
    pub(crate) fn complete(&mut self, qpn: u32, work: &Work, ok: bool) {
        let now = self.now();
        if let Work::Cdc { conn, side, receipt, .. } = *work
            && let Some(smc) = self.pairs[conn].sides[side].smc()
        {
            match ok {
                true => smc.conn.handle_completion(receipt),
                false => smc.conn.handle_flushed(receipt),
            }
        }
        let Some(qp) = self.roce.qps.get_mut(&qpn) else { return };
        let place = qp.place;
        let (host, group, link) = place;
        qp.sends -= usize::from(!matches!(work, Work::Write { .. }));
        if let Work::Llc { work, .. } = *work {
            self.hosts[host].endpoint.handle_sent(now, group, link, work, ok);
        }
        self.slots(place);
        self.drained(place);
    }

    /// Tells the connections on a link that it takes messages again.
    fn slots(&mut self, place: Place) {
        if self.roce.qp(place).is_none_or(|qp| qp.sends >= SLOTS) {
            return;
        }
        for side in self.pairs.iter_mut().flat_map(|pair| &mut pair.sides) {
            let host = side.host;
            let Some(smc) = side.smc() else { continue };
            let on = smc.route.map(|route| (host, smc.established.group, route.link));
            if on == Some(place) {
                smc.conn.handle_slots(true);
            }
        }
    }

    fn drained(&mut self, place: Place) {
        let now = self.now();
        let Some(qp) = self.roce.qp(place) else { return };
        if qp.drain && qp.sends == 0 && qp.queue.is_empty() {
            qp.drain = false;
            let (host, group, link) = place;
            self.hosts[host].endpoint.handle_drained(now, group, link);
        }
    }

    /// A queue pair's event says that it failed.
    pub(crate) fn link_failed(&mut self, place: Place) {
        let now = self.now();
        let (host, group, link) = place;
        if self.hosts[host].alive && self.roce.qp(place).is_some() {
            self.hosts[host].endpoint.handle_link_failed(now, group, link);
        }
    }

    /// One link of an end loses what is under way, and breaks at both ends.
    pub(crate) fn lose_link(&mut self, host: usize) {
        let own = self.roce.qps.iter().filter(|(_, qp)| qp.place.0 == host && !qp.failed);
        let own: Vec<u32> = own.map(|(qpn, _)| *qpn).collect();
        let Some(&qpn) = own.get(self.random.usize(..own.len().max(1))) else { return };
        let peer = self.roce.peer(qpn);
        self.break_without(host, "a link was lost", |other, _| other == qpn || Some(other) == peer);
        self.fail(qpn);
        if let Some(peer) = peer {
            self.fail(peer);
        }
    }

    /// Links are about to be lost, those `without`: connections that have no other may break.
    pub(crate) fn break_without(
        &mut self,
        host: usize,
        why: &'static str,
        without: impl Fn(u32, &Qp) -> bool,
    ) {
        for conn in 0..self.pairs.len() {
            let Some(side) = self.pairs[conn].sides.iter().find(|side| side.host == host) else {
                continue;
            };
            let may_break = match &side.phase {
                Phase::Handshake => true,
                Phase::Smc(smc) if smc.remote().is_some() => {
                    let up = |qp: &Qp| self.port_is_up(qp.place.0, qp.port);
                    !self.roce.carries((host, smc.established.group), &without, up)
                }
                Phase::Smc(_) | Phase::Plain(_) | Phase::Over => false,
            };
            let peer_is_not_there =
                self.pairs[conn].sides.iter().any(|side| matches!(side.phase, Phase::Handshake));
            if may_break || peer_is_not_there {
                self.pairs[conn].break_for(why);
            } else if side_is_rdma(side) {
                self.coverage.saw(Kind::Ending, "a link was lost that nobody may notice");
            }
        }
    }

    /// The peers of an end repeat what they send to it for a while.
    pub(crate) fn not_ready(&mut self, host: usize) {
        let now = self.now();
        let peers = self.roce.qps.keys().filter(|qpn| {
            self.roce.peer(**qpn).is_some_and(|to| self.roce.qps[&to].place.0 == host)
        });
        for qpn in peers.copied().collect::<Vec<_>>() {
            if let Some(qp) = self.roce.qps.get_mut(&qpn) {
                qp.free[0] = qp.free[0].max(now.after(REPEAT));
            }
        }
    }

    fn saw_llc(&mut self, bytes: &[u8]) {
        match llc::Message::parse(bytes) {
            Ok(message) => {
                let kind = message.kind().map_or_else(|_| "?".into(), |kind| kind.to_string());
                let answer = if message.response { ", answer" } else { "" };
                self.coverage.saw(Kind::Message, format!("LLC: {kind}{answer}"));
            }
            Err(error) => {
                self.wrong.get_or_insert(format!("a link group sent what is no LLC: {error}"));
            }
        }
    }
}

fn side_is_rdma(side: &Socket) -> bool {
    matches!(&side.phase, Phase::Smc(smc) if smc.remote().is_some())
}
