// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random requests of several members, against the reference model (`PROPTEST_CASES=n` for more).
//!
//! Invariant tested: every status, event, signal and count is the model's; no token comes twice;
//! memory is zero before it is used again, and in the windows of its two members only.

use std::collections::{BTreeMap, BTreeSet};

use ism_abi::{
    DmbGranted, DmbUnregistered, ForgetPeerRequest, PeerGone, QueryRequest, RegisterReply,
    RegisterRequest, SignalEventRequest, SoftwareEvent, command, event, status as s,
};
use ism_emulator::{ExtentId, MemberId, Mode, Quota};
use proptest::prelude::*;

use crate::model::{BYTES, DMBS, Expected, GROUPS, MEMBERS, Model, ModelDmb, PEERS, Params};
use crate::world::{World, body, config, event_body, gid, kind, register, status};

/// Who takes a step that names a token: its writer or owner, or just somebody.
#[derive(Clone, Copy, Debug)]
enum Who {
    Owner,
    Writer,
    Any(usize),
}

/// One step. Members are numbers; tokens and pairs are counted from the newest.
#[derive(Clone, Debug)]
enum Step {
    Connect(usize),
    Disconnect(usize),
    Reset(usize),
    Hello(usize),
    Query(usize, usize),
    /// Owner, writer, index, length, whether the mode is the wrong one.
    Register(usize, usize, u32, u32, bool),
    Unregister(Who, usize),
    Attach(Who, usize),
    Detach(Who, usize),
    Signal(Who, usize),
    Move(Who, usize, u32, u32),
    /// Who, whether with another peer's GID, pair.
    Forget(usize, Option<usize>, usize),
    Software(usize, usize),
    TakeSignals(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let m = || 0..MEMBERS;
    // The newest tokens are most alive.
    let t = || prop_oneof![6 => 0..6_usize, 1 => 0..40_usize];
    let owner = || prop_oneof![8 => Just(Who::Owner), 1 => m().prop_map(Who::Any)];
    let writer = || prop_oneof![8 => Just(Who::Writer), 1 => m().prop_map(Who::Any)];
    let len = prop::sample::select(vec![16 << 10, 20 << 10, 64 << 10, 68 << 10, 128 << 10_u32]);
    let edge = || prop::sample::select(vec![0, 1, 16 << 10, 64 << 10, (128 << 10) - 1, u32::MAX]);
    let wrong = || prop::bool::weighted(0.05);
    prop_oneof![
        1 => m().prop_map(Step::Connect),
        1 => m().prop_map(Step::Disconnect),
        1 => m().prop_map(Step::Reset),
        4 => m().prop_map(Step::Hello),
        2 => (m(), m()).prop_map(|(a, b)| Step::Query(a, b)),
        40 => (m(), m(), 0..4_u32, len, wrong())
            .prop_map(|(a, b, index, len, wrong)| Step::Register(a, b, index * 50, len, wrong)),
        20 => (owner(), t()).prop_map(|(a, t)| Step::Unregister(a, t)),
        10 => (writer(), t()).prop_map(|(a, t)| Step::Attach(a, t)),
        10 => (writer(), t()).prop_map(|(a, t)| Step::Detach(a, t)),
        10 => (writer(), t()).prop_map(|(a, t)| Step::Signal(a, t)),
        10 => (writer(), t(), edge(), 0..(1_u32 << 20))
            .prop_map(|(a, t, offset, len)| Step::Move(a, t, offset, len >> (offset % 16))),
        10 => (m(), prop::option::weighted(0.05, m()), 0..6_usize)
            .prop_map(|(a, b, p)| Step::Forget(a, b, p)),
        4 => (m(), m()).prop_map(|(a, b)| Step::Software(a, b)),
        4 => m().prop_map(Step::TakeSignals),
    ]
}

/// A member's number as the number of its GID.
fn nr(member: usize) -> u8 {
    u8::try_from(member + 1).unwrap()
}

struct Run {
    world: World,
    model: Model,
    ids: Vec<MemberId>,
    /// Blocks of mapped DMBs by token: extent, offset, length.
    blocks: BTreeMap<u64, (ExtentId, u64, u64)>,
    /// Blocks that were used and not made zero since.
    dirty: BTreeSet<(ExtentId, u64, u64)>,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new(config());
        let quota = Quota {
            bytes: BYTES,
            dmbs: u32::try_from(DMBS).unwrap(),
            peers: u32::try_from(PEERS).unwrap(),
            ..Quota::default()
        };
        let member = |n| world.silent_member(nr(n), GROUPS[n], quota);
        let ids = (0..MEMBERS).map(member).collect();
        let (blocks, dirty) = (BTreeMap::new(), BTreeSet::new());
        let mut run = Self { world, model: Model::default(), ids, blocks, dirty };
        for member in 0..MEMBERS {
            run.step(&Step::Connect(member));
            run.step(&Step::Hello(member));
        }
        run
    }

