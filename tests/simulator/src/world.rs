// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The world: ends, the fabric between them, TCP, and time.
//!
//! Invariant: everything that happens depends on the set-up, the script and the seed alone.

use std::time::Duration;

use smc_proto::Instant;
use smc_proto::handshake::inventory::RocePort;
use smc_proto::id::ConnId;
use smc_proto::smcd::event::DeviceEvent;
use smc_wire::id::DmbToken;

use crate::coverage::{Coverage, Kind};
use crate::host::{Host, ISM, Setup};
use crate::ism::Ism;
use crate::model::{End, Stream};
use crate::roce::{Place, Roce, Work};
use crate::schedule::Schedule;
use crate::script::{Fault, Side, Step};
use crate::socket::{Pair, Phase, Socket};

/// Connections that a script can have.
const MAX_CONNS: usize = 48;
/// How often a driver looks at all its DMBs, in case that a signal was lost.
const LOOK: Duration = Duration::from_millis(10);

/// What a connection is called before it is accepted.
pub(crate) const NOT_ACCEPTED: ConnId = ConnId(0);

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A server that was late accepts.
    Accept { conn: usize },
    /// TCP brings bytes.
    Tcp { conn: usize, side: usize, bytes: Vec<u8> },
    /// TCP brings a reset.
    TcpReset { conn: usize, side: usize },
    /// The fabric brings a signal for a DMB of an end.
    Signal { host: usize, token: DmbToken },
    /// The driver of an end looks at all its DMBs.
    Look { host: usize },
    /// The fabric brings an event to an end's device.
    Device { host: usize, event: DeviceEvent },
    /// A queue pair sends what is first in its queue, tried since then.
    Transmit { qpn: u32, since: Instant },
    /// A work request of a queue pair completes.
    Complete { qpn: u32, work: Work, ok: bool },
    /// A link's queue pair says that it failed.
    LinkFailed { place: Place },
}

/// The world.
pub struct World {
    pub(crate) hosts: Vec<Host>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) ism: Ism,
    pub(crate) roce: Roce,
    pub(crate) schedule: Schedule<Event>,
    pub(crate) random: fastrand::Rng,
    pub(crate) coverage: Coverage,
    /// When TCP brings the next bytes of a direction at the earliest: it keeps the order.
    pub(crate) tcp_free: Vec<[Instant; 2]>,
    /// Whether to print what happens.
    pub trace: bool,
    /// What was not as TCP would have it.
    pub(crate) wrong: Option<String>,
}

