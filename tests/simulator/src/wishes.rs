// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Carries out what endpoints and connections wish, as a kernel or a socket library does.
//!
//! Invariant: wishes of one endpoint, and those of one connection, are carried out in their order.

use smc_proto::conn::{self, Gone};
use smc_proto::endpoint::{Established, Path, Wish};
use smc_proto::group::{self, BufferKind, Fate, RegisterError};
use smc_proto::handshake::route::NextHop;
use smc_proto::id::ConnId;
use smc_proto::smcd::dmb::Dmb;
use smc_proto::smcd::event::DeviceEvent;
use smc_wire::cdc::Smcd;
use smc_wire::clc::Message;
use smc_wire::id::{DmbToken, IsmGid, Mac};

use crate::coverage::Kind;
use crate::socket::{Pair, Phase, Smc};
use crate::world::{Event, NOT_ACCEPTED, World};

impl Pair {
    /// Whether one of its sides is at the end `host`.
    pub(crate) fn concerns(&self, host: usize) -> bool {
        self.sides.iter().any(|side| side.host == host)
    }
}

impl World {
    /// Carries out all wishes, until there are none.
    pub(crate) fn pump(&mut self) {
        loop {
            let mut any = false;
            for host in 0..self.hosts.len() {
                while self.hosts[host].alive
                    && let Some(wish) = self.hosts[host].endpoint.poll_wish()
                {
                    any = true;
                    self.carry_out(host, wish);
                }
            }
            for conn in 0..self.pairs.len() {
                for side in 0..2 {
                    any |= self.connection_wishes(conn, side);
                }
            }
            if !any {
                return;
            }
        }
    }

    /// The connection of a script that an endpoint calls `id`.
    pub(crate) fn find(&self, host: usize, id: ConnId) -> Option<(usize, usize)> {
        let at = |pair: &Pair| pair.sides.iter().position(|it| it.host == host && it.id == id);
        self.pairs.iter().enumerate().rev().find_map(|(conn, pair)| Some((conn, at(pair)?)))
    }

    fn host_of(&self, gid: IsmGid) -> Option<usize> {
        self.hosts.iter().position(|host| host.gid == gid && host.alive)
    }

    fn carry_out(&mut self, host: usize, wish: Wish) {
        self.note(|| format!("end {host} wishes {wish:?}"));
        let now = self.now();
        match wish {
            Wish::SendClc { conn, message } => {
                self.saw_clc(&message);
                if let Some((conn, side)) = self.find(host, conn) {
                    self.tcp_send(conn, side, message.into());
                }
            }
            Wish::QueryRemoteGid { conn, gid, .. } => {
                let reached = self.host_of(gid).is_some();
                self.hosts[host].endpoint.handle_remote_gid(now, conn, reached);
            }
            Wish::ResolveNextHop { conn, .. } => {
                let hop = NextHop { mac: Mac::default(), gateway: false };
                self.hosts[host].endpoint.handle_next_hop(now, conn, Some(hop));
            }
            Wish::Attach { conn, device, token } => {
                let len = self.ism.attach(self.hosts[host].gid, token).ok();
                let len = len.map(|len| len as u64);
                self.hosts[host].endpoint.handle_attached(now, conn, device, token, len);
            }
            Wish::Detach { token, .. } => {
                // Refused if the owner is gone with its memory.
                let _ = self.ism.detach(self.hosts[host].gid, token);
            }
            Wish::Established(established) => self.established(host, *established),
            Wish::Fallback { conn, reason, late } => {
                self.coverage.saw(Kind::Ending, format!("fallback: {reason}"));
                if let Some((conn, side)) = self.find(host, conn) {
                    let socket = &mut self.pairs[conn].sides[side];
                    socket.phase = Phase::Plain(std::mem::take(&mut socket.tcp));
                    socket.late = (late, None);
                }
            }
            Wish::Failed { conn, failure } => {
                self.coverage.saw(Kind::Ending, format!("failed: {failure}"));
                if let Some((conn, side)) = self.find(host, conn) {
                    self.pairs[conn].break_for("a handshake failed");
                    self.pairs[conn].sides[side].phase = Phase::Over;
                    self.reset(conn, side);
                    self.tcp_abort(conn, side);
                }
            }
            Wish::Abort { conn, tell_peer } => {
                self.coverage
                    .saw(Kind::Ending, format!("aborted with its group, peer told: {tell_peer}"));
                if let Some((conn, side)) = self.find(host, conn) {
                    self.pairs[conn].break_for("its link group ended");
                    self.gone(conn, side, if tell_peer { Gone::Group } else { Gone::Unreachable });
                }
            }
            Wish::Group(wish) => self.carry_out_group(host, wish),
            Wish::Links { group, wish } => self.carry_out_links(host, group, wish),
        }
    }

