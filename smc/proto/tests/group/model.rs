// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random lives of groups against a simple model of who must be where.
//!
//! Invariant: the model is written from the rules, not from the code: it holds every group in a
//! list, and looks at all memory whenever it wants to know something.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use smc_proto::Instant;
use smc_proto::group::{
    Acquired, Ask, BufferKind, Cause, Fate, JoinError, LinkPeer, Peer, RegisterError, Role,
    Shortage, Version, Wish,
};
use smc_proto::id::{BufferId, ConnId, DeviceId, GroupId};
use smc_proto::smcd::dmb::Dmb;
use smc_proto::smcd::event::{DeviceEvent, EventCode, EventInfo};
use smc_wire::id::IsmGid;
use smc_wire::size::BufferSize;

use crate::engine::Engine;
use crate::steps::{Step, a_step};

/// A group as the rules have it.
struct Expected {
    id: GroupId,
    ask: Ask,
    links: [Option<LinkPeer>; 3],
    members: Vec<ConnId>,
    open: bool,
    ending: bool,
    links_up: bool,
    idle_until: Option<Instant>,
}

/// What the engine was asked for and has not done yet.
#[derive(Debug, Clone, Copy)]
enum Job {
    Register { group: GroupId, buffer: BufferId, kind: BufferKind, size: BufferSize },
    Zero { buffer: BufferId },
}

#[derive(Default, Debug, PartialEq, Eq)]
struct Counts {
    allocated: u64,
    reused: u64,
    downgraded: u64,
}

