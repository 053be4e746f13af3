// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Hosts, ports, queue pairs and memory, as far as a link group sees them.
//!
//! Invariant: a queue pair delivers what was posted in order, each once, or fails it and all behind it;
//! a write reaches memory only with a key of that link. A wish for a queue pair that was destroyed
//! panics.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::id::{BufferId, ConnId, DeviceId};
use smc_proto::smcr::link::State;
use smc_proto::smcr::qp::{PeerEnd, Port, QueuePair, Rtr, Rts};
use smc_proto::smcr::route::Work;
use smc_proto::smcr::{
    LinkGroup, LinkId, LinkView, Params, Received, Role, Rtoken, RtokenIndex, Wish, WorkId,
};
use smc_wire::cdc::Smcr;
use smc_wire::id::{Mac, Psn, Qpn, Rkey, RoceGid};
use smc_wire::llc::{Body, Message, Version};
use smc_wire::size::PathMtu;

use crate::stream::Stream;

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
    done: VecDeque<(u64, Item, bool)>,
    drain: bool,
}

#[derive(Debug, Clone, Copy)]
struct Mr {
    link: LinkId,
    buffer: BufferId,
    vaddr: u64,
}

/// What a host has still to tell its group.
#[derive(Debug, Clone, Copy)]
enum Answer {
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
    answers: VecDeque<(u64, Answer)>,
    /// Wishes that tell something, in order.
    pub(crate) told: Vec<Wish>,
    pub(crate) up: BTreeSet<DeviceId>,
    /// Fail the next queue pair; fail registrations of these buffers.
    pub(crate) fail_qp: bool,
    pub(crate) fail_mr: BTreeSet<BufferId>,
}

/// A message that reached its receiver.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) from: Side,
    /// The sender's link.
    pub(crate) link: LinkId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) received: Received,
}

/// Changes or swallows what is on the wire.
pub(crate) type Tamper = Box<dyn FnMut(Side, LinkId, &mut Vec<u8>) -> bool>;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    pub(crate) frames: Vec<Frame>,
    /// Pairs of ports without a path, server's first.
    pub(crate) cut: BTreeSet<(DeviceId, DeviceId)>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) tamper: Option<Tamper>,
    /// The peer's first RMB, as each side knows it.
    pub(crate) first_rtoken: [RtokenIndex; 2],
    order: u64,
    names: u32,
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