    fn carry_out_group(&mut self, host: usize, wish: group::Wish) {
        let now = self.now();
        match wish {
            group::Wish::Register { group, buffer, kind, size } => {
                let outcome = self.register(host, group, buffer, kind, size.bytes());
                self.hosts[host].endpoint.handle_registered(now, buffer, outcome);
            }
            group::Wish::Zero { buffer, .. } => {
                let end = &mut self.hosts[host];
                let token = end.dmbs.get(&buffer);
                let zeroed = token.is_none_or(|token| self.ism.zero(end.gid, *token).is_ok());
                if let Some(rmb) = self.roce.rmbs.get_mut(&(host, buffer)) {
                    rmb.fill(0);
                }
                end.endpoint.handle_zeroed(now, buffer, zeroed);
            }
            group::Wish::Free { buffer, .. } => {
                self.roce.rmbs.remove(&(host, buffer));
                let end = &mut self.hosts[host];
                if let Some(token) = end.dmbs.remove(&buffer) {
                    // Refused if the device itself is gone.
                    let _ = self.ism.unregister(end.gid, token);
                }
            }
            group::Wish::Signal { gid, code, info, .. } => {
                self.coverage.saw(Kind::Message, format!("event: {code}"));
                let event = DeviceEvent::Software { gid: self.hosts[host].gid, code, info };
                if let Some(peer) = self.host_of(gid) {
                    let delay = self.delay();
                    self.schedule.after(delay, Event::Device { host: peer, event });
                }
            }
            group::Wish::AddVlan { device, vlan } => {
                self.hosts[host].endpoint.handle_vlan(now, device, vlan, true);
            }
            group::Wish::RemoveVlan { .. } | group::Wish::Gone { .. } => {}
            group::Wish::Kill { .. } | group::Wish::EndLinks { .. } => {
                self.wrong.get_or_insert(format!("a wish that nobody should see: {wish:?}"));
            }
        }
    }

    fn register(
        &mut self,
        host: usize,
        group: smc_proto::id::GroupId,
        buffer: smc_proto::id::BufferId,
        kind: BufferKind,
        len: u32,
    ) -> Result<Dmb, RegisterError> {
        let end = &mut self.hosts[host];
        if end.fails() {
            return Err(RegisterError::NoSpace);
        }
        let peer = match end.endpoint.groups().peer(group) {
            _ if kind == BufferKind::Send => return Ok(Dmb::default()),
            Some(group::Peer::Smcd(peer)) => peer,
            Some(group::Peer::Smcr(_)) => {
                self.roce.rmbs.insert((host, buffer), vec![0; len as usize]);
                return Ok(Dmb::default());
            }
            None => return Err(RegisterError::Never),
        };
        if end.endpoint.inventory().ism().is_empty() {
            return Err(RegisterError::Refused);
        }
        let token = self.ism.register(end.gid, peer.gid, len as usize);
        end.dmbs.insert(buffer, token);
        Ok(Dmb { token, index: 0 })
    }