    /// A member, and a token that was issued, or one that never was.
    fn token(&self, who: Who, nth: usize) -> (usize, u64) {
        let dmb = self.model.dmbs.iter().rev().nth(nth);
        let member = match who {
            Who::Owner => dmb.map_or(0, |d| d.owner),
            Who::Writer => dmb.map_or(0, |d| d.params.writer),
            Who::Any(member) => member,
        };
        (member, dmb.map_or(0x1234_5678, |d| d.token))
    }

    fn step(&mut self, step: &Step) {
        let ids = self.ids.clone();
        match *step {
            Step::Connect(m) => {
                self.model.part(m);
                self.model.connected[m] = true;
                self.world.connect(ids[m]);
            }
            Step::Disconnect(m) => {
                self.model.part(m);
                self.model.connected[m] = false;
                self.world.maps.remove(&ids[m]);
                self.world.fabric.disconnect(ids[m]);
            }
            Step::Reset(m) => {
                self.model.part(m);
                self.world.fabric.reset(ids[m]);
            }
            Step::Hello(m) => self.hello(m),
            Step::Query(a, b) => self.query(a, b),
            Step::Register(a, b, index, len, wrong) => {
                let copied = self.model.copied(a, b).unwrap_or(false) != wrong;
                self.register(a, Params { writer: b, index, len, copied });
            }
            Step::Unregister(who, t) => {
                let (m, token) = self.token(who, t);
                let expected = self.model.unregister(m, token);
                assert_eq!(self.world.token(ids[m], command::UNREGISTER, token), expected);
            }
            Step::Attach(who, t) => {
                let (m, token) = self.token(who, t);
                let expected = self.model.attach(m, token);
                assert_eq!(self.world.token(ids[m], command::ATTACH, token), expected);
            }
            Step::Detach(who, t) => {
                let (m, token) = self.token(who, t);
                let expected = self.model.detach(m, token);
                assert_eq!(self.world.token(ids[m], command::DETACH, token), expected);
            }
            Step::Signal(who, t) => {
                let (m, token) = self.token(who, t);
                let expected = self.model.signal(m, token);
                let told = self.world.signal(ids[m], token);
                assert_eq!(told.map_or_else(|refusal| refusal.status(), |_| s::OK), expected);
            }
            Step::Move(who, t, offset, len) => {
                let (m, token) = self.token(who, t);
                let expected = self.model.moves(m, token, offset, len);
                let moved = self.world.begin_move(ids[m], token, offset, len);
                let got = moved.map(|target| target.finish());
                assert_eq!(got.map_or_else(|refusal| refusal.status(), |_| s::OK), expected);
            }
            Step::Forget(a, b, p) => {
                let mut pairs = self.model.pairs.iter().rev();
                let pair = pairs.by_ref().filter(|p| p.members.contains(&a)).nth(p);
                let instance = pair.map_or(0, |p| p.instance);
                let peer = pair.and_then(|p| p.members.iter().copied().find(|m| *m != a));
                let b = b.or(peer).unwrap_or(a);
                let expected = self.model.forget(a, b, instance);
                let body = ForgetPeerRequest { gid: gid(nr(b)), instance }.to_bytes();
                assert_eq!(self.world.status(ids[a], command::FORGET_PEER, &body), expected);
            }
            Step::Software(a, b) => {
                let expected = self.model.software(a, b);
                let body = SignalEventRequest { gid: gid(nr(b)), code: 1, reserved: 0, info: 2 };
                let got = self.world.status(ids[a], command::SIGNAL_EVENT, &body.to_bytes());
                assert_eq!(got, expected);
            }
            Step::TakeSignals(m) => {
                let taken: BTreeSet<u32> = self.world.take_signals(ids[m]).into_iter().collect();
                assert_eq!(taken, std::mem::take(&mut self.model.signals[m]));
            }
        }
        self.world.work();
        self.check();
    }