impl World {
    /// Ends as `setups` say.
    ///
    /// # Errors
    /// If a set-up cannot be.
    pub fn new(setups: &[Setup], seed: u64) -> Result<Self, String> {
        let hosts = setups.iter().zip(0..).map(|(setup, n)| Host::new(n, *setup));
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            pairs: Vec::new(),
            ism: Ism::default(),
            roce: Roce::default(),
            schedule: Schedule::default(),
            random: fastrand::Rng::with_seed(seed),
            coverage: Coverage::default(),
            tcp_free: Vec::new(),
            trace: false,
            wrong: None,
        })
    }

    /// The time.
    pub(crate) fn now(&self) -> Instant {
        self.schedule.now()
    }

    /// Prints what happens, if somebody wants to see it.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>15?}  {}", Duration::from_nanos(self.now().0), what());
        }
    }

    /// A short while: how long something takes to reach another end.
    pub(crate) fn delay(&mut self) -> Duration {
        let most = if self.random.u8(..20) == 0 { 2_000_000 } else { 20_000 };
        Duration::from_nanos(self.random.u64(..most))
    }

    /// What an application was told; the first wrong thing is kept.
    pub(crate) fn judge(&mut self, conn: usize, judged: Result<(), String>) {
        if let Err(what) = judged {
            let now = Duration::from_nanos(self.now().0);
            self.wrong.get_or_insert(format!("connection {conn}, at {now:?}: {what}"));
        }
    }

    /// Runs a script, then lets everything come to its end.
    ///
    /// # Errors
    /// What was not as TCP would have it, in words.
    pub fn run(&mut self, script: &[Step]) -> Result<(), String> {
        for step in script {
            self.note(|| format!("step {step:?}"));
            self.step(step);
            self.pump();
            if let Some(wrong) = self.wrong.take() {
                return Err(format!("after {step:?}: {wrong}"));
            }
        }
        self.finish()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Connect { from, to } => self.connect(from.into(), to.into()),
            Step::Wait(time) => self.pass(time),
            Step::Fault { end, fault } => {
                let host = usize::from(end) % self.hosts.len();
                if self.hosts[host].alive {
                    self.fault(host, fault);
                }
            }
            Step::Send { conn, side, bytes, more } => {
                self.with(conn, side, |world, conn, side| world.send(conn, side, bytes, more));
            }
            Step::Urgent { conn, side, bytes } => {
                self.with(conn, side, |world, conn, side| world.send_urgent(conn, side, bytes));
            }
            Step::Receive { conn, side, bytes, peek } => {
                self.with(conn, side, |world, conn, side| {
                    world.receive(conn, side, bytes, peek);
                });
            }
            Step::ReceiveUrgent { conn, side } => self.with(conn, side, Self::receive_urgent),
            Step::HalfClose { conn, side } => self.with(conn, side, Self::half_close),
            Step::Close { conn, side } => self.with(conn, side, Self::close),
        }
    }

    /// Does something at a side whose application is there.
    fn with(&mut self, conn: u8, side: Side, act: impl FnOnce(&mut Self, usize, usize)) {
        let side = side as usize;
        if let Some(conn) = usize::from(conn).checked_rem(self.pairs.len()) {
            let socket = &self.pairs[conn].sides[side];
            if !socket.closed && self.hosts[socket.host].alive {
                act(self, conn, side);
            }
        }
    }

    fn connect(&mut self, from: usize, to: usize) {
        let from = from % self.hosts.len();
        let to = (from + 1 + to % (self.hosts.len() - 1)) % self.hosts.len();
        if !self.hosts[from].alive || !self.hosts[to].alive || self.pairs.len() == MAX_CONNS {
            return;
        }
        let now = self.now();
        let [mut client, mut server] = [from, to].map(|host| self.hosts[host].route);
        (client.peer, server.peer) = (server.local, client.local);
        // A server may be late for a client that does not wait for long.
        let patient = self.hosts[from].endpoint.config().patience.is_none();
        let server = match patient || self.random.bool() {
            true => self.hosts[to].endpoint.accept(now, &server),
            false => self.accept_later(),
        };
        let client = self.hosts[from].endpoint.connect(now, &client);
        let seed = self.pairs.len() as u64 * 2000;
        self.pairs.push(Pair {
            sides: [Socket::new(from, client), Socket::new(to, server)],
            streams: [Stream::new(seed), Stream::new(seed + 1000)],
        });
        self.tcp_free.push([now; 2]);
    }

    /// The next connection is accepted when its Proposal may have come, or has been withdrawn.
    fn accept_later(&mut self) -> ConnId {
        let conn = self.pairs.len();
        let delay = Duration::from_nanos(self.random.u64(..150_000));
        self.schedule.after(delay, Event::Accept { conn });
        NOT_ACCEPTED
    }

    fn accept(&mut self, conn: usize) {
        let now = self.now();
        let [client, server] = [0, 1].map(|side| self.pairs[conn].sides[side].host);
        if self.hosts[server].alive && matches!(self.pairs[conn].sides[1].phase, Phase::Handshake) {
            let mut route = self.hosts[server].route;
            route.peer = self.hosts[client].route.local;
            self.pairs[conn].sides[1].id = self.hosts[server].endpoint.accept(now, &route);
            self.feed(conn, 1);
        }
    }

    fn fault(&mut self, host: usize, fault: Fault) {
        self.coverage.saw(Kind::Fault, format!("{fault:?}"));
        match fault {
            Fault::Kill => {
                self.hosts[host].alive = false;
                for pair in self.pairs.iter_mut().filter(|pair| pair.concerns(host)) {
                    pair.break_for("an end died");
                    for side in pair.sides.iter_mut().filter(|side| side.host == host) {
                        side.phase = Phase::Over;
                    }
                }
                self.roce.remove(host);
                self.device_gone(host);
            }
            Fault::DeviceGone => {
                let now = self.now();
                self.break_pairs(host, "a device was removed");
                self.hosts[host].endpoint.remove_ism(now, ISM);
                while let Some(port) = self.hosts[host].ports.pop() {
                    self.hosts[host].endpoint.remove_port(now, port.id);
                    self.hosts[host].down.insert(port.id);
                }
                self.pump();
                self.device_gone(host);
            }
            Fault::NoMemory => self.hosts[host].no_memory = 3,
            Fault::SignalsLost => {
                self.hosts[host].deaf = true;
                self.schedule.after(LOOK, Event::Look { host });
            }
            Fault::PortDown => self.port_down(host),
            Fault::PortUp => self.ports_up(host),
            Fault::LinkLost => self.lose_link(host),
            Fault::NotReady => self.not_ready(host),
        }
    }

    fn break_pairs(&mut self, host: usize, why: &'static str) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.concerns(host)) {
            pair.break_for(why);
        }
    }

    fn port_down(&mut self, host: usize) {
        let now = self.now();
        let at = self.random.usize(..self.hosts[host].ports.len().max(1));
        if let Some(port) = self.hosts[host].ports.get(at).cloned() {
            self.break_without(host, "a port went down", |_, qp| {
                qp.place.0 == host && qp.port == port.id
            });
            self.hosts[host].down.insert(port.id);
            self.hosts[host].endpoint.set_port(now, RocePort { active: false, ..port });
        }
    }

    fn ports_up(&mut self, host: usize) {
        let now = self.now();
        self.hosts[host].down.clear();
        for port in self.hosts[host].ports.clone() {
            self.hosts[host].endpoint.set_port(now, port);
        }
    }

    /// The fabric loses a member and tells the others.
    fn device_gone(&mut self, host: usize) {
        let gid = self.hosts[host].gid;
        self.ism.remove(gid);
        self.hosts[host].dmbs.clear();
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            let delay = self.delay();
            let event = DeviceEvent::Device { gid };
            self.schedule.after(delay, Event::Device { host: other, event });
        }
    }

    /// Lets time pass, with all that happens in it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now().after(time);
        loop {
            self.pump();
            let deadline = self.deadline().filter(|deadline| *deadline <= until);
            let next = self.schedule.next_time().filter(|next| *next <= until);
            match (next, deadline) {
                (Some(next), deadline) if deadline.is_none_or(|deadline| next <= deadline) => {
                    if let Some(event) = self.schedule.next(until) {
                        self.happen(event);
                    }
                }
                (_, Some(deadline)) => {
                    self.schedule.pass_to(deadline);
                    self.timeouts();
                }
                _ => break,
            }
        }
        self.schedule.pass_to(until);
    }

    fn deadline(&self) -> Option<Instant> {
        let ends = self.hosts.iter().filter(|host| host.alive);
        let ends = ends.filter_map(|host| host.endpoint.poll_timeout());
        let conns = self.pairs.iter().flat_map(|pair| &pair.sides).filter_map(|side| {
            let Phase::Smc(smc) = &side.phase else { return None };
            smc.conn.poll_timeout()
        });
        ends.chain(conns).min()
    }

    fn timeouts(&mut self) {
        let now = self.now();
        for host in self.hosts.iter_mut().filter(|host| host.alive) {
            host.endpoint.handle_timeout(now);
        }
        for pair in &mut self.pairs {
            for side in 0..2 {
                let Some(smc) = pair.sides[side].smc() else { continue };
                let ends = smc.conn.poll_timeout().is_some_and(|deadline| deadline <= now);
                if ends && smc.conn.unsent() > 0 {
                    pair.break_for("a linger time ended with bytes unsent");
                }
                if let Some(smc) = pair.sides[side].smc() {
                    smc.conn.handle_timeout(now);
                }
            }
        }
    }

    fn happen(&mut self, event: Event) {
        self.note(|| format!("{event:?}"));
        match event {
            Event::Accept { conn } => self.accept(conn),
            Event::Tcp { conn, side, bytes } => self.tcp_came(conn, side, &bytes),
            Event::TcpReset { conn, side } => self.tcp_reset(conn, side),
            Event::Signal { host, token } => self.signal(host, token),
            Event::Look { host } => {
                self.hosts[host].deaf = false;
                self.look_at_all(host);
            }
            Event::Device { host, event } if self.hosts[host].alive => {
                let now = self.now();
                self.hosts[host].endpoint.handle_event(now, ISM, &event);
            }
            Event::Device { .. } => {}
            Event::Transmit { qpn, since } => self.transmit(qpn, since),
            Event::Complete { qpn, work, ok } => self.complete(qpn, &work, ok),
            Event::LinkFailed { place } => self.link_failed(place),
        }
    }

    /// Reads all there is, closes all there is, and looks for what is left.
    fn finish(&mut self) -> Result<(), String> {
        // Linux keeps what MSG_MORE held back until the application says more, or closes.
        self.everyone(Self::flush);
        for _ in 0..40 {
            self.pass(Duration::from_millis(500));
            self.everyone(|world, conn, side| world.receive(conn, side, u32::MAX, false));
            self.check()?;
        }
        for (n, pair) in self.pairs.iter().enumerate() {
            self.check_delivered(n, pair)?;
        }
        self.everyone(Self::close);
        self.pass(Duration::from_secs(2000));
        self.check()?;
        self.check_nothing_is_left()
    }

    fn check(&mut self) -> Result<(), String> {
        self.pump();
        self.wrong.take().map_or(Ok(()), Err)
    }

    fn everyone(&mut self, act: impl Fn(&mut Self, usize, usize)) {
        for conn in 0..self.pairs.len() {
            for side in 0..2 {
                let socket = &self.pairs[conn].sides[side];
                if !socket.closed && self.hosts[socket.host].alive {
                    act(self, conn, side);
                    self.pump();
                }
            }
        }
    }

    fn check_delivered(&self, n: usize, pair: &Pair) -> Result<(), String> {
        for (from, stream) in pair.streams.iter().enumerate() {
            let receiver = &pair.sides[1 - from];
            if matches!(receiver.phase, Phase::Handshake) && self.hosts[receiver.host].alive {
                return Err(format!("connection {n}: a handshake has not ended after 20 s"));
            }
            let stalled = stream.broken().is_none() && !receiver.closed && !stream.is_drained();
            if stalled {
                let (sent, got) = stream.progress();
                return Err(format!("connection {n}: stalls at {got} of {sent} bytes"));
            }
        }
        Ok(())
    }

    fn check_nothing_is_left(&self) -> Result<(), String> {
        for (n, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.alive) {
            let groups = host.endpoint.groups().infos().count();
            let handshakes = host.endpoint.handshakes();
            if groups + handshakes > 0 {
                return Err(format!(
                    "end {n} has {groups} link groups, {handshakes} handshakes left"
                ));
            }
        }
        for (n, pair) in self.pairs.iter().enumerate() {
            for side in pair.sides.iter().filter(|side| self.hosts[side.host].alive) {
                if let Phase::Smc(smc) = &side.phase {
                    let state = smc.conn.state();
                    return Err(format!("connection {n}: closed, and still there in {state:?}"));
                }
            }
        }
        let left = (self.ism.len(), self.roce.qps.len(), self.roce.rmbs.len());
        if left != (0, 0, 0) {
            return Err(format!("left are, of DMBs, queue pairs, RMBs: {left:?}"));
        }
        Ok(())
    }

    /// What was seen.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Tells the application of side `side` that its connection was reset.
    pub(crate) fn reset(&mut self, conn: usize, side: usize) {
        let socket = &mut self.pairs[conn].sides[side];
        if !socket.closed && !socket.ended {
            socket.ended = true;
            let judged = self.pairs[conn].streams[1 - side].ended(End::Reset);
            self.judge(conn, judged.map_err(|what| format!("side {side}: {what}")));
        }
    }
}