    fn established(&mut self, host: usize, established: Established) {
        let version = established.version;
        let contact = if established.first_contact { "first contact" } else { "later" };
        let path = match &established.path {
            Path::Copied { .. } => "SMC-D copied",
            Path::Mapped { .. } => "SMC-D mapped",
            Path::Rdma { .. } => "SMC-R",
        };
        let early = match &established.path {
            Path::Rdma { early, .. } => early.clone(),
            _ => Vec::new(),
        };
        self.coverage.saw(Kind::Ending, format!("established: {path}, {version:?}, {contact}"));
        let Some((conn, side)) = self.find(host, established.conn) else { return };
        let left = self.pairs[conn].sides[side].tcp.len();
        if left > 0 {
            self.wrong.get_or_insert(format!("connection {conn}: {left} bytes of TCP are left"));
        }
        let mut smc = Smc::new(established);
        for message in &early {
            self.coverage.saw(Kind::Message, "CDC before the end of the handshake");
            smc.conn.handle_cdc_smcr(message);
        }
        self.pairs[conn].sides[side].phase = Phase::Smc(Box::new(smc));
        self.look(conn, side);
    }

    /// A side's way to its peer is gone.
    pub(crate) fn gone(&mut self, conn: usize, side: usize, why: Gone) {
        if let Some(smc) = self.pairs[conn].sides[side].smc() {
            smc.conn.handle_gone(why);
            self.connection_wishes(conn, side);
            self.release(conn, side, Fate::Discard);
        }
    }

    /// Gives back what a connection has from its handshake.
    fn release(&mut self, conn: usize, side: usize, fate: Fate) {
        let now = self.now();
        let socket = &mut self.pairs[conn].sides[side];
        let (host, id) = (socket.host, socket.id);
        let Some(smc) = socket.smc() else { return };
        if std::mem::replace(&mut smc.released, true) {
            return;
        }
        let end = &mut self.hosts[host];
        if let Path::Mapped { peer, .. } = &smc.established.path {
            // Refused if this end's own device is gone.
            let _ = self.ism.detach(end.gid, peer.token());
        }
        end.endpoint.release(now, id, fate);
    }

    /// Carries out the wishes of one connection's side; whether there were some.
    fn connection_wishes(&mut self, conn: usize, side: usize) -> bool {
        let mut any = false;
        while let Some(smc) = self.pairs[conn].sides[side].smc() {
            let wish = smc.conn.poll_wish();
            self.saw_state(conn, side);
            let Some(wish) = wish else { break };
            any = true;
            self.note(|| format!("connection {conn}, side {side} wishes {wish:?}"));
            self.carry_out_connection(conn, side, wish);
        }
        any
    }

    fn carry_out_connection(&mut self, conn: usize, side: usize, wish: conn::Wish) {
        let pair = &mut self.pairs[conn];
        let gid = self.hosts[pair.sides[side].host].gid;
        let Some(smc) = pair.sides[side].smc() else { return };
        match wish {
            conn::Wish::FetchUrgent { at } => {
                let byte =
                    self.ring(conn, side, at as usize, 1).and_then(|byte| byte.first().copied());
                if let Some(smc) = self.pairs[conn].sides[side].smc() {
                    smc.conn.handle_urgent_byte(byte.unwrap_or_default());
                }
            }
            conn::Wish::Write(write) => {
                let Path::Copied { peer, .. } = &smc.established.path else {
                    self.post_write(conn, side, write);
                    return;
                };
                let bytes = &smc.send[write.from as usize..][..write.len as usize];
                let place = peer.ring_offset() as usize + write.to as usize;
                if self.ism.write(gid, peer.token(), place, bytes).is_err() {
                    self.gone(conn, side, Gone::Unreachable);
                }
            }
            conn::Wish::PublishSmcd(area) => self.publish(conn, side, gid, &area),
            conn::Wish::PublishSmcr(message, receipt) => {
                self.post_cdc(conn, side, &message, receipt);
            }
            conn::Wish::Wake(_) | conn::Wish::ShutdownTcp(_) => {}
            conn::Wish::AbortTcp => self.tcp_abort(conn, side),
            conn::Wish::Release => {
                let reusable = smc.conn.is_ring_reusable();
                let fate = if reusable { Fate::Reuse } else { Fate::Discard };
                self.release(conn, side, fate);
                self.pairs[conn].sides[side].phase = Phase::Over;
            }
        }
    }

