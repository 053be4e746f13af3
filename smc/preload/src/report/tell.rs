// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What there is to be told.
//!
//! Invariant: each lock is held for one look at one thing; nothing that is told is a promise of the next
//! moment.

use std::collections::{HashMap, HashSet};
use std::ffi::c_int;
use std::net::SocketAddr;
use std::sync::Arc;

use smc_proto::conn::Ready;
use smc_proto::group::{GroupInfo, Peer, Version};
use smc_proto::id::GroupId;
use smc_snapshot::{
    Carrier, Connection, Cursors, Device, Fallback, Gid, Group, Joined, Process, Record, Role,
    Smcd, VERSION,
};
use smc_socket::Stack;
use smc_wire::cdc::Cursor;
use smc_wire::id::IsmGid;

use super::client::{Answer, Gone};
use crate::descriptor::borrow;
use crate::fallen::{self, What};
use crate::process;
use crate::settings::SETTINGS;
use crate::sock::{Sock, Stage};
use crate::table::{self, File};

/// `enum smc_state` of what has no connection of SMC's.
const ACTIVE: u8 = 1;
const INIT: u8 = 2;
const LISTEN: u8 = 10;

/// Connections that are told of.
const MAX: usize = 1 << 16;

/// Tells everything.
pub(super) fn all(answer: &mut Answer<'_>) -> Result<(), Gone> {
    process::look_for_daemon();
    let (joined, stack) = process::standing();
    let connections = Connections::find();
    let omitted = connections.len().saturating_sub(MAX);
    answer.say(&Record::Process(this_process(joined, omitted)))?;
    let groups = stack.as_ref().map(groups).unwrap_or_default();
    if let Some(stack) = &stack {
        answer.say(&Record::Device(device(stack)))?;
    }
    for group in &groups {
        answer.say(&Record::Group(told(group)))?;
    }
    for connection in connections.told(&groups).take(MAX) {
        answer.say(&Record::Connection(Box::new(connection)))?;
    }
    if let Some(stack) = &stack {
        answer.say(&Record::Stats(Box::new(stack.stats())))?;
    }
    for (role, why, count) in fallen::counts() {
        let fallback = Fallback { role, reason: why.code, peer: why.peer, count };
        answer.say(&Record::Fallback(fallback))?;
    }
    answer.say(&Record::End)?;
    Ok(())
}

fn this_process(joined: Joined, omitted: usize) -> Process {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let cut = |text: &str, len| text.chars().take(len).collect();
    Process {
        version: VERSION,
        pid: std::process::id(),
        name: cut(name.trim_end(), 64),
        socket: cut(&SETTINGS.socket.to_string_lossy(), 1024),
        joined,
        omitted: omitted as u64,
    }
}

fn gid(gid: IsmGid) -> Gid {
    Gid { gid: gid.gid, ext: gid.ext }
}

fn device(stack: &Stack) -> Device {
    let device = stack.with_endpoint(|endpoint| {
        let eid = endpoint.config().eids.ueids().first().map(|eid| eid.eid().to_string());
        let device = endpoint.inventory().ism().first();
        device.map_or_else(Device::default, |device| Device {
            gid: gid(device.gid),
            chid: device.chid.0,
            max_dmb_bytes: device.max_dmb.into(),
            eid: eid.unwrap_or_default(),
        })
    });
    // A child may have none.
    device.unwrap_or_default()
}

fn groups(stack: &Stack) -> Vec<GroupInfo> {
    stack.with_endpoint(|endpoint| endpoint.groups().infos().collect()).unwrap_or_default()
}

fn peer_gid(group: &GroupInfo) -> Gid {
    match group.ask.peer {
        Peer::Smcd(peer) => gid(peer.gid),
        Peer::Smcr(_) => Gid::default(),
    }
}

fn told(group: &GroupInfo) -> Group {
    Group {
        id: group.id.0,
        version: match group.ask.version {
            Version::V1 => 1,
            Version::V2 => 2,
        },
        peer_gid: peer_gid(group),
        connections: u32::try_from(group.connections).unwrap_or(u32::MAX),
        dmb_bytes: group.receive_bytes,
        send_buffer_bytes: group.send_bytes,
        ending: group.ending,
    }
}

// Connections

/// What the process's descriptors are.
struct Connections {
    /// In the table, once each.
    known: Vec<Arc<File>>,
    /// Plain TCP and listeners, by a descriptor that is theirs now.
    fallen: Vec<(c_int, What)>,
}