struct World {
    engine: Engine,
    groups: Vec<Expected>,
    jobs: Vec<Job>,
    next_conn: u32,
    counts: Counts,
    /// Connections whose present wish for a buffer has been counted as downgraded.
    downgraded: BTreeSet<(ConnId, BufferKind)>,
    spoiled: BTreeSet<BufferId>,
    vlans: BTreeSet<(DeviceId, u16)>,
}

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::new(),
            groups: Vec::new(),
            jobs: Vec::new(),
            next_conn: 0,
            counts: Counts::default(),
            downgraded: BTreeSet::new(),
            spoiled: BTreeSet::new(),
            vlans: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Server(ask) => self.server(&ask),
            Step::Client(ask, first_contact) => self.client(&ask, first_contact),
            Step::Acquire(at, kind, bytes) => self.acquire(at, kind, bytes),
            Step::Leave(at, fate) => self.leave(at, fate),
            Step::Terminate(at, cause) => {
                let Some(at) = choose(at, self.groups.len()) else { return };
                let id = self.groups[at].id;
                assert_eq!(self.engine.groups.terminate(id, cause), !self.groups[at].ending);
                self.pull(&|expected| expected.id == id, cause);
            }
            Step::Shutdown(gid, ext, vlan) => {
                let info = EventInfo { group: [0; 4], vlan, code: 1 }.bits();
                let gid = IsmGid { gid, ext };
                let event = DeviceEvent::Software { gid, code: EventCode::SHUTDOWN, info };
                self.engine.groups.handle_event(DeviceId(1), &event);
                self.pull(&|expected| is_with(expected, gid) && vlan == 0, Cause::PeerGone);
            }
            Step::PeerDevice(gid, ext) => {
                let gid = IsmGid { gid, ext };
                self.engine.groups.handle_event(DeviceId(1), &DeviceEvent::Device { gid });
                self.pull(&|expected| is_with(expected, gid), Cause::PeerGone);
            }
            Step::OwnDevice(device) => {
                self.engine.groups.terminate_device(DeviceId(device));
                self.pull(&|expected| is_over(expected, device), Cause::DeviceGone);
            }
            Step::SetLink(at, number, end) => {
                let Some(at) = choose(at, self.groups.len()) else { return };
                self.set_link(self.groups[at].id, number, end);
            }
            Step::SetOpen(at, open) => {
                let Some(at) = choose(at, self.groups.len()) else { return };
                self.groups[at].open = open;
                self.engine.groups.set_open(self.groups[at].id, open);
            }
            Step::LinksGone(at) => {
                let Some(at) = choose(at, self.groups.len()) else { return };
                self.groups[at].links_up &= !self.groups[at].ending;
                self.engine.groups.handle_links_gone(self.groups[at].id);
                self.pull(&|_| false, Cause::Idle);
            }
            Step::Spoil(at) => {
                let Some(at) = choose(at, self.engine.memory.len()) else { return };
                let buffer = *self.engine.memory.keys().nth(at).unwrap();
                self.spoiled.insert(buffer);
                self.engine.groups.spoil(buffer);
                self.pull(&|_| false, Cause::Idle);
            }
            Step::Seconds(seconds) => self.pass(seconds),
            Step::Finish(at, error) => {
                if let Some(at) = choose(at, self.jobs.len()) {
                    let job = self.jobs.swap_remove(at);
                    self.finish(job, error);
                }
            }
        }
    }

    fn server(&mut self, ask: &Ask) {
        let expected = self.groups.iter().find(|group| group.takes(ask)).map(|group| group.id);
        let conn = self.new_conn();
        let joined = self.engine.groups.join_server(conn, ask).unwrap();
        assert_eq!(expected, (!joined.first_contact).then_some(joined.group));
        self.joined(conn, ask, joined.group);
    }

    fn client(&mut self, ask: &Ask, first_contact: bool) {
        let fits = self.groups.iter().find(|group| group.fits(ask)).map(|group| group.id);
        let conn = self.new_conn();
        let result = self.engine.groups.join_client(conn, ask, first_contact);
        if !first_contact && fits.is_none() {
            assert_eq!(result, Err(JoinError::OutOfSync));
            return;
        }
        let joined = result.unwrap();
        let expected = fits.filter(|_| !first_contact);
        assert_eq!(expected, (!joined.first_contact).then_some(joined.group));
        self.joined(conn, ask, joined.group);
    }

    fn joined(&mut self, conn: ConnId, ask: &Ask, id: GroupId) {
        match self.groups.iter_mut().find(|group| group.id == id) {
            Some(group) => {
                group.members.push(conn);
                group.idle_until = None;
            }
            None => self.groups.push(Expected {
                id,
                ask: *ask,
                links: [None; 3],
                members: vec![conn],
                open: true,
                ending: false,
                links_up: !ask.peer.is_smcd(),
                idle_until: None,
            }),
        }
        if let Peer::Smcr(peer) = ask.peer {
            self.set_link(id, 0, Some(peer.link));
        }
        self.pull(&|_| false, Cause::Idle);
    }

    fn set_link(&mut self, id: GroupId, number: u32, end: Option<LinkPeer>) {
        let expected = self.groups.iter_mut().find(|expected| expected.id == id).unwrap();
        expected.links[number as usize] = end;
        self.engine.groups.set_link(id, number, end);
    }

    fn acquire(&mut self, at: usize, kind: BufferKind, bytes: u32) {
        let Some((group, conn)) = self.member(at) else { return };
        let expected = self.groups.iter().find(|expected| expected.id == group).unwrap();
        let max = if expected.ask.peer.is_smcd() { BufferSize::MAX_SMCD } else { BufferSize::MAX };
        let size = BufferSize::covering(bytes, max);
        let free = self.has_free(group, kind, size);
        let ending = expected.ending;
        let Engine { groups, stats, .. } = &mut self.engine;
        let result = groups.acquire(group, conn, kind, bytes, stats);
        match result {
            Ok(Acquired::Ready(buffer)) => {
                assert!(free && !ending);
                assert_eq!(self.engine.memory[&buffer.id].size, size);
                assert_eq!(self.engine.memory[&buffer.id].group, group);
                assert!(!self.spoiled.contains(&buffer.id));
                self.engine.hand_out(conn, buffer);
                self.counts.reused += 1;
            }
            Ok(Acquired::Wait) => {
                assert!(!free && !ending);
                self.downgraded.remove(&(conn, kind));
            }
            Ok(Acquired::Failed(shortage)) => panic!("{shortage}"),
            Err(_) => {}
        }
        self.pull(&|_| false, Cause::Idle);
    }

    fn leave(&mut self, at: usize, fate: Fate) {
        let Some((group, conn)) = self.member(at) else { return };
        self.engine.disown(conn);
        let now = self.engine.now;
        let Engine { groups, stats, .. } = &mut self.engine;
        groups.leave(now, group, conn, fate, stats).unwrap();
        let expected = self.groups.iter_mut().find(|expected| expected.id == group).unwrap();
        expected.members.retain(|member| *member != conn);
        if expected.members.is_empty() && !expected.ending {
            let smcr_client = !expected.ask.peer.is_smcd() && expected.ask.role == Role::Client;
            let seconds = if smcr_client { 610 } else { 600 };
            expected.idle_until = Some(now.after(Duration::from_secs(seconds)));
        }
        self.pull(&|_| false, Cause::Idle);
    }

    fn pass(&mut self, seconds: u64) {
        let now = self.engine.now.after(Duration::from_secs(seconds));
        let next = self.groups.iter().filter_map(|group| group.idle_until).min();
        assert_eq!(self.engine.groups.poll_timeout(), next);
        self.engine.now = now;
        self.engine.groups.handle_timeout(now);
        self.pull(&|group| group.idle_until.is_some_and(|until| until <= now), Cause::Idle);
    }

    fn finish(&mut self, job: Job, error: Option<RegisterError>) {
        match (job, error) {
            (Job::Register { group, buffer, kind, size }, error) => {
                let outcome = match error {
                    Some(error) => Err(error),
                    None => Ok(self.engine.allocate(group, buffer, kind, size)),
                };
                self.registered(group, buffer, size, outcome);
            }
            (Job::Zero { buffer }, None) => {
                self.engine.zero(buffer);
                self.engine.groups.handle_zeroed(buffer);
            }
            (Job::Zero { buffer }, Some(_)) => self.engine.groups.handle_lost(buffer),
        }
        self.pull(&|_| false, Cause::Idle);
    }

    fn registered(
        &mut self,
        group: GroupId,
        buffer: BufferId,
        size: BufferSize,
        outcome: Result<Dmb, RegisterError>,
    ) {
        let (well, error) = (outcome.is_ok(), outcome.err());
        let Engine { groups, stats, .. } = &mut self.engine;
        let Some(result) = groups.handle_registered(buffer, outcome, stats) else {
            return; // its connection left
        };
        let ending = self.groups.iter().any(|expected| expected.id == group && expected.ending);
        let never = ending || error == Some(RegisterError::Never);
        if !well && !never && self.downgraded.insert((result.conn, result.kind)) {
            self.counts.downgraded += 1;
        }
        match result.acquired {
            Acquired::Ready(got) if well => {
                assert_eq!(got.id, buffer);
                self.engine.hand_out(result.conn, got);
                self.counts.allocated += 1;
            }
            Acquired::Ready(got) => {
                assert_eq!(Some(got.size), size.smaller());
                self.engine.hand_out(result.conn, got);
                self.counts.reused += 1;
            }
            Acquired::Wait => {
                let smaller = size.smaller().unwrap();
                assert!(!well && !never && !self.has_free(group, result.kind, smaller));
            }
            Acquired::Failed(shortage) => {
                assert!(never || size == BufferSize::MIN);
                let no_space = !never && error == Some(RegisterError::NoSpace);
                assert_eq!(shortage == Shortage::MaxDmb, no_space);
            }
        }
    }

    /// Takes the wishes after a step that should have ended the groups for which `ended` holds.
    fn pull(&mut self, ended: &dyn Fn(&Expected) -> bool, cause: Cause) {
        let mut kills = BTreeSet::new();
        let mut links = BTreeSet::new();
        let mut signals = BTreeSet::new();
        for group in self.groups.iter_mut().filter(|group| !group.ending && ended(group)) {
            group.ending = true;
            group.idle_until = None;
            kills.extend(group.members.iter().copied());
            if group.ask.peer.is_smcd() {
                signals.insert(group.id.0.to_ne_bytes());
            } else {
                links.insert(group.id);
            }
        }
        while let Some(wish) = self.engine.groups.poll_wish() {
            match wish {
                Wish::Register { group, buffer, kind, size } => {
                    self.jobs.push(Job::Register { group, buffer, kind, size });
                }
                Wish::Zero { group, buffer } => {
                    assert!(!self.expected(group).ending, "nobody will use it again");
                    assert!(!self.spoiled.contains(&buffer));
                    self.jobs.push(Job::Zero { buffer });
                }
                Wish::Free { group, buffer } => {
                    let expected = self.expected(group);
                    assert!(!expected.ending || !expected.links_up, "the peer may write it");
                    self.engine.free(buffer);
                    self.spoiled.remove(&buffer);
                }
                Wish::Kill { conn, tell_peer } => {
                    assert!(kills.remove(&conn), "{conn:?} should live");
                    assert_eq!(tell_peer, !matches!(cause, Cause::PeerGone | Cause::NoLink));
                }
                Wish::EndLinks { group, cause: why } => {
                    assert!(links.remove(&group));
                    assert_eq!(why, cause);
                }
                Wish::Gone { group } => self.gone(group),
                Wish::Signal { code, info, .. } => {
                    assert_eq!(code, EventCode::SHUTDOWN);
                    assert!(cause != Cause::PeerGone);
                    assert!(signals.remove(&EventInfo::from_bits(info).group));
                }
                Wish::AddVlan { device, vlan } => {
                    assert!(self.vlans.insert((device, vlan)));
                    self.engine.groups.handle_vlan(device, vlan, true);
                }
                Wish::RemoveVlan { device, vlan } => {
                    assert!(self.vlans.remove(&(device, vlan)));
                }
            }
        }
        assert!(kills.is_empty() && links.is_empty(), "not told: {kills:?} {links:?}");
        // an idle group may keep silent for its twin's sake
        let silent = matches!(cause, Cause::PeerGone | Cause::Idle);
        assert!(signals.is_empty() || silent, "not signalled: {signals:?}");
        self.check_stats();
    }

    fn gone(&mut self, id: GroupId) {
        let at = self.groups.iter().position(|group| group.id == id).unwrap();
        let group = self.groups.remove(at);
        assert!(group.ending && !group.links_up && group.members.is_empty());
        assert!(self.engine.memory.values().all(|memory| memory.group != id), "memory leaked");
        let of_group = |job: &Job| matches!(job, Job::Register { group, .. } if *group == id);
        assert!(!self.jobs.iter().any(of_group));
    }

    fn check_stats(&self) {
        let stats = &self.engine.stats;
        let directions = [&stats.smcd.rx, &stats.smcd.tx, &stats.smcr.rx, &stats.smcr.tx];
        let used = self.engine.memory.values().filter(|memory| memory.owner.is_some());
        let used: u64 = used.map(|memory| u64::from(memory.size.bytes())).sum();
        assert_eq!(directions.iter().map(|d| d.buffer_bytes).sum::<u64>(), used);
        let counts = Counts {
            allocated: directions.iter().map(|d| d.buffers_allocated).sum(),
            reused: directions.iter().map(|d| d.buffers_reused).sum(),
            downgraded: directions.iter().map(|d| d.buffers_downgraded).sum(),
        };
        assert_eq!(counts, self.counts);
    }

    /// Everybody leaves, everything under way is finished, time passes: nothing may be left.
    fn wind_up(&mut self) {
        while self.member(0).is_some() {
            self.leave(0, Fate::Reuse);
        }
        while let Some(job) = self.jobs.pop() {
            self.finish(job, None);
        }
        self.pass(10_000);
        for group in &mut self.groups {
            group.links_up = false;
            self.engine.groups.handle_links_gone(group.id);
        }
        self.pull(&|_| false, Cause::Idle);
        assert!(self.groups.is_empty() && self.engine.memory.is_empty() && self.vlans.is_empty());
        assert_eq!(self.engine.groups.infos().count(), 0);
        assert_eq!(self.engine.groups.poll_timeout(), None);
    }

    fn expected(&self, id: GroupId) -> &Expected {
        self.groups.iter().find(|expected| expected.id == id).unwrap()
    }

    fn has_free(&self, group: GroupId, kind: BufferKind, size: BufferSize) -> bool {
        self.engine.memory.values().any(|memory| {
            let unused = memory.owner.is_none() && !memory.dirty;
            unused && (memory.group, memory.kind, memory.size) == (group, kind, size)
        })
    }

    fn member(&self, at: usize) -> Option<(GroupId, ConnId)> {
        let members = self.groups.iter();
        let members = members.flat_map(|group| group.members.iter().map(|conn| (group.id, *conn)));
        let members: Vec<_> = members.collect();
        choose(at, members.len()).map(|at| members[at])
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }
}

