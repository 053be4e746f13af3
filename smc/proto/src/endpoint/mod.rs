// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One host's end of SMC: its devices, link groups and handshakes.
//!
//! Invariant: each connection that was begun is in a handshake, established, or forgotten, and what
//! it took (buffers, a place in a link group, VLANs) is given back when it is forgotten.
//!
//! # Use
//! Tell it the devices ([`Endpoint::add_ism`], [`Endpoint::set_port`], [`Endpoint::set_interface`]).
//! When TCP has connected, call [`Endpoint::connect`] or [`Endpoint::accept`] and feed it what comes
//! in over TCP ([`Endpoint::handle_clc`]). Carry out its wishes. [`Wish::Established`] has what
//! [`crate::conn::Connection`] needs, [`Wish::Fallback`] gives the TCP connection back, with every
//! byte after the last CLC message still in it, and perhaps the peer's [late](Late) answer before them.
//! An established connection must be [released](Endpoint::release) at its end.
//!
//! | File | What |
//! |---|---|
//! | `state` | what a handshake waits for |
//! | `clc` | messages that come |
//! | `client`, `server` | the two sides' steps |
//! | `resources` | link group, VLAN, buffers, attached DMB |
//! | `links`, `ports`, `rdma` | SMC-R: queue pairs, RoCE ports, and their part in a handshake |
//! | `finish` | how it ends |
//! | `late` | what the peer says after that |
//! | `wish` | what shall be done |

mod clc;
mod client;
mod finish;
mod late;
mod links;
mod ports;
mod rdma;
mod resources;
mod server;
mod state;
mod wish;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Included};
use std::time::Duration;

use smc_wire::clc::Diagnosis;
use smc_wire::id::PeerId;

pub use self::late::Late;
use self::links::{Event, Links};
use self::state::{Handshake, State};
pub use self::wish::{Established, Path, Wish};
use crate::Instant;
use crate::config::{Config, ConfigError};
use crate::group::{self, Cause, Fate, GroupError, Groups, Limits};
use crate::handshake::host::Host;
use crate::handshake::inventory::{Interface, InterfaceId, Inventory, IsmDevice};
use crate::handshake::reason::{End, Failure};
use crate::handshake::route::Route;
use crate::id::{BufferId, ConnId, DeviceId, GroupId};
use crate::smcd::event::DeviceEvent;
use crate::stats::Stats;

/// How long a CLC message is waited for (`CLC_WAIT_TIME`).
pub const CLC_WAIT: Duration = Duration::from_secs(6);
/// How long a Decline is waited for when the other side has failed already
/// (`CLC_WAIT_TIME_SHORT`).
pub const CLC_WAIT_SHORT: Duration = Duration::from_secs(1);

/// Handshakes as a server beyond which [`Config::limit_hs`] counts: those that Linux's work queue
/// runs at a time (`WQ_DFL_ACTIVE`).
const MAX_HANDSHAKES: usize = 1024;

/// A host's end of SMC.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    inventory: Inventory,
    groups: Groups,
    stats: Stats,
    handshakes: BTreeMap<ConnId, Box<Handshake>>,
    established: BTreeMap<ConnId, GroupId>,
    /// The TCP addresses of the peers with whom the groups began.
    peers: BTreeMap<GroupId, IpAddr>,
    /// Deadlines of handshakes.
    timers: BTreeSet<(Instant, ConnId)>,
    /// Handshakes that wait for a link group's progress.
    waiting: BTreeSet<(GroupId, ConnId)>,
    /// The links of SMC-R groups.
    links: BTreeMap<GroupId, Box<Links>>,
    /// What links have said that is not handled yet.
    events: VecDeque<Event>,
    /// SMC-R buffers that are being made reachable.
    sharing: BTreeSet<BufferId>,
    /// SMC-R buffers to be zeroed when the peer has forgotten them.
    leaving: BTreeSet<BufferId>,
    wishes: VecDeque<Wish>,
    last: u32,
    now: Instant,
}