    fn publish(&mut self, conn: usize, side: usize, gid: IsmGid, area: &Smcd) {
        self.coverage.saw(Kind::Message, format!("CDC: {} / {}", area.flags, area.state));
        let Some(smc) = self.pairs[conn].sides[side].smc() else { return };
        let (Path::Copied { peer, .. } | Path::Mapped { peer, .. }) = &smc.established.path else {
            self.wrong.get_or_insert("SMC-R publishes as SMC-D".into());
            return;
        };
        let (token, at) = (peer.token(), peer.cdc_offset() as usize);
        let mut bytes = [0; 32];
        let written = match area.emit(&mut bytes) {
            Ok(_) => self.ism.write(gid, token, at, &bytes),
            Err(_) => return,
        };
        match written.map(|owner| self.host_of(owner)) {
            Ok(Some(host)) if !self.hosts[host].deaf => {
                let delay = self.delay();
                self.schedule.after(delay, Event::Signal { host, token });
            }
            Ok(_) => {}
            Err(_) => self.gone(conn, side, Gone::Unreachable),
        }
    }

    /// The fabric's signal: somebody wrote a CDC area.
    pub(crate) fn signal(&mut self, host: usize, token: DmbToken) {
        for conn in 0..self.pairs.len() {
            for side in 0..2 {
                let socket = &mut self.pairs[conn].sides[side];
                if socket.host == host && socket.smc().is_some_and(|smc| smc.token() == token) {
                    self.look(conn, side);
                }
            }
        }
    }

    /// The driver looks at all DMBs of an end.
    pub(crate) fn look_at_all(&mut self, host: usize) {
        for conn in 0..self.pairs.len() {
            for side in 0..2 {
                if self.pairs[conn].sides[side].host == host {
                    self.look(conn, side);
                }
            }
        }
    }

    /// A side reads its CDC area: first the consumer half, then the producer half.
    fn look(&mut self, conn: usize, side: usize) {
        let Some(smc) = self.pairs[conn].sides[side].smc() else { return };
        if smc.remote().is_some() {
            self.connection_wishes(conn, side);
            return;
        }
        let token = smc.token();
        let half = |at| {
            let bytes = self.ism.read(token, at, 8).ok()?;
            bytes.try_into().ok().map(u64::from_ne_bytes)
        };
        if let (false, Some(cons), Some(prod)) = (smc.released, half(16), half(8)) {
            smc.conn.handle_cdc_smcd(prod, cons);
            self.note_lie(conn, side);
        }
        self.connection_wishes(conn, side);
    }

    /// Nobody here lies: who finds that a peer did is wrong.
    pub(crate) fn note_lie(&mut self, conn: usize, side: usize) {
        let Some(smc) = self.pairs[conn].sides[side].smc() else { return };
        if let Some(lie @ conn::Error::Protocol(_)) = smc.conn.error() {
            self.wrong.get_or_insert(format!("connection {conn}, side {side}: {lie}"));
        }
    }

    /// Bytes of the ring that a side's peer writes.
    pub(crate) fn ring(&self, conn: usize, side: usize, at: usize, len: usize) -> Option<&[u8]> {
        let socket = &self.pairs[conn].sides[side];
        let Phase::Smc(smc) = &socket.phase else { return None };
        if smc.remote().is_none() {
            return self.ism.read(smc.token(), 32 + at, len).ok();
        }
        let rmb = self.roce.rmbs.get(&(socket.host, smc.established.receive.id))?;
        rmb.get(at..)?.get(..len)
    }