    fn hello(&mut self, m: usize) {
        let reply = self.world.hello(self.ids[m]);
        if self.model.connected[m] {
            self.model.part(m);
            self.model.ready[m] = true;
            assert_eq!(status(&reply), s::OK);
            self.world.events.remove(&self.ids[m]);
        } else {
            assert_eq!(status(&reply), s::NOT_READY);
        }
    }

    fn query(&mut self, a: usize, b: usize) {
        let expected = match self.model.copied(a, b) {
            _ if !self.model.ready[a] => (s::NOT_READY, 0),
            None => (s::UNREACHABLE, 0),
            Some(copied) => (s::OK, if copied { 2 } else { 1 }),
        };
        let query = QueryRequest { gid: gid(nr(b)), vlan_id: 0, vlan_valid: 0, reserved: [0; 5] };
        let reply = self.world.call(self.ids[a], command::QUERY_RGID, &query.to_bytes()).unwrap();
        assert_eq!((status(&reply), body(&reply)[0]), expected);
    }

    fn register(&mut self, owner: usize, params: Params) {
        let mode = if params.copied { Mode::Copied } else { Mode::Mapped };
        let request: RegisterRequest =
            register(gid(nr(params.writer)), params.index, params.len, mode);
        let expected = self.model.register(owner, &params);
        let reply =
            self.world.call(self.ids[owner], command::REGISTER, &request.to_bytes()).unwrap();
        let answer = RegisterReply::from_bytes(body(&reply)).unwrap();
        match expected {
            Err(Err(refused)) => assert_eq!((status(&reply), answer.token), (refused, 0)),
            Err(Ok(token)) => assert_eq!((status(&reply), answer.token), (s::OK, token)),
            Ok(()) => {
                assert_eq!(status(&reply), s::OK);
                let (token, instance) = (answer.token, answer.instance);
                assert!(token != 0 && self.model.dmbs.iter().all(|d| d.token != token));
                let pair = self.model.pair_of(owner, params.writer);
                let known = self.model.pairs.iter().any(|p| p.instance == instance);
                assert!(pair.map_or(!known, |p| p.instance == instance));
                if !params.copied {
                    self.new_block(owner, &params, answer);
                }
                self.model.registered(owner, params, token, instance);
            }
        }
    }

