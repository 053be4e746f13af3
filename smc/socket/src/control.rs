// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The stack's slow side: handshakes, link groups, buffers; and what they wish.
//!
//! Invariant: one lock around all of it, under which no connection's lock is taken and no observer is
//! called; what needs those is handed out as [`Later`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ism_abi::status;
use ism_client::{Device, Dmb, Error as DeviceError, Remote};
use smc_proto::Instant;
use smc_proto::endpoint::{Endpoint, Established, Wish};
use smc_proto::group::{self, BufferKind, Fate, Peer, RegisterError};
use smc_proto::handshake::inventory::IsmDevice;
use smc_proto::handshake::reason::Failure;
use smc_proto::id::{BufferId, ConnId, DeviceId, GroupId};
use smc_proto::smcd::dmb::Dmb as Name;
use smc_proto::smcd::event::{DeviceEvent, EventCode};
use smc_proto::stats::Technology;
use smc_wire::cdc::{Cursor, Smcd};
use smc_wire::id::{Chid, DmbToken, IsmGid};

use crate::channel::Channel;
use crate::config::Config;
use crate::family::Family;
use crate::late::LateWord;
use crate::parked::Parked;
use crate::seat;
use crate::shared::{Outcome, Shared};
use crate::table::Table;
use crate::tcp::{self, Front, Standing};
use crate::types::Role;

/// The only device's name.
pub(crate) const DEVICE: DeviceId = DeviceId(1);

/// Handshakes, groups, buffers.
pub(crate) struct Control {
    pub(crate) endpoint: Endpoint,
    device: Device,
    /// Sockets in a handshake or established.
    pub(crate) sockets: HashMap<ConnId, Arc<Shared>>,
    /// What waits for TCP's word.
    pub(crate) parked: Parked,
    /// Established ones, by what signals name them by.
    table: Arc<Table>,
    own: HashMap<BufferId, Own>,
    /// Peers' DMBs: a DMB serves many connections one after another.
    remotes: HashMap<DmbToken, Arc<Remote>>,
    /// Peers that memory can be shared with.
    reached: HashSet<ism_abi::Gid>,
    family: Arc<Family>,
    spin: std::time::Duration,
    /// What connections counted that are over.
    pub(crate) closed: Technology,
    /// With at least so many connections the next ones' receive buffers are of so many bytes.
    crowds: [(usize, u32); 3],
    /// Bytes of all others'.
    receive_buffer: u32,
}

/// A DMB of ours.
struct Own {
    dmb: Dmb,
    /// Bytes from its begin that its connection may have made other than zero.
    used: usize,
}

/// What a look at a handshake's TCP connection found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    /// A message, which was taken; perhaps there is another.
    Message,
    /// Nothing: TCP tells when something comes.
    Nothing,
    /// A part of a message: TCP tells nothing new when the rest comes.
    Part,
    /// It waits for something else than a message, or for nothing.
    Others,
}

/// What has to be done without the lock.
pub(crate) enum Later {
    /// The handshake is over: look at the connection, tell the observer.
    Settled(Arc<Shared>),
    /// Its link group ended.
    Abort {
        socket: Arc<Shared>,
        /// The peer can still be told.
        tell_peer: bool,
    },
}

/// Halves of a GID, big-endian each.
pub(crate) fn ism_gid(gid: ism_abi::Gid) -> IsmGid {
    let all = u128::from_be_bytes(gid);
    let [high, low] = [all >> 64, all & u128::from(u64::MAX)];
    let half = |bits| u64::try_from(bits).unwrap_or(0);
    IsmGid { gid: half(high), ext: half(low) }
}

pub(crate) fn abi_gid(gid: IsmGid) -> ism_abi::Gid {
    (u128::from(gid.gid) << 64 | u128::from(gid.ext)).to_be_bytes()
}

impl Control {
    pub(crate) fn new(
        mut endpoint: Endpoint,
        device: Device,
        table: Arc<Table>,
        family: Arc<Family>,
        config: &Config,
    ) -> Self {
        let limits = device.limits();
        endpoint.add_ism(IsmDevice {
            id: DEVICE,
            name: "ism".into(),
            parent: String::new(),
            gid: ism_gid(limits.gid),
            chid: Chid(limits.fabric_id),
            pnetid: None,
            v2: true,
            vlans: false,
            mapped: true,
            max_dmb: limits.max_dmb_len,
        });
        let (sockets, own, remotes) = (HashMap::new(), HashMap::new(), HashMap::new());
        let reached = HashSet::new();
        let (spin, crowds, receive_buffer) = (config.spin, config.crowds, config.receive_buffer);
        let closed = Technology::default();
        Self {
            endpoint,
            device,
            sockets,
            parked: Parked::default(),
            table,
            own,
            remotes,
            reached,
            family,
            spin,
            crowds,
            receive_buffer,
            closed,
        }
    }