impl World {
    /// Two groups whose first links have queue pairs and RMBs, and know each other's ends.
    pub(crate) fn new(options: &Options) -> Self {
        let host = |side: Side| {
            let role = if side == SERVER { Role::Server } else { Role::Client };
            let first = port(side, options.ports[side][0]);
            let id = [u8::from(side == CLIENT), 2, 3, 4];
            let mut params = Params::new(role, options.version, id, first);
            params.peer_release = options.release;
            params.max_links = options.max_links;
            params.max_conns = options.max_conns;
            params.gateway = options.gateway[side];
            Host {
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
        };
        let mut world = Self {
            now: Instant(0),
            hosts: [host(SERVER), host(CLIENT)],
            frames: Vec::new(),
            cut: BTreeSet::new(),
            streams: Vec::new(),
            tamper: None,
            first_rtoken: [RtokenIndex(0); 2],
            order: 0,
            names: 0x100,
        };
        for side in [SERVER, CLIENT] {
            for &n in &options.ports[side][1..] {
                world.hosts[side].group.handle_port_up(world.now, port(side, n));
            }
            world.hosts[side].group.share_rmb(world.now, FIRST).unwrap();
            world.pump(side);
        }
        world.run();
        world
    }

    /// The handshake's end: both start.
    pub(crate) fn start(&mut self) {
        let ends = [SERVER, CLIENT].map(|side| {
            let group = &self.hosts[side].group;
            let link = group.links().next().unwrap();
            let qp = link.qp.unwrap();
            let rtoken = group.local_rtoken(FIRST, link.id).unwrap();
            let Port { mac, gid, mtu, .. } = link.port;
            (PeerEnd { qpn: qp.qpn, psn: qp.psn, gid, mac, mtu }, rtoken)
        });
        for side in [CLIENT, SERVER] {
            let (peer, rtoken) = ends[1 - side];
            let group = &mut self.hosts[side].group;
            let link = group.first_link();
            self.first_rtoken[side] = group.add_rtoken(link, rtoken).unwrap();
            group.start(self.now, peer).unwrap();
            self.pump(side);
        }
    }

    /// A world after its first contact.
    pub(crate) fn connected(options: &Options) -> Self {
        let mut world = Self::new(options);
        world.start();
        world.run_for(Duration::from_secs(5));
        for side in [SERVER, CLIENT] {
            assert!(
                world.told(side, &Wish::FirstContactDone),
                "side {side}: {:?}",
                world.hosts[side].told
            );
        }
        world
    }

    pub(crate) fn group(&mut self, side: Side) -> &mut LinkGroup {
        &mut self.hosts[side].group
    }

    pub(crate) fn told(&self, side: Side, wish: &Wish) -> bool {
        self.hosts[side].told.contains(wish)
    }

    /// The active links of a side.
    pub(crate) fn active(&self, side: Side) -> Vec<LinkView> {
        self.hosts[side].group.links().filter(|link| link.state == State::Active).collect()
    }

    /// The LLC messages since `from`, as who sent which: `S` or `C`, `!` for an answer.
    pub(crate) fn talk(&self, from: usize) -> Vec<String> {
        let llc = self.frames[from..].iter().filter(|frame| frame.bytes[0] != 0xFE);
        llc.map(|frame| {
            let message = Message::parse(&frame.bytes).unwrap();
            let who = if frame.from == SERVER { 'S' } else { 'C' };
            let mark = if message.response { "!" } else { "" };
            let name = message.kind().unwrap().to_string();
            format!("{who} {}{mark}", name.trim_end_matches(" v2"))
        })
        .collect()
    }

    /// Who sends what a link group posts, and how its queue pairs change.
    pub(crate) fn pump(&mut self, side: Side) {
        while let Some(wish) = self.hosts[side].group.poll_wish() {
            self.carry_out(side, wish);
        }
    }

    fn next(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    fn carry_out(&mut self, side: Side, wish: Wish) {
        let order = self.next();
        self.names += 1;
        let name = self.names;
        let host = &mut self.hosts[side];
        match wish {
            Wish::CreateQp { link, port } => {
                assert!(!host.qps.contains_key(&link) && !host.destroyed.contains(&link));
                let own = QueuePair { qpn: Qpn(name), psn: Psn(name << 8 & 0xFF_FFFF) };
                let failed = std::mem::take(&mut host.fail_qp);
                let (queue, done) = Default::default();
                let qp = Qp { port, own, rtr: None, rts: None, failed, queue, done, drain: false };
                host.qps.insert(link, qp);
                let answer = Answer::Created(link, (!failed).then_some(own));
                host.answers.push_back((order, answer));
            }
            Wish::ModifyRtr { link, attributes } => host.qp(link).rtr = Some(attributes),
            Wish::ModifyRts { link, attributes } => {
                assert!(host.qp(link).rtr.is_some(), "ready to send before ready to receive");
                host.qp(link).rts = Some(attributes);
            }
            Wish::RegisterMr { link, buffer } => {
                host.qp(link);
                host.memory.entry(buffer).or_insert_with(|| vec![0; RMB_LEN]);
                let failed = host.fail_mr.contains(&buffer);
                let vaddr = u64::from(name) << 20;
                if !failed {
                    host.mrs.insert(Rkey(name), Mr { link, buffer, vaddr });
                }
                let rtoken = (!failed).then_some(Rtoken { rkey: Rkey(name), vaddr });
                host.answers.push_back((order, Answer::Registered(link, buffer, rtoken)));
            }
            Wish::DeregisterMr { link, buffer } => {
                host.qp(link);
                host.mrs.retain(|_, mr| (mr.link, mr.buffer) != (link, buffer));
                host.answers.retain(|(_, answer)| {
                    !matches!(answer, &Answer::Registered(l, b, _) if (l, b) == (link, buffer))
                });
            }
            Wish::PostSend { link, work, message } => {
                assert!(host.qp(link).rts.is_some(), "send before ready to send");
                host.qp(link).queue.push_back((order, Item::Llc(work, message)));
            }
            Wish::Drain { link } => host.qp(link).drain = true,
            Wish::DestroyQp { link } => {
                host.qp(link);
                host.qps.remove(&link);
                host.destroyed.insert(link);
                host.mrs.retain(|_, mr| mr.link != link);
            }
            Wish::MoveConnection { conn, to, .. } => {
                host.told.push(wish);
                self.move_stream(side, conn, to);
            }
            told => {
                if let Wish::KillConnection { conn } = told {
                    self.kill_stream(side, conn);
                }
                self.hosts[side].told.push(told);
            }
        }
    }

    fn move_stream(&mut self, side: Side, conn: ConnId, to: LinkId) {
        let found = self.streams.iter().position(|s| (s.from, s.conn) == (side, conn));
        let Some(at) = found else { return };
        let stream = &mut self.streams[at];
        let route = self.hosts[side].group.route(conn, stream.index);
        let items = stream.moved(at, route.map(|route| (to, route)));
        self.post(side, to, items);
        self.push_stream(at);
    }

    fn kill_stream(&mut self, side: Side, conn: ConnId) {
        for stream in self.streams.iter_mut().filter(|s| s.ends[side] == conn) {
            stream.killed = true;
        }
    }

    /// Posts what a stream may send.
    pub(crate) fn push_stream(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        if stream.killed {
            return;
        }
        let (side, link) = (stream.from, stream.route.link);
        while let Some((chunk, work)) = self.streams[at].next() {
            let mut items = Vec::new();
            for work in work {
                items.push(match work {
                    Work::Write { rkey, address, .. } => {
                        Item::Write { bytes: chunk.clone(), rkey, address }
                    }
                    Work::Send(bytes) => {
                        let seqno = self.streams[at].seqno;
                        Item::Cdc { stream: at, seqno, bytes: bytes.to_vec() }
                    }
                });
            }
            self.post(side, link, items);
        }
    }

    fn post(&mut self, side: Side, link: LinkId, items: Vec<Item>) {
        for item in items {
            let order = self.next();
            if let Some(qp) = self.hosts[side].qps.get_mut(&link) {
                qp.queue.push_back((order, item));
            }
        }
    }

    /// All that can happen now, by the order in which it came up.
    fn choices(&self) -> Vec<(u64, Choice)> {
        let mut choices = Vec::new();
        for (side, host) in self.hosts.iter().enumerate() {
            choices.extend(host.answers.front().map(|(order, _)| (*order, Choice::Answer(side))));
            for (&link, qp) in &host.qps {
                let queue = qp.queue.front().map(|(order, _)| (*order, Choice::Send(side, link)));
                let done = qp.done.front().map(|(order, ..)| (*order, Choice::Done(side, link)));
                choices.extend(queue.into_iter().chain(done));
                if qp.drain && qp.queue.is_empty() && qp.done.is_empty() {
                    choices.push((u64::MAX, Choice::Drained(side, link)));
                }
            }
        }
        choices
    }

    /// Lets one thing happen: the first that came up, or the one that `pick` says; whether there was
    /// one.
    pub(crate) fn step(&mut self, pick: Option<usize>) -> bool {
        let choices = self.choices();
        let chosen = match pick {
            Some(pick) if !choices.is_empty() => choices.get(pick % choices.len()),
            _ => choices.iter().min_by_key(|(order, _)| *order),
        };
        let Some(&(_, choice)) = chosen else { return false };
        match choice {
            Choice::Answer(side) => self.answer(side),
            Choice::Send(side, link) => self.transmit(side, link),
            Choice::Done(side, link) => self.complete(side, link),
            Choice::Drained(side, link) => {
                self.hosts[side].qp(link).drain = false;
                self.hosts[side].group.handle_drained(self.now, link);
                self.pump(side);
            }
        }
        true
    }

    fn answer(&mut self, side: Side) {
        let host = &mut self.hosts[side];
        match host.answers.pop_front().unwrap().1 {
            Answer::Created(link, qp) => host.group.handle_qp_created(self.now, link, qp),
            Answer::Registered(link, buffer, rtoken) => {
                host.group.handle_mr_registered(self.now, link, buffer, rtoken);
            }
        }
        self.pump(side);
    }

    /// The queue pair that `side`'s `link` reaches, if it does.
    fn target(&self, side: Side, link: LinkId) -> Option<LinkId> {
        let here = self.hosts[side].qps.get(&link)?;
        let rtr = here.rtr.filter(|_| !here.failed && here.rts.is_some())?;
        let there = &self.hosts[1 - side];
        let (&to, peer) = there.qps.iter().find(|(_, qp)| qp.own.qpn == rtr.dest_qpn)?;
        let back = peer.rtr.filter(|_| !peer.failed)?;
        let ports = [here.port.device, peer.port.device];
        let key = if side == SERVER { (ports[0], ports[1]) } else { (ports[1], ports[0]) };
        let is_up = self.hosts[side].up.contains(&ports[0]) && there.up.contains(&ports[1]);
        let fits = back.dest_qpn == here.own.qpn
            && back.rq_psn == here.rts.unwrap().sq_psn
            && rtr.path_mtu == back.path_mtu;
        (fits && is_up && !self.cut.contains(&key)).then_some(to)
    }

    /// The first thing in a send queue reaches the peer, or fails with all behind it.
    fn transmit(&mut self, side: Side, link: LinkId) {
        let target = self.target(side, link);
        let (order, item) = self.hosts[side].qp(link).queue.pop_front().unwrap();
        let ok = match (target, &item) {
            (Some(to), Item::Write { bytes, rkey, address }) => {
                self.hosts[1 - side].write(to, bytes, *rkey, *address)
            }
            (Some(to), Item::Llc(_, bytes) | Item::Cdc { bytes, .. }) => {
                self.deliver(side, link, to, bytes.clone());
                true
            }
            (None, _) => false,
        };
        let Some(qp) = self.hosts[side].qps.get_mut(&link) else { return };
        qp.done.push_back((order, item, ok));
        if !ok {
            qp.failed = true;
            let flushed = qp.queue.drain(..).map(|(order, item)| (order, item, false));
            qp.done.extend(flushed);
        }
    }

    fn deliver(&mut self, side: Side, link: LinkId, to: LinkId, mut bytes: Vec<u8>) {
        if self.tamper.as_mut().is_some_and(|tamper| !tamper(side, link, &mut bytes)) {
            return;
        }
        let received = self.hosts[1 - side].group.handle_recv(self.now, to, &bytes);
        self.frames.push(Frame { from: side, link, bytes, received });
        if let Received::Cdc(cdc) = received {
            self.take_cdc(1 - side, &cdc);
        }
        self.pump(1 - side);
    }

    /// Sends bytes as if `side` had posted them on `link`.
    pub(crate) fn inject(&mut self, side: Side, link: LinkId, bytes: &[u8]) -> Received {
        let to = self.target(side, link).expect("the link leads nowhere");
        let received = self.hosts[1 - side].group.handle_recv(self.now, to, bytes);
        self.pump(1 - side);
        received
    }

    /// Sends a message as if `side` had posted it on `link`.
    pub(crate) fn say(&mut self, side: Side, link: LinkId, response: bool, body: Body) -> Received {
        let version = if self.frames[0].bytes[0] & 0xF0 == 0 { Version::V1 } else { Version::V2 };
        let mut bytes = [0; smc_wire::llc::MAX_LEN];
        let len = Message { version, response, body }.emit(&mut bytes).unwrap();
        self.inject(side, link, &bytes[..len])
    }

    fn take_cdc(&mut self, side: Side, cdc: &Smcr) {
        let stream = self.streams.iter_mut().find(|s| s.from != side && s.token == cdc.token);
        let Some(stream) = stream else { return };
        let memory = &self.hosts[side].memory[&stream.rmb];
        stream.take(cdc, memory);
    }

    fn complete(&mut self, side: Side, link: LinkId) {
        let (_, item, ok) = self.hosts[side].qp(link).done.pop_front().unwrap();
        match item {
            Item::Llc(work, _) => self.hosts[side].group.handle_sent(self.now, link, work, ok),
            Item::Cdc { stream, seqno, .. } if ok => {
                self.streams[stream].completed(link, seqno);
                self.push_stream(stream);
            }
            Item::Write { .. } if ok => {}
            _ => self.hosts[side].group.handle_link_failed(self.now, link),
        }
        self.pump(side);
    }

    /// Lets all happen that can without time passing.
    pub(crate) fn run(&mut self) {
        for _ in 0..100_000 {
            if !self.step(None) {
                return;
            }
        }
        panic!("the ends do not come to rest");
    }

    /// Lets time pass up to the next deadline, at most to `end`; whether there was one.
    pub(crate) fn tick(&mut self, end: Instant) -> bool {
        let due = self.hosts.iter().filter_map(|host| host.group.poll_timeout()).min();
        let Some(due) = due.filter(|&due| due <= end) else { return false };
        self.now = self.now.max(due);
        for side in [SERVER, CLIENT] {
            if self.hosts[side].group.poll_timeout().is_some_and(|at| at <= self.now) {
                self.hosts[side].group.handle_timeout(self.now);
                self.pump(side);
            }
        }
        true
    }

    /// Lets all happen for a while.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        self.run();
        for _ in 0..100_000 {
            if !self.tick(end) {
                self.now = end;
                return;
            }
            self.run();
        }
        panic!("a deadline does not go away");
    }

    /// A port comes up or goes down.
    pub(crate) fn set_port(&mut self, side: Side, n: u8, up: bool) {
        let port = port(side, n);
        let host = &mut self.hosts[side];
        if up {
            host.up.insert(port.device);
            host.group.handle_port_up(self.now, port);
        } else {
            host.up.remove(&port.device);
            host.group.handle_port_down(self.now, port.device);
        }
        self.pump(side);
    }

    /// Shares an RMB and waits for the answer.
    pub(crate) fn share(&mut self, side: Side, buffer: BufferId) {
        self.hosts[side].group.share_rmb(self.now, buffer).unwrap();
        self.pump(side);
        self.run();
        assert!(self.told(side, &Wish::BufferReady { buffer, result: Ok(()) }));
    }

    /// Whether the groups know each other's links and RMBs in the same way.
    pub(crate) fn check_agreement(&self) {
        let [server, client] = &self.hosts;
        let pairs = |host: &Host, swap: bool| -> HashSet<(Qpn, Qpn, u8)> {
            let links = host.group.links().filter(|link| link.state == State::Active);
            links
                .map(|link| {
                    let (own, peer) = (link.qp.unwrap().qpn, link.peer.unwrap().qpn);
                    if swap { (peer, own, link.number) } else { (own, peer, link.number) }
                })
                .collect()
        };
        assert_eq!(pairs(server, false), pairs(client, true), "links");
        for (here, there) in [(server, client), (client, server)] {
            here.check_keys(there);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Choice {
    Answer(Side),
    Send(Side, LinkId),
    Done(Side, LinkId),
    Drained(Side, LinkId),
}

impl Host {
    pub(crate) fn qp(&mut self, link: LinkId) -> &mut Qp {
        self.qps.get_mut(&link).unwrap_or_else(|| panic!("a wish for {link:?}, which is no more"))
    }

    /// An RDMA write of the peer; whether the key fits.
    fn write(&mut self, link: LinkId, bytes: &[u8], rkey: Rkey, address: u64) -> bool {
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
    fn check_keys(&self, there: &Self) {
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
}