    /// The DMB's memory is nobody else's, and zero.
    fn new_block(&mut self, owner: usize, params: &Params, answer: RegisterReply) {
        let (extent, _) = self.world.maps[&self.ids[owner]][&answer.extent_offset];
        let (start, len) = (answer.window_offset - answer.extent_offset, u64::from(params.len));
        let block = (extent, start, len.next_power_of_two());
        assert!(start.is_multiple_of(block.2) && start >= 8192);
        let pair = BTreeSet::from([self.ids[owner], self.ids[params.writer]]);
        assert_eq!(self.world.mapped_by[&extent], pair);
        for (zeroed, offset, len) in self.world.zeroed.drain(..) {
            assert!(self.dirty.remove(&(zeroed, offset, len)));
        }
        let apart = |&(e, at, n): &(ExtentId, u64, u64)| {
            e != extent || at + n <= block.1 || block.1 + block.2 <= at
        };
        assert!(self.dirty.iter().all(apart), "{block:?} overlaps one of {:?}", self.dirty);
        self.dirty.insert(block);
        self.blocks.insert(answer.token, block);
    }

    /// Everything that can be compared after a step.
    fn check(&mut self) {
        for (m, &id) in self.ids.clone().iter().enumerate() {
            let got: Vec<Expected> = self.world.take_events(id).iter().map(decode).collect();
            assert_eq!(got, std::mem::take(&mut self.model.events[m]), "events of {m}");
            let stats = self.world.fabric.stats(id).unwrap();
            assert_eq!(stats.charged_bytes, self.model.charged(m));
            let granted = self.model.dmbs.iter().filter(|d| d.granted && d.params.writer == m);
            assert_eq!(stats.wire.grants as usize, granted.count());
            let held = |d: &&ModelDmb| d.attached && !d.granted && d.params.writer == m;
            assert_eq!(stats.orphans as usize, self.model.dmbs.iter().filter(held).count());
            let peers = self.model.pairs.iter().filter(|p| p.left.contains(&m)).count();
            assert_eq!(stats.peers as usize, peers);
        }
        let pairs = self.model.pairs.iter().filter(|p| !p.left.is_empty()).count();
        assert_eq!(self.world.fabric.totals().pairs, pairs);
        assert_eq!(self.world.fabric.totals().extents, self.world.extents.len());
        assert!(self.world.mapped_by.values().all(|members| members.len() <= 2));
        assert_eq!(self.world.fabric.poll_timeout(), None);
        self.check_memory();
    }

    /// What somebody still uses is still mapped for it, and was not made zero.
    fn check_memory(&mut self) {
        let zeroed: Vec<_> = self.world.zeroed.drain(..).collect();
        for block in zeroed {
            assert!(self.dirty.remove(&block), "{block:?} was not used");
        }
        for dmb in &self.model.dmbs {
            let Some(block) = self.blocks.get(&dmb.token) else {
                continue;
            };
            let has = |m: usize| {
                let maps = self.world.maps.get(&self.ids[m]);
                maps.is_some_and(|maps| maps.values().any(|(extent, _)| *extent == block.0))
            };
            if dmb.registered {
                assert!(has(dmb.owner) && self.dirty.contains(block));
            }
            if dmb.granted || dmb.attached {
                assert!(has(dmb.params.writer) && self.dirty.contains(block));
            }
        }
    }
}

fn decode(event: &[u8; ism_abi::EVENT_SIZE]) -> Expected {
    let member = |gid: ism_abi::Gid| usize::from(gid[1]) - 1;
    let bytes = event_body(event);
    match kind(event) {
        event::DMB_GRANTED => {
            let granted = DmbGranted::from_bytes(bytes).unwrap();
            Expected::Granted { owner: member(granted.gid), token: granted.token }
        }
        event::DMB_UNREGISTERED => {
            let gone = DmbUnregistered::from_bytes(bytes).unwrap();
            Expected::Unregistered { owner: member(gone.gid), token: gone.token }
        }
        event::PEER_GONE => {
            let gone = PeerGone::from_bytes(bytes).unwrap();
            Expected::Gone { peer: member(gone.gid), instance: gone.instance }
        }
        _ => {
            let software = SoftwareEvent::from_bytes(bytes).unwrap();
            Expected::Software { sender: member(software.gid) }
        }
    }
}

proptest! {
    #[test]
    fn the_fabric_does_what_the_model_says(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
    }
}
