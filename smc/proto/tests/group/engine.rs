// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What carries out the groups' wishes in these tests: memory that knows who used it.
//!
//! Invariant: a buffer that is given to a connection is there, zeroed and nobody else's; anything
//! else fails the test.

use std::collections::BTreeMap;

use smc_proto::Instant;
use smc_proto::group::{
    Acquired, Ask, Buffer, BufferKind, Fate, Groups, LinkPeer, Peer, RegisterError, Registered,
    Role, SmcdPeer, SmcrPeer, Version, Wish,
};
use smc_proto::id::{BufferId, ConnId, DeviceId, GroupId};
use smc_proto::smcd::dmb::Dmb;
use smc_proto::stats::Stats;
use smc_wire::id::{DmbToken, IsmGid, Mac, PeerId, Qpn, RoceGid};
use smc_wire::size::BufferSize;

/// A buffer's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) group: GroupId,
    pub(crate) kind: BufferKind,
    pub(crate) size: BufferSize,
    pub(crate) dmb: Dmb,
    pub(crate) dirty: bool,
    pub(crate) owner: Option<ConnId>,
}

/// The groups with their statistics, and what was made of their wishes.
pub(crate) struct Engine {
    pub(crate) groups: Groups,
    pub(crate) stats: Stats,
    pub(crate) now: Instant,
    pub(crate) memory: BTreeMap<BufferId, Memory>,
    /// Wishes that [`Self::run`] does not carry out itself, for the test to look at.
    pub(crate) seen: Vec<Wish>,
    /// Registrations larger than this fail with the error.
    pub(crate) refuse: Option<(u32, RegisterError)>,
    tokens: u64,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Self {
            groups: Groups::new(smc_proto::group::Limits::default()),
            stats: Stats::default(),
            now: Instant(0),
            memory: BTreeMap::new(),
            seen: Vec::new(),
            refuse: None,
            tokens: 0,
        }
    }

    /// Carries out all wishes; gives the registrations that came to a result for a connection.
    pub(crate) fn run(&mut self) -> Vec<Registered> {
        let mut results = Vec::new();
        while let Some(wish) = self.groups.poll_wish() {
            match wish {
                Wish::Register { group, buffer, kind, size } => {
                    results.extend(self.register(group, buffer, kind, size));
                }
                Wish::Zero { buffer, .. } => {
                    self.zero(buffer);
                    self.groups.handle_zeroed(buffer);
                }
                Wish::Free { buffer, .. } => {
                    self.free(buffer);
                }
                Wish::AddVlan { device, vlan } => {
                    self.seen.push(wish);
                    self.groups.handle_vlan(device, vlan, true);
                }
                _ => self.seen.push(wish),
            }
        }
        results
    }

    /// One registration, refused or not.
    pub(crate) fn register(
        &mut self,
        group: GroupId,
        buffer: BufferId,
        kind: BufferKind,
        size: BufferSize,
    ) -> Option<Registered> {
        let refused = self.refuse.filter(|(limit, _)| size.bytes() > *limit);
        let outcome = match refused {
            Some((_, error)) => Err(error),
            None => Ok(self.allocate(group, buffer, kind, size)),
        };
        let result = self.groups.handle_registered(buffer, outcome, &mut self.stats);
        if let Some(Registered { conn, acquired: Acquired::Ready(got), .. }) = result {
            self.hand_out(conn, got);
        }
        result
    }

    pub(crate) fn allocate(
        &mut self,
        group: GroupId,
        buffer: BufferId,
        kind: BufferKind,
        size: BufferSize,
    ) -> Dmb {
        self.tokens += 1;
        let index = u16::try_from(buffer.0).unwrap();
        let dmb = Dmb { token: DmbToken(self.tokens), index };
        let memory = Memory { group, kind, size, dmb, dirty: false, owner: None };
        assert!(self.memory.insert(buffer, memory).is_none(), "{buffer:?} exists already");
        dmb
    }

    /// The connection gets the buffer and writes it.
    pub(crate) fn hand_out(&mut self, conn: ConnId, got: Buffer) {
        let memory = self.memory.get_mut(&got.id).unwrap();
        assert!(!memory.dirty, "{got:?} was not zeroed");
        assert_eq!(memory.owner, None, "{got:?} has an owner");
        assert_eq!((memory.size, memory.dmb), (got.size, got.dmb));
        memory.owner = Some(conn);
        memory.dirty = true;
    }

    pub(crate) fn zero(&mut self, buffer: BufferId) {
        let memory = self.memory.get_mut(&buffer).unwrap();
        assert_eq!(memory.owner, None, "{buffer:?} is zeroed under its owner");
        memory.dirty = false;
    }

    pub(crate) fn free(&mut self, buffer: BufferId) {
        let memory = self.memory.remove(&buffer).unwrap();
        assert_eq!(memory.owner, None, "{buffer:?} is freed under its owner");
    }

    /// A buffer for `bytes`, all wishes carried out.
    pub(crate) fn acquire(
        &mut self,
        group: GroupId,
        conn: ConnId,
        kind: BufferKind,
        bytes: u32,
    ) -> Acquired {
        let first = self.groups.acquire(group, conn, kind, bytes, &mut self.stats).unwrap();
        if let Acquired::Ready(buffer) = first {
            self.hand_out(conn, buffer);
        }
        let results = self.run();
        let last = results.into_iter().rfind(|result| result.conn == conn);
        last.map_or(first, |result| result.acquired)
    }

    /// A receive buffer of 64 KiB, which must be had.
    pub(crate) fn receive_buffer(&mut self, group: GroupId, conn: ConnId) -> Buffer {
        match self.acquire(group, conn, BufferKind::Receive, 65536) {
            Acquired::Ready(buffer) => buffer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn leave(&mut self, group: GroupId, conn: ConnId, fate: Fate) {
        self.disown(conn);
        self.groups.leave(self.now, group, conn, fate, &mut self.stats).unwrap();
        self.run();
    }

    pub(crate) fn disown(&mut self, conn: ConnId) {
        for memory in self.memory.values_mut().filter(|memory| memory.owner == Some(conn)) {
            memory.owner = None;
        }
    }

    /// Lets time pass as the groups want it, up to `now`.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some(due) = self.groups.poll_timeout().filter(|due| *due <= now) {
            self.now = due;
            self.groups.handle_timeout(due);
        }
        self.now = now;
        self.run();
    }

    pub(crate) fn take_seen(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.seen)
    }
}