    /// TCP brings bytes to a side.
    pub(crate) fn tcp_came(&mut self, conn: usize, side: usize, bytes: &[u8]) {
        let pair = &mut self.pairs[conn];
        let socket = &mut pair.sides[side];
        if !self.hosts[socket.host].alive {
            return;
        }
        match &mut socket.phase {
            Phase::Handshake => {
                socket.tcp.extend(bytes);
                self.feed(conn, side);
            }
            Phase::Plain(inbox) => {
                inbox.extend(bytes);
                self.take_late(conn, side);
            }
            // The peer declined after all: its answer in the first contact, or ours, was lost.
            Phase::Smc(_) if pair.streams[side].broken().is_some() => {
                self.coverage.saw(Kind::Ending, "declined by a peer when on SMC");
                self.gone(conn, side, Gone::Unreachable);
            }
            Phase::Smc(_) => {
                self.wrong.get_or_insert(format!("connection {conn}: TCP brings bytes on SMC"));
            }
            Phase::Over => {}
        }
    }

    /// Takes the peer's late word out of a TCP stream; whether the data may be read.
    pub(crate) fn take_late(&mut self, conn: usize, side: usize) -> bool {
        let now = self.now();
        let socket = &mut self.pairs[conn].sides[side];
        let late = socket.late.0;
        let (clean, taken) = socket.take_late(now);
        if taken > 0 {
            self.coverage.saw(Kind::Ending, format!("{late:?} taken out of the data"));
        }
        clean
    }

    /// Gives the endpoint what TCP brought, as long as it takes some.
    pub(crate) fn feed(&mut self, conn: usize, side: usize) {
        let now = self.now();
        loop {
            let socket = &mut self.pairs[conn].sides[side];
            if !matches!(socket.phase, Phase::Handshake) {
                return;
            }
            let endpoint = &mut self.hosts[socket.host].endpoint;
            let taken = endpoint.handle_clc(now, socket.id, &socket.tcp);
            socket.tcp.drain(..taken);
            if taken == 0 {
                return;
            }
            self.pump();
        }
    }

    /// TCP brings a reset to a side.
    pub(crate) fn tcp_reset(&mut self, conn: usize, side: usize) {
        let now = self.now();
        let socket = &mut self.pairs[conn].sides[side];
        match &mut socket.phase {
            Phase::Handshake => {
                let id = socket.id;
                if id == NOT_ACCEPTED {
                    socket.phase = Phase::Over;
                }
                self.hosts[socket.host].endpoint.handle_tcp_end(now, id);
            }
            Phase::Smc(_) => self.gone(conn, side, Gone::Unreachable),
            Phase::Plain(_) | Phase::Over => {}
        }
    }

    /// Notes a message.
    fn saw_clc(&mut self, message: &[u8]) {
        let name = match Message::parse(message) {
            Ok(Message::Proposal(_)) => "CLC: proposal".into(),
            Ok(Message::Accept(_)) => "CLC: accept".into(),
            Ok(Message::Confirm(_)) => "CLC: confirm".into(),
            Ok(Message::Decline(decline)) => format!("CLC: decline, {}", decline.diagnosis),
            Err(error) => {
                self.wrong.get_or_insert(format!("an endpoint sent what is no CLC: {error}"));
                return;
            }
        };
        self.coverage.saw(Kind::Message, name);
    }

    /// Notes a change of a connection's state.
    fn saw_state(&mut self, conn: usize, side: usize) {
        let Some(smc) = self.pairs[conn].sides[side].smc() else { return };
        let after = smc.conn.state();
        let before = std::mem::replace(&mut smc.state, after);
        if before != after {
            self.coverage.saw(Kind::Transition, format!("{before:?} -> {after:?}"));
        }
    }
}