    /// Makes a socket known.
    pub(crate) fn insert(&mut self, socket: &Arc<Shared>) {
        self.sockets.insert(socket.id, Arc::clone(socket));
    }

    /// Bytes of the next one's receive buffer, of which its program has perhaps `asked` for so many.
    pub(crate) fn receive_buffer(&self, asked: Option<u32>) -> u32 {
        let crowds = self.crowds.iter().filter(|(many, _)| self.sockets.len() >= *many);
        let most = crowds.map(|(_, bytes)| *bytes).chain(asked).min();
        most.map_or(self.receive_buffer, |most| most.min(self.receive_buffer))
    }

    /// How many are.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Goes on with a socket's handshake.
    pub(crate) fn feed(&mut self, now: Instant, socket: &Shared) -> Fed {
        let fed = self.feed_one(now, socket);
        self.look_at_parked(now);
        socket.set_waits(fed == Fed::Nothing);
        if fed != Fed::Message && self.next_timeout().is_some_and(|at| at <= now) {
            self.time(now);
        }
        fed
    }

    /// The time has come. What a peer has said in time counts, even if nobody has looked at it since.
    pub(crate) fn time(&mut self, now: Instant) {
        let overdue: Vec<_> = self.endpoint.overdue(now).collect();
        for conn in overdue {
            if let Some(socket) = self.sockets.get(&conn).cloned() {
                self.feed_one(now, &socket);
            }
        }
        self.endpoint.handle_timeout(now);
        self.look_at_parked(now);
    }