impl Expected {
    fn fits(&self, ask: &Ask) -> bool {
        if self.ending || (ask.version == Version::V1 && ask.vlan != self.ask.vlan) {
            return false;
        }
        match (self.ask.peer, ask.peer) {
            (Peer::Smcd(mine), Peer::Smcd(theirs)) => mine == theirs,
            (Peer::Smcr(mine), Peer::Smcr(theirs)) => {
                let same = mine.id == theirs.id && self.ask.role == ask.role;
                let end = theirs.link;
                same && self.links.iter().flatten().any(|link| {
                    let mac = ask.version == Version::V2 || link.mac == end.mac;
                    let qpn = ask.role == Role::Server || link.qpn == end.qpn;
                    link.gid == end.gid && mac && qpn
                })
            }
            _ => false,
        }
    }

    fn takes(&self, ask: &Ask) -> bool {
        let room = match self.ask.peer {
            Peer::Smcd(_) => true,
            Peer::Smcr(peer) => self.open && self.members.len() < usize::from(peer.max_conns),
        };
        room && self.fits(ask)
    }
}

fn is_with(expected: &Expected, gid: IsmGid) -> bool {
    match expected.ask.peer {
        Peer::Smcd(peer) => peer.device == DeviceId(1) && peer.gid == gid,
        Peer::Smcr(_) => false,
    }
}

fn is_over(expected: &Expected, device: u32) -> bool {
    match expected.ask.peer {
        Peer::Smcd(peer) => peer.device == DeviceId(device),
        Peer::Smcr(_) => false,
    }
}

fn choose(at: usize, among: usize) -> Option<usize> {
    at.checked_rem(among)
}

proptest! {
    // rows 47, 48, 52
    #[test]
    fn random_lives_follow_the_model(steps in prop::collection::vec(a_step(), 0..150)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.wind_up();
    }
}