impl Connections {
    fn find() -> Self {
        let mut known = Vec::new();
        let mut seen = HashSet::new();
        for fd in table::known(0, c_int::MAX) {
            if let Some(file) = table::get(fd)
                && seen.insert(Arc::as_ptr(&file))
            {
                known.push(file);
            }
        }
        let mut remembered: HashMap<_, _> = fallen::remembered().collect();
        let descriptors = if remembered.is_empty() { Vec::new() } else { descriptors() };
        let take = |fd| Some((fd, remembered.remove(&inode(fd)?)?));
        let fallen = descriptors.into_iter().filter_map(take).collect();
        Self { known, fallen }
    }

    fn len(&self) -> usize {
        self.known.len() + self.fallen.len()
    }

    fn told(&self, groups: &[GroupInfo]) -> impl Iterator<Item = Connection> {
        let known = self.known.iter().filter_map(|file| match &**file {
            File::Sock(sock) => of_sock(sock, groups),
            File::Epoll(_) => None,
        });
        known.chain(self.fallen.iter().filter_map(|(fd, what)| of_fallen(*fd, *what)))
    }
}

/// The process's open descriptors.
fn descriptors() -> Vec<c_int> {
    let all = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn inode(fd: c_int) -> Option<u64> {
    rustix::fs::fstat(borrow(fd)).ok().map(|stat| stat.st_ino)
}

fn address(address: Option<rustix::net::SocketAddrAny>) -> Option<SocketAddr> {
    let address = SocketAddr::try_from(address?).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// What the kernel says of the socket at `fd`.
fn of_socket(fd: c_int) -> Option<Connection> {
    let stat = rustix::fs::fstat(borrow(fd)).ok()?;
    let local = address(rustix::net::getsockname(borrow(fd)).ok())?;
    let peer = address(rustix::net::getpeername(borrow(fd)).ok().flatten());
    let none = Connection::default();
    let peer = peer.unwrap_or(none.peer);
    Some(Connection { uid: stat.st_uid, inode: stat.st_ino, local, peer, ..none })
}

fn of_fallen(fd: c_int, what: What) -> Option<Connection> {
    let socket = of_socket(fd)?;
    match what {
        What::Listener(_) => Some(Connection { state: LISTEN, ..socket }),
        // One that was not connected after all has no peer.
        What::Connection(role, why) => (socket.peer.port() != 0).then(|| {
            let carrier = Carrier::Tcp { reason: why.code, peer: why.peer };
            Connection { state: ACTIVE, role, carrier, ..socket }
        }),
    }
}

fn of_sock(sock: &Sock, groups: &[GroupInfo]) -> Option<Connection> {
    let role = if sock.is_server() { Role::Server } else { Role::Client };
    let smcd = match sock.stage() {
        Stage::Connecting | Stage::Fresh | Stage::Handshake => {
            return Some(Connection { state: INIT, role, ..of_socket(sock.number())? });
        }
        Stage::Smc => sock.smc()?.info().smc?,
        // Of TCP is told elsewhere, and of the other two there is nothing left.
        Stage::Late | Stage::Tcp | Stage::Ended | Stage::Broken => return None,
    };
    let state = smcd.state as u8;
    let mut carried = smc(&smcd);
    let group = groups.iter().find(|group| group.id == GroupId(carried.group));
    carried.board = sock.is_searched();
    carried.peer_gid = group.map(peer_gid).unwrap_or_default();
    carried.shutdown = sock.smc().map(|engine| shutdown(engine.readiness(), sock)).unwrap_or(0);
    let carrier = Carrier::Smcd(carried);
    Some(Connection { state, role, carrier, ..of_socket(sock.number())? })
}

/// 1: no more is received, 2: no more is sent.
fn shutdown(ready: Ready, sock: &Sock) -> u8 {
    u8::from(ready.contains(Ready::READ_CLOSED)) | if sock.is_shut() { 2 } else { 0 }
}

fn smc(smcd: &smc_socket::Smc) -> Smcd {
    let at = |cursor: Cursor| (cursor.wrap, cursor.count);
    let info = &smcd.cursors;
    Smcd {
        group: smcd.group.0,
        token: smcd.token.0,
        peer_token: smcd.peer_token.0,
        ring: info.ring,
        peer_ring: info.peer_ring,
        unread: smcd.unread,
        unfinished: smcd.unfinished,
        sent: smcd.sent,
        received: smcd.received,
        cursors: Cursors {
            rx_prod: at(info.rx_prod),
            rx_cons: at(info.rx_cons),
            rx_flags: (info.rx_flags.0, info.rx_state.0),
            tx_prod: at(info.tx_prod),
            tx_cons: at(info.tx_cons),
            tx_flags: (info.tx_flags.0, info.tx_state.0),
            tx_prep: at(info.tx_prep),
            tx_sent: at(info.tx_sent),
            tx_fin: at(info.tx_fin),
        },
        ..Smcd::default()
    }
}
