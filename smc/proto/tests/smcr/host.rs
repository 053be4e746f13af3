// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One side: its ports, queue pairs and memory.
//!
//! Invariant: a write reaches memory only with a key of the link that it came over. A wish for a queue
//! pair that was destroyed panics.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use smc_proto::id::{BufferId, DeviceId};
use smc_proto::smcr::link::State;
use smc_proto::smcr::qp::{PeerEnd, Port, QueuePair, Rtr, Rts};
use smc_proto::smcr::{LinkGroup, LinkId, Params, Role, Rtoken, RtokenIndex, Wish, WorkId};
use smc_wire::id::{Mac, Psn, Qpn, Rkey, RoceGid};
use smc_wire::llc::Version;
use smc_wire::size::PathMtu;

/// An end of the world: 0 is the server, 1 the client.
pub(crate) type Side = usize;
pub(crate) const SERVER: Side = 0;
pub(crate) const CLIENT: Side = 1;

pub(crate) const RMB_LEN: usize = 16 << 10;
/// The RMB of the first connection on each side.
pub(crate) const FIRST: BufferId = BufferId(0);

/// A port of a side, by its number there.
pub(crate) fn port(side: Side, n: u8) -> Port {
    let id = u8::try_from(side).unwrap() << 4 | n;
    let mtu = PathMtu::from_bits("mtu", if side == SERVER { 5 } else { 3 }).unwrap();
    let gid = RoceGid([id; 16]);
    Port { device: DeviceId(id.into()), mac: Mac([id; 6]), gid, mtu }
}

/// Some end of a side's.
pub(crate) fn end_of(side: Side) -> PeerEnd {
    let Port { mac, gid, mtu, .. } = port(side, 1);
    PeerEnd { qpn: Qpn(77), psn: Psn(88), gid, mac, mtu }
}

/// What waits in a send queue.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Llc(WorkId, Vec<u8>),
    Write { bytes: Vec<u8>, rkey: Rkey, address: u64 },
    Cdc { stream: usize, seqno: u16, bytes: Vec<u8> },
}

#[derive(Debug)]
pub(crate) struct Qp {
    pub(crate) port: Port,
    pub(crate) own: QueuePair,
    pub(crate) rtr: Option<Rtr>,
    pub(crate) rts: Option<Rts>,
    pub(crate) failed: bool,
    /// Posted, not yet on the wire; with the order in which all was posted.
    pub(crate) queue: VecDeque<(u64, Item)>,
    /// Ended, not yet told.
    pub(crate) done: VecDeque<(u64, Item, bool)>,
    pub(crate) drain: bool,
}

#[derive(Debug, Clone, Copy)]
struct Mr {
    link: LinkId,
    buffer: BufferId,
    vaddr: u64,
}

/// What a host has still to tell its group.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Created(LinkId, Option<QueuePair>),
    Registered(LinkId, BufferId, Option<Rtoken>),
}

/// A side.
pub(crate) struct Host {
    pub(crate) group: LinkGroup,
    pub(crate) qps: BTreeMap<LinkId, Qp>,
    destroyed: BTreeSet<LinkId>,
    mrs: HashMap<Rkey, Mr>,
    pub(crate) memory: BTreeMap<BufferId, Vec<u8>>,
    pub(crate) answers: VecDeque<(u64, Answer)>,
    /// Wishes that tell something, in order.
    pub(crate) told: Vec<Wish>,
    pub(crate) up: BTreeSet<DeviceId>,
    /// Fail the next queue pair; fail registrations of these buffers.
    pub(crate) fail_qp: bool,
    pub(crate) fail_mr: BTreeSet<BufferId>,
}

/// How to make a world.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) version: Version,
    pub(crate) release: u8,
    pub(crate) max_links: u8,
    pub(crate) max_conns: u8,
    pub(crate) gateway: [Option<Mac>; 2],
    /// Numbers of the ports that are up on each side; the first one has the first link.
    pub(crate) ports: [Vec<u8>; 2],
}

impl Options {
    pub(crate) fn new(version: Version, server: &[u8], client: &[u8]) -> Self {
        Self {
            version,
            release: 0,
            max_links: 2,
            max_conns: 255,
            gateway: [None; 2],
            ports: [server.to_vec(), client.to_vec()],
        }
    }
}

impl Host {
    /// A side with its group, whose first link is wished.
    pub(crate) fn new(options: &Options, side: Side) -> Self {
        let role = if side == SERVER { Role::Server } else { Role::Client };
        let first = port(side, options.ports[side][0]);
        let id = [u8::from(side == CLIENT), 2, 3, 4];
        let mut params = Params::new(role, options.version, id, first);
        params.peer_release = options.release;
        params.max_links = options.max_links;
        params.max_conns = options.max_conns;
        params.gateway = options.gateway[side];
        Self {
            group: LinkGroup::new(&params),
            qps: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            mrs: HashMap::new(),
            memory: BTreeMap::new(),
            answers: VecDeque::new(),
            told: Vec::new(),
            up: options.ports[side].iter().map(|&n| port(side, n).device).collect(),
            fail_qp: false,
            fail_mr: BTreeSet::new(),
        }
    }