/// An ask for SMC-D over an emulated device, version 2, no VLAN.
pub(crate) fn smcd(role: Role, gid: u64, ext: u64) -> Ask {
    let gid = IsmGid { gid, ext };
    let peer = Peer::Smcd(SmcdPeer { device: DeviceId(1), emulated: true, gid });
    Ask { peer, role, version: Version::V2, vlan: 0 }
}

/// An ask for SMC-D over a real ISM device, version 1.
pub(crate) fn native(role: Role, gid: u64, vlan: u16) -> Ask {
    let gid = IsmGid { gid, ext: 0 };
    let peer = Peer::Smcd(SmcdPeer { device: DeviceId(2), emulated: false, gid });
    Ask { peer, role, version: Version::V1, vlan }
}

/// An ask for SMC-R.
pub(crate) fn smcr(role: Role, version: Version, peer: u8, link: LinkPeer) -> Ask {
    let peer = SmcrPeer { id: PeerId([peer; 8]), link, max_conns: 255 };
    Ask { peer: Peer::Smcr(peer), role, version, vlan: 0 }
}

/// The end of a link.
pub(crate) fn link(gid: u8, mac: u8, qpn: u32) -> LinkPeer {
    LinkPeer { gid: RoceGid([gid; 16]), mac: Mac([mac; 6]), qpn: Qpn(qpn) }
}