impl Endpoint {
    /// An end without devices.
    ///
    /// # Errors
    /// If the configuration is out of bounds.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let limits = Limits { smcd: config.largest_dmb, ..Limits::default() };
        Ok(Self {
            config,
            inventory: Inventory::default(),
            groups: Groups::new(limits),
            stats: Stats::default(),
            handshakes: BTreeMap::new(),
            established: BTreeMap::new(),
            peers: BTreeMap::new(),
            timers: BTreeSet::new(),
            waiting: BTreeSet::new(),
            links: BTreeMap::new(),
            events: VecDeque::with_capacity(8),
            sharing: BTreeSet::new(),
            leaving: BTreeSet::new(),
            wishes: VecDeque::with_capacity(16),
            last: 0,
            now: Instant::default(),
        })
    }

    // Commands

    /// Changes the configuration, for handshakes that begin from now on.
    ///
    /// # Errors
    /// If it is out of bounds; then nothing is changed.
    pub fn configure(&mut self, config: Config) -> Result<(), ConfigError> {
        config.check()?;
        self.config = config;
        Ok(())
    }

    /// Adds an ISM device.
    pub fn add_ism(&mut self, device: IsmDevice) {
        self.inventory.add_ism(device, &self.config.pnet);
    }

    /// An ISM device goes: its link groups end, and it is offered no more.
    pub fn remove_ism(&mut self, now: Instant, device: DeviceId) {
        self.now = now;
        if self.inventory.remove_ism(device) {
            self.groups.terminate_device(device);
        }
    }

    /// Adds a network interface, or says what has changed about it.
    pub fn set_interface(&mut self, interface: Interface) {
        self.inventory.set_interface(interface);
    }

    /// A network interface is there no more.
    pub fn remove_interface(&mut self, id: InterfaceId) {
        self.inventory.remove_interface(id);
    }

    /// TCP has connected as a client: begins the handshake.
    pub fn connect(&mut self, now: Instant, route: &Route) -> ConnId {
        let conn = self.begin(now);
        self.begin_client(conn, route);
        conn
    }

    /// TCP has accepted a connection: begins the handshake.
    pub fn accept(&mut self, now: Instant, route: &Route) -> ConnId {
        let conn = self.begin(now);
        self.begin_server(conn, route);
        conn
    }

    /// An established connection, or one that was aborted, is over: nobody reads its buffers any
    /// more. A handshake is given up, its TCP connection being closed by the caller.
    pub fn release(&mut self, now: Instant, conn: ConnId, fate: Fate) {
        self.now = now;
        if let Some(hs) = self.take(conn) {
            self.abandon(*hs);
        } else if let Some(group) = self.established.remove(&conn) {
            self.leave(group, conn, fate);
        }
    }

    /// An operator ends a link group.
    pub fn terminate(&mut self, now: Instant, group: GroupId) {
        self.now = now;
        self.groups.terminate(group, Cause::Operator);
    }

    // Inputs that are not a handshake's

    /// An ISM device brought an event of a peer's.
    pub fn handle_event(&mut self, now: Instant, device: DeviceId, event: &DeviceEvent) {
        self.now = now;
        self.groups.handle_event(device, event);
    }

    /// [`group::Wish::Zero`] was carried out, or with `false` could not be.
    pub fn handle_zeroed(&mut self, now: Instant, buffer: BufferId, done: bool) {
        self.now = now;
        match done {
            true => self.groups.handle_zeroed(buffer),
            false => self.groups.handle_lost(buffer),
        }
    }

    /// A time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some(&(deadline, conn)) = self.timers.first()
            && deadline <= now
        {
            self.timers.pop_first();
            if let Some(hs) = self.take(conn) {
                self.timed_out(hs);
            }
        }
        self.groups.handle_timeout(now);
        self.links_timed_out();
    }

    // Wishes and time

    /// The next thing to do.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        loop {
            if let Some(wish) = self.wishes.pop_front() {
                return Some(wish);
            }
            if let Some(event) = self.events.pop_front() {
                self.link_event(event);
                continue;
            }
            match self.groups.poll_wish()? {
                group::Wish::Kill { conn, tell_peer } => self.killed(conn, tell_peer),
                group::Wish::EndLinks { group, cause } => self.end_links(group, cause),
                group::Wish::Zero { group, buffer } => self.zero(group, buffer),
                group::Wish::Free { group, buffer } => self.free(group, buffer),
                group::Wish::Gone { group } => {
                    self.peers.remove(&group);
                    self.first_contact_over(group);
                    self.wishes.push_back(Wish::Group(group::Wish::Gone { group }));
                }
                wish => return Some(Wish::Group(wish)),
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let handshakes = self.timers.first().map(|(deadline, _)| *deadline);
        let links = self.links.values().filter_map(|links| links.poll_timeout());
        let others = [handshakes, self.groups.poll_timeout()];
        others.into_iter().flatten().chain(links).min()
    }

    /// The handshakes whose time is over: what has come for them should be
    /// [handled](Self::handle_clc) before [`Self::handle_timeout`] ends them.
    pub fn overdue(&self, now: Instant) -> impl Iterator<Item = ConnId> {
        self.timers.range(..=(now, ConnId(u32::MAX))).map(|(_, conn)| *conn)
    }

    // Getters

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The devices and interfaces.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The link groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Handshakes under way.
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    /// Whether listeners should offer SMC in their SYN-ACKs now (`smc_hs_congested`).
    pub fn offers(&self) -> bool {
        !self.config.limit_hs || self.handshakes.len() < MAX_HANDSHAKES
    }

    /// What names this host to SMC-R peers.
    pub fn peer_id(&self) -> PeerId {
        self.host().peer_id()
    }

    /// Whether a CLC message of the peer's is due, so that [`Self::handle_clc`] would take one.
    pub fn expects_clc(&self, conn: ConnId) -> bool {
        self.handshakes.get(&conn).is_some_and(|hs| hs.due().is_some())
    }

    // Inside

    fn host(&self) -> Host<'_> {
        Host { config: &self.config, inventory: &self.inventory }
    }

    /// A name for a new connection; never 0, which no alert token is.
    fn begin(&mut self, now: Instant) -> ConnId {
        self.now = now;
        loop {
            self.last = self.last.wrapping_add(1);
            let conn = ConnId(self.last);
            let known = self.handshakes.contains_key(&conn) || self.established.contains_key(&conn);
            if self.last != 0 && !known {
                return conn;
            }
        }
    }

    /// Takes a handshake out, to go on with it.
    fn take(&mut self, conn: ConnId) -> Option<Box<Handshake>> {
        let mut hs = self.handshakes.remove(&conn)?;
        if let Some(deadline) = hs.deadline.take() {
            self.timers.remove(&(deadline, conn));
        }
        if let Some(group) = hs.waits_for() {
            self.waiting.remove(&(group, conn));
        }
        Some(hs)
    }

    /// Takes a handshake out if `waits` says that it waits for what has come; else nobody asked.
    fn take_if(
        &mut self,
        conn: ConnId,
        waits: impl FnOnce(&State) -> bool,
    ) -> Option<Box<Handshake>> {
        let asked = self.handshakes.get(&conn).is_some_and(|hs| waits(&hs.state));
        if asked { self.take(conn) } else { None }
    }

    /// Lets a handshake wait, for `time` at most.
    fn park(&mut self, mut hs: Box<Handshake>, state: State, time: Option<Duration>) {
        hs.state = state;
        hs.deadline = time.map(|time| self.now.after(time));
        if let Some(deadline) = hs.deadline {
            self.timers.insert((deadline, hs.conn));
        }
        if let Some(group) = hs.waits_for() {
            self.waiting.insert((group, hs.conn));
        }
        self.handshakes.insert(hs.conn, hs);
    }

    /// A group ended: an established connection is aborted, a handshake fails.
    fn killed(&mut self, conn: ConnId, tell_peer: bool) {
        if let Some(hs) = self.take(conn) {
            match hs.state {
                State::Linking(..) | State::Linked(..) => {
                    self.last_word(hs, Diagnosis::TIMEOUT_CL);
                }
                _ => self.end(hs, End::Fail(Failure::GroupGone)),
            }
        } else if self.established.contains_key(&conn) {
            self.wishes.push_back(Wish::Abort { conn, tell_peer });
        }
    }

    fn leave(&mut self, group: GroupId, conn: ConnId, fate: Fate) {
        self.with_links(group, |links, _| links.leave(conn));
        let left: Result<(), GroupError> =
            self.groups.leave(self.now, group, conn, fate, &mut self.stats);
        debug_assert!(left.is_ok(), "a connection that is known is a member of its group");
    }

    /// The handshake that waits for progress of a group, `last` being the one before.
    fn next_waiting(&self, group: GroupId, last: Option<ConnId>) -> Option<ConnId> {
        let from = last.map_or(Included((group, ConnId(0))), |last| Excluded((group, last)));
        let mut rest = self.waiting.range((from, Included((group, ConnId(u32::MAX)))));
        rest.next().map(|(_, conn)| *conn)
    }

    /// Lets those go on that waited for a group's first contact.
    fn first_contact_over(&mut self, group: GroupId) {
        let mut last = None;
        while let Some(conn) = self.next_waiting(group, last) {
            last = Some(conn);
            if let Some(hs) = self.take_if(conn, State::is_first_contact) {
                self.resume(hs);
            }
        }
    }
}