    pub(crate) fn qp(&mut self, link: LinkId) -> &mut Qp {
        self.qps.get_mut(&link).unwrap_or_else(|| panic!("a wish for {link:?}, which is no more"))
    }

    /// An RDMA write of the peer; whether the key fits.
    pub(crate) fn write(&mut self, link: LinkId, bytes: &[u8], rkey: Rkey, address: u64) -> bool {
        let Some(mr) = self.mrs.get(&rkey).filter(|mr| mr.link == link) else { return false };
        let at = usize::try_from(address - mr.vaddr).unwrap();
        self.memory.get_mut(&mr.buffer).unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        true
    }

    /// RMBs that the peer can write: shared, and not unshared since.
    fn shared(&self) -> BTreeSet<BufferId> {
        let mut shared = BTreeSet::new();
        for wish in &self.told {
            match wish {
                Wish::BufferReady { buffer, result: Ok(()) } => _ = shared.insert(*buffer),
                Wish::BufferFree { buffer } => _ = shared.remove(buffer),
                _ => {}
            }
        }
        shared
    }

    /// Each RMB that `there` shares has one entry here, with the right key for each active link; other
    /// entries are of RMBs that could not be shared in time, and no key of theirs is valid.
    pub(crate) fn check_keys(&self, there: &Self) {
        let active = || self.group.links().filter(|link| link.state == State::Active);
        let mut found = BTreeSet::new();
        for index in (0..255).map(RtokenIndex) {
            let keys: Vec<_> =
                active().map(|link| (link, self.group.rtoken(index, link.id))).collect();
            let mr = |key: Option<Rtoken>| key.and_then(|key| there.mrs.get(&key.rkey));
            let Some(first) = keys.iter().find_map(|(_, key)| mr(*key)) else { continue };
            assert!(found.insert(first.buffer), "two entries for {:?}", first.buffer);
            for (link, key) in keys {
                let mr = mr(key).unwrap_or_else(|| panic!("{:?}: {key:?}", first.buffer));
                assert_eq!((mr.buffer, mr.vaddr), (first.buffer, key.unwrap().vaddr));
                assert_eq!(there.qps[&mr.link].own.qpn, link.peer.unwrap().qpn);
            }
        }
        assert_eq!(found, there.shared());
    }

    /// Does what the group wishes; `order` and `name` are new numbers.
    pub(crate) fn carry_out(&mut self, order: u64, name: u32, wish: Wish) {
        match wish {
            Wish::CreateQp { link, port } => {
                assert!(!self.qps.contains_key(&link) && !self.destroyed.contains(&link));
                let own = QueuePair { qpn: Qpn(name), psn: Psn(name << 8 & 0xFF_FFFF) };
                let failed = std::mem::take(&mut self.fail_qp);
                let (queue, done) = Default::default();
                let qp = Qp { port, own, rtr: None, rts: None, failed, queue, done, drain: false };
                self.qps.insert(link, qp);
                let answer = Answer::Created(link, (!failed).then_some(own));
                self.answers.push_back((order, answer));
            }
            Wish::ModifyRtr { link, attributes } => self.qp(link).rtr = Some(attributes),
            Wish::ModifyRts { link, attributes } => {
                assert!(self.qp(link).rtr.is_some(), "ready to send before ready to receive");
                self.qp(link).rts = Some(attributes);
            }
            Wish::RegisterMr { link, buffer } => {
                self.qp(link);
                self.memory.entry(buffer).or_insert_with(|| vec![0; RMB_LEN]);
                let failed = self.fail_mr.contains(&buffer);
                let vaddr = u64::from(name) << 20;
                if !failed {
                    self.mrs.insert(Rkey(name), Mr { link, buffer, vaddr });
                }
                let rtoken = (!failed).then_some(Rtoken { rkey: Rkey(name), vaddr });
                self.answers.push_back((order, Answer::Registered(link, buffer, rtoken)));
            }
            Wish::DeregisterMr { link, buffer } => {
                self.qp(link);
                self.mrs.retain(|_, mr| (mr.link, mr.buffer) != (link, buffer));
                self.answers.retain(|(_, answer)| {
                    !matches!(answer, &Answer::Registered(l, b, _) if (l, b) == (link, buffer))
                });
            }
            Wish::PostSend { link, work, message } => {
                assert!(self.qp(link).rts.is_some(), "send before ready to send");
                self.qp(link).queue.push_back((order, Item::Llc(work, message)));
            }
            Wish::Drain { link } => self.qp(link).drain = true,
            Wish::DestroyQp { link } => {
                self.qp(link);
                self.qps.remove(&link);
                self.destroyed.insert(link);
                self.mrs.retain(|_, mr| mr.link != link);
            }
            told => self.told.push(told),
        }
    }
}
