// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two hosts and what lies between them.
//!
//! Invariant: a queue pair delivers what was posted in order, each once, or fails it and all behind it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::id::{BufferId, ConnId, DeviceId};
use smc_proto::smcr::link::State;
use smc_proto::smcr::qp::{PeerEnd, Port};
use smc_proto::smcr::route::Work;
use smc_proto::smcr::{LinkGroup, LinkId, LinkView, Received, RtokenIndex, Wish};
use smc_wire::cdc::Smcr;
use smc_wire::id::Qpn;
use smc_wire::llc::{Body, Message, Version};

use crate::host::{Answer, CLIENT, FIRST, Host, Item, Options, SERVER, Side, port};
use crate::stream::Stream;

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

impl World {
    /// Two groups whose first links have queue pairs and RMBs, and know each other's ends.
    pub(crate) fn new(options: &Options) -> Self {
        let mut world = Self {
            now: Instant(0),
            hosts: [SERVER, CLIENT].map(|side| Host::new(options, side)),
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
        for stream in self.streams.iter().filter(|stream| stream.from == side && !stream.killed) {
            assert_eq!(stream.route.link, stream.told, "where the last wish leads");
        }
    }

    fn next(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    fn carry_out(&mut self, side: Side, wish: Wish) {
        let order = self.next();
        self.names += 1;
        let moved = match &wish {
            &Wish::MoveConnection { conn, to, .. } => Some((conn, to)),
            _ => None,
        };
        if let Wish::KillConnection { conn } = wish {
            self.kill_stream(side, conn);
        }
        self.hosts[side].carry_out(order, self.names, wish);
        if let Some((conn, to)) = moved {
            self.move_stream(side, conn, to);
        }
    }

    fn move_stream(&mut self, side: Side, conn: ConnId, to: LinkId) {
        let found = self.streams.iter().position(|s| (s.from, s.conn) == (side, conn));
        let Some(at) = found else { return };
        let stream = &mut self.streams[at];
        stream.told = to;
        let route = self.hosts[side].group.route(conn, stream.index);
        let items = stream.moved(at, route);
        let link = stream.route.link;
        self.post(side, link, items);
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