    /// When the time matters next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout().into_iter().chain(self.parked.next()).min()
    }

    /// Gives the endpoint the next CLC message of a socket, if it is there.
    fn feed_one(&mut self, now: Instant, socket: &Shared) -> Fed {
        let Some(tcp) = socket.tcp().filter(|_| socket.send_clc(&[])) else {
            self.endpoint.handle_tcp_end(now, socket.id);
            return Fed::Others;
        };
        if self.parked.has(socket.id) || !self.endpoint.expects_clc(socket.id) {
            return Fed::Others;
        }
        let mut buffer = [0; tcp::LOOK];
        match tcp::peek(&*tcp, &mut buffer) {
            Front::Bytes(n) => {
                let front = buffer.get(..n).unwrap_or(&buffer);
                if socket.role == Role::Server && self.endpoint.handle_plain(now, socket.id, front)
                {
                    return Fed::Others;
                }
                let taken = self.endpoint.handle_clc(now, socket.id, front);
                // The rest of a message does not come any more where the stream has ended.
                if taken == 0
                    && tcp::standing(&*tcp) != Standing::Up
                    && tcp::peek(&*tcp, &mut [0; tcp::LOOK]) == Front::Bytes(n)
                {
                    self.endpoint.handle_tcp_end(now, socket.id);
                }
                if taken > 0 && tcp::eat(&*tcp, taken) { Fed::Message } else { Fed::Part }
            }
            Front::Nothing => Fed::Nothing,
            Front::End => {
                self.endpoint.handle_tcp_end(now, socket.id);
                Fed::Others
            }
        }
    }

    /// A socket's connection touches its rings no more, `written` being how far the peer came in ours;
    /// or its handshake is given up. False: that was said before.
    pub(crate) fn release(
        &mut self,
        now: Instant,
        socket: &Shared,
        written: Cursor,
        fate: Fate,
    ) -> bool {
        if self.sockets.remove(&socket.id).is_none() {
            return false;
        }
        if let Some(channel) = socket.channel() {
            let receive = &channel.established.receive;
            self.table.set(receive.dmb.index, None);
            if let Some(own) = self.own.get_mut(&receive.id) {
                own.used = match written.wrap {
                    0 => Smcd::LEN + written.count as usize,
                    _ => usize::MAX,
                };
            }
        }
        self.endpoint.release(now, socket.id, fate);
        true
    }

    /// A peer ended its DMB.
    pub(crate) fn forget_remote(&mut self, token: DmbToken) {
        self.remotes.remove(&token);
    }

    /// A peer is gone, for its handshakes too: its DMBs are.
    pub(crate) fn bury(&mut self, now: Instant, gid: ism_abi::Gid) {
        self.remotes.retain(|_, remote| remote.owner() != gid);
        self.reached.remove(&gid);
        let event = DeviceEvent::Device { gid: ism_gid(gid) };
        self.endpoint.handle_event(now, DEVICE, &event);
    }

    /// A peer's SMC-D sent an event.
    pub(crate) fn software(&mut self, now: Instant, gid: ism_abi::Gid, code: u32, info: u64) {
        let event = DeviceEvent::Software { gid: ism_gid(gid), code: EventCode(code), info };
        self.endpoint.handle_event(now, DEVICE, &event);
    }

    /// Our device is gone.
    pub(crate) fn device_gone(&mut self, now: Instant) {
        self.remotes.clear();
        self.endpoint.remove_ism(now, DEVICE);
    }

    /// Carries out what is wished.
    pub(crate) fn carry_out(&mut self, now: Instant, later: &mut Vec<Later>) {
        while let Some(wish) = self.endpoint.poll_wish() {
            self.carry_out_one(now, wish, later);
        }
    }

    fn carry_out_one(&mut self, now: Instant, wish: Wish, later: &mut Vec<Later>) {
        match wish {
            Wish::SendClc { conn, message } => {
                let sent = self.sockets.get(&conn).is_some_and(|it| it.send_clc(&message));
                if !sent {
                    self.endpoint.handle_tcp_end(now, conn);
                }
            }
            Wish::QueryRemoteGid { conn, gid, .. } => match self.reaches(abi_gid(gid)) {
                true => self.endpoint.handle_remote_gid(now, conn, true),
                false => self.not_reached(now, conn, abi_gid(gid)),
            },
            // There is no RoCE port to be reached.
            Wish::ResolveNextHop { conn, .. } => self.endpoint.handle_next_hop(now, conn, None),
            Wish::Attach { conn, device, token } => {
                match self.attach(token).map(|remote| remote.memory().len() as u64) {
                    Ok(len) => self.endpoint.handle_attached(now, conn, device, token, Some(len)),
                    Err(_) => self.not_attached(now, conn, device, token),
                }
            }
            // Kept for the next connection, until its owner ends it.
            Wish::Detach { .. } => {}
            Wish::Established(established) => self.established(now, *established, later),
            Wish::Fallback { conn, reason, late } => {
                let word = Arc::new(LateWord::new(late));
                self.settle(conn, Outcome::Tcp(reason, word), later);
            }
            Wish::Failed { conn, failure } => {
                if let Some(tcp) = self.sockets.get(&conn).and_then(|socket| socket.tcp()) {
                    tcp::reset(&*tcp);
                }
                self.settle(conn, Outcome::Failed(failure), later);
            }
            Wish::Abort { conn, tell_peer } => {
                if let Some(socket) = self.sockets.get(&conn).cloned() {
                    later.push(Later::Abort { socket, tell_peer });
                }
            }
            Wish::Group(wish) => self.carry_out_group(now, wish),
            // Without RoCE ports no group has links.
            Wish::Links { .. } => {}
        }
    }

    /// Whether memory can be shared with a peer: asked once, until the peer goes.
    fn reaches(&mut self, gid: ism_abi::Gid) -> bool {
        let reached = self.reached.contains(&gid) || self.device.query(gid, None).is_ok();
        if reached {
            self.reached.insert(gid);
        }
        reached
    }

    fn carry_out_group(&mut self, now: Instant, wish: group::Wish) {
        match wish {
            group::Wish::Register { group, buffer, kind, size } => {
                let outcome = self.register(group, buffer, kind, size.bytes());
                self.endpoint.handle_registered(now, buffer, outcome);
            }
            group::Wish::Zero { buffer, .. } => {
                let zeroed = self.own.get_mut(&buffer).is_some_and(Own::zero);
                self.endpoint.handle_zeroed(now, buffer, zeroed);
            }
            group::Wish::Free { buffer, .. } => drop(self.own.remove(&buffer)),
            group::Wish::Signal { gid, code, info, .. } => {
                // A peer that cannot be told finds out by itself.
                let _ = self.device.send_event(abi_gid(gid), code.0, info);
            }
            group::Wish::AddVlan { device, vlan } => {
                self.endpoint.handle_vlan(now, device, vlan, false);
            }
            // The endpoint keeps the last two for itself.
            group::Wish::RemoveVlan { .. }
            | group::Wish::Gone { .. }
            | group::Wish::Kill { .. }
            | group::Wish::EndLinks { .. } => {}
        }
    }

    fn register(
        &mut self,
        group: GroupId,
        buffer: BufferId,
        kind: BufferKind,
        len: u32,
    ) -> Result<Name, RegisterError> {
        // A mapped sender has no buffer of its own.
        if kind == BufferKind::Send {
            return Err(RegisterError::Never);
        }
        let Some(Peer::Smcd(peer)) = self.endpoint.groups().peer(group) else {
            return Err(RegisterError::Never);
        };
        let dmb = self.device.register(abi_gid(peer.gid), len).map_err(|error| match error {
            DeviceError::NoIndex(_) => RegisterError::NoSpace,
            error if error.status() == Some(status::NO_SPACE) => RegisterError::NoSpace,
            _ => RegisterError::Refused,
        })?;
        let index = u16::try_from(dmb.index()).map_err(|_| RegisterError::NoSpace)?;
        let name = Name { token: DmbToken(dmb.token()), index };
        self.own.insert(buffer, Own { dmb, used: usize::MAX });
        Ok(name)
    }

    /// The peer's DMB, mapped, and kept from being used for something else.
    fn attach(&mut self, token: DmbToken) -> Result<Arc<Remote>, DeviceError> {
        if let Some(remote) = self.remotes.get(&token).filter(|remote| !remote.is_dead()) {
            return Ok(Arc::clone(remote));
        }
        let mut remote = self.device.remote(token.0)?;
        remote.attach()?;
        let remote = Arc::new(remote);
        self.remotes.insert(token, Arc::clone(&remote));
        Ok(remote)
    }

    /// All sockets.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        self.sockets.values().cloned().collect()
    }

    /// Sockets whose handshakes go on.
    pub(crate) fn handshakes(&self) -> Vec<Arc<Shared>> {
        let all = self.sockets.values();
        all.filter(|socket| socket.outcome().is_none()).cloned().collect()
    }

    /// Sockets that are connections.
    pub(crate) fn connections(&self) -> Vec<Arc<Shared>> {
        self.sockets.values().filter(|socket| socket.channel().is_some()).cloned().collect()
    }

    fn settle(&mut self, conn: ConnId, outcome: Outcome, later: &mut Vec<Later>) {
        if let Some(socket) = self.sockets.remove(&conn) {
            socket.settle(outcome);
            later.push(Later::Settled(socket));
        }
    }

    fn established(&mut self, now: Instant, established: Established, later: &mut Vec<Later>) {
        let (conn, index) = (established.conn, established.receive.dmb.index);
        match self.channel(established) {
            Some(channel) => {
                let Some(socket) = self.sockets.get(&conn).cloned() else {
                    return self.endpoint.release(now, conn, Fate::Discard);
                };
                socket.settle(Outcome::Smc(Box::new(channel)));
                self.table.set(index, Some(Arc::clone(&socket)));
                later.push(Later::Settled(socket));
            }
            // The device went in this moment.
            None => {
                self.endpoint.release(now, conn, Fate::Discard);
                self.settle(conn, Outcome::Failed(Failure::GroupGone), later);
            }
        }
    }

    fn channel(&self, established: Established) -> Option<Channel> {
        let peer = *established.path.element()?;
        let remote = self.remotes.get(&peer.token()).cloned();
        let own = self.own.get(&established.receive.id)?;
        let seat = seat::take(&self.family).ok()?;
        Channel::new(established, peer, own.dmb.memory(), remote, seat, self.spin).ok()
    }
}

impl Own {
    /// Makes it as it was when it was new: as far as its peer has told of bytes, and it alone may read
    /// them again. Zeroing all of a large DMB would cost more than a short connection.
    fn zero(&mut self) -> bool {
        let memory = self.dmb.memory();
        let used = self.used.min(memory.len());
        self.used = usize::MAX;
        memory.part(0, used).map(|part| part.zero()).is_ok()
    }
}
