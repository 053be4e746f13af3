// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A member that sends anything, with a front-end that does anything, at any time.
//!
//! Invariant tested: nothing panics, every request is answered in its length, what others have is
//! untouched, and in the end everything can be given back.

use std::time::Duration;

use ism_abi::{
    AttachReply, ForgetPeerRequest, HelloRequest, MoveRequest, Ping, QueryRequest, RegisterReply,
    RegisterRequest, ReplyHeader, SignalEventRequest, TokenRequest, VlanRequest, command,
    status as s,
};
use ism_emulator::{Abilities, MemberId, Mode, MoveTarget, Quota, Tag, reply_len};
use proptest::prelude::*;

use crate::world::{WINDOW, World, body, config, gid, register, request, status};

/// One deed of the hostile member, its front-end, or time.
#[derive(Clone, Debug)]
enum Deed {
    /// A control request of any bytes.
    Control(Vec<u8>),
    /// A well-formed request with some bytes changed.
    Mutated(usize, usize, Vec<(usize, u8)>),
    Signal(Vec<u8>),
    /// A doorbell by a real token.
    TrueSignal(usize),
    Move(Vec<u8>, usize),
    /// A move by a real token.
    TrueMove(usize, u32, u32),
    /// A move that is under way ends in one of three ways.
    EndMove(usize, u8),
    Register(u8, u32, u32, bool),
    /// The others register DMBs for it.
    Grant(u32),
    Unregister(usize),
    Hello,
    Reset,
    Reconnect(Option<u64>, bool),
    Deaf(bool),
    Refuse(bool),
    Attentive(bool),
    FinishMaps(bool),
    PollEvent,
    EventsFailed,
    Wait(u64),
    Settle,
}

fn deed() -> impl Strategy<Value = Deed> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let any_len = || prop_oneof![6 => 0..70_u32, 1 => any::<u32>()];
    let mostly = |usual: bool| prop_oneof![3 => Just(usual), 1 => Just(!usual)];
    let window = || prop_oneof![3 => Just(Some(WINDOW)), 1 => prop::option::of(0..(1_u64 << 30))];
    prop_oneof![
        4 => bytes(100).prop_map(Deed::Control),
        10 => (0..64_usize, 0..20_usize, prop::collection::vec((0..80_usize, any::<u8>()), 0..4))
            .prop_map(|(which, token, changes)| Deed::Mutated(which, token, changes)),
        2 => bytes(20).prop_map(Deed::Signal),
        2 => (bytes(40), 0..100_usize).prop_map(|(bytes, len)| Deed::Move(bytes, len)),
        4 => (0..8_usize).prop_map(Deed::TrueSignal),
        8 => (0..8_usize, any_len(), any_len()).prop_map(|(t, o, l)| Deed::TrueMove(t, o, l)),
        3 => (0..5_usize, 0..3_u8).prop_map(|(n, how)| Deed::EndMove(n, how)),
        8 => (1..4_u8, 0..40_u32, 4..70_u32, any::<bool>())
            .prop_map(|(to, index, pages, copied)| Deed::Register(to, index, pages, copied)),
        4 => (0..20_usize).prop_map(Deed::Unregister),
        6 => (0..40_u32).prop_map(Deed::Grant),
        5 => Just(Deed::Hello),
        1 => Just(Deed::Reset),
        1 => (window(), mostly(true))
            .prop_map(|(window, copied)| Deed::Reconnect(window, copied)),
        1 => mostly(false).prop_map(Deed::Deaf),
        1 => mostly(false).prop_map(Deed::Refuse),
        1 => mostly(true).prop_map(Deed::Attentive),
        2 => any::<bool>().prop_map(Deed::FinishMaps),
        1 => Just(Deed::PollEvent),
        1 => Just(Deed::EventsFailed),
        3 => (0..3000_u64).prop_map(Deed::Wait),
        1 => Just(Deed::Settle),
    ]
}

/// A request of each command, with a real token and a real peer.
fn well_formed(which: usize, token: u64) -> Vec<u8> {
    let peer = gid(u8::try_from(1 + which / 16 % 3).unwrap_or(1));
    let token_body = TokenRequest { token }.to_bytes();
    let mapped = register(peer, 2, 1 << 16, Mode::Mapped);
    match which % 16 {
        0 => request(command::HELLO, &HelloRequest { version: 1, reserved: [0; 6] }.to_bytes()),
        1 => request(command::PING, &Ping { cookie: token }.to_bytes()),
        2 => request(command::STATS, &[]),
        3 => {
            let query = QueryRequest { gid: peer, vlan_id: 0, vlan_valid: 0, reserved: [0; 5] };
            request(command::QUERY_RGID, &query.to_bytes())
        }
        4 => {
            let forget = ForgetPeerRequest { gid: peer, instance: token % 16 };
            request(command::FORGET_PEER, &forget.to_bytes())
        }
        5 | 6 => request(command::REGISTER, &mapped.to_bytes()),
        7 => request(command::UNREGISTER, &token_body),
        8 | 9 => request(command::ATTACH, &token_body),
        10 => request(command::DETACH, &token_body),
        11 => request(command::ADD_VLAN, &VlanRequest { vlan_id: 5, reserved: [0; 6] }.to_bytes()),
        12 => request(command::DEL_VLAN, &VlanRequest { vlan_id: 5, reserved: [0; 6] }.to_bytes()),
        13 => {
            let event = SignalEventRequest { gid: peer, code: 1, reserved: 0, info: token };
            request(command::SIGNAL_EVENT, &event.to_bytes())
        }
        _ => {
            let vlan = RegisterRequest { vlan_valid: 1, vlan_id: 5, ..mapped };
            request(command::REGISTER, &vlan.to_bytes())
        }
    }
}

struct Siege {
    world: World,
    /// The hostile one.
    mallory: MemberId,
    /// Two that only want to talk.
    alice: MemberId,
    bob: MemberId,
    /// Alice's DMB that Bob writes.
    good: RegisterReply,
    /// Tokens of all, as if all had leaked.
    tokens: Vec<u64>,
    moves: Vec<MoveTarget>,
    /// Requests of the hostile one that were not answered, with their replies' lengths.
    open: Vec<(Tag, usize)>,
}

impl Siege {
    fn new() -> Self {
        let mut config = config();
        config.pair_extents = 2;
        let mut world = World::new(config);
        // Mapped with Alice, copied with Bob.
        let quota = Quota { signals_per_s: 20, ..Quota::default() };
        let mallory = world.silent_member(1, &["m", "checked"], quota);
        world.connect(mallory);
        world.hello(mallory);
        let alice = world.member(2, &["m", "default"]);
        let bob = world.member(3, &["checked", "default"]);
        let good = world.register(alice, register(gid(3), 9, 1 << 16, Mode::Mapped));
        let tokens = vec![good.token];
        let (moves, open) = (Vec::new(), Vec::new());
        Self { world, mallory, alice, bob, good, tokens, moves, open }
    }

    fn token(&self, nth: usize) -> u64 {
        self.tokens.iter().rev().nth(nth).copied().unwrap_or(1)
    }

    fn control(&mut self, bytes: &[u8]) {
        let tag = self.world.send(self.mallory, bytes);
        self.open.push((tag, reply_len(bytes)));
        self.collect();
    }

    /// Alice and Bob register for it, if it can be reached; tokens are no secret here.
    fn grant(&mut self, index: u32) {
        for (id, mode) in [(self.alice, Mode::Mapped), (self.bob, Mode::Copied)] {
            let bytes = register(gid(1), 100 + index, 1 << 14, mode).to_bytes();
            let reply = self.world.call(id, command::REGISTER, &bytes);
            let registered = reply.filter(|reply| status(reply) == s::OK);
            let token = registered.map(|r| RegisterReply::from_bytes(body(&r)).unwrap().token);
            self.tokens.extend(token);
        }
    }

    /// Looks at the answers that came.
    fn collect(&mut self) {
        let (world, tokens) = (&mut self.world, &mut self.tokens);
        self.open.retain(|(tag, len)| {
            let Some(reply) = world.replies.remove(tag) else {
                return true;
            };
            assert_eq!(reply.len(), *len);
            let zero = body(&reply).iter().all(|byte| *byte == 0);
            assert!(status(&reply) == s::OK || zero);
            if status(&reply) == s::OK && *len == ReplyHeader::SIZE + RegisterReply::SIZE {
                tokens.push(RegisterReply::from_bytes(body(&reply)).unwrap().token);
            }
            false
        });
    }

    fn run(&mut self, deed: Deed) {
        let (id, now) = (self.mallory, self.world.now);
        match deed {
            Deed::Control(bytes) => self.control(&bytes),
            Deed::Mutated(which, token, changes) => {
                let mut bytes = well_formed(which, self.token(token));
                for (at, value) in changes {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = value;
                    }
                }
                self.control(&bytes);
            }
            Deed::Signal(bytes) => drop(self.world.fabric.signal(id, &bytes, now)),
            Deed::TrueSignal(token) => drop(self.world.signal(id, self.token(token))),
            Deed::Move(bytes, len) => drop(self.world.fabric.begin_move(id, &bytes, len, now)),
            Deed::TrueMove(token, offset, len) => {
                let token = self.token(token);
                let header = MoveRequest { token, offset, len, signal: 1, reserved: 0 };
                let moved = self.world.fabric.begin_move(id, &header.to_bytes(), len as usize, now);
                self.moves.extend(moved);
            }
            Deed::EndMove(nth, how) => self.end_move(nth, how),
            Deed::Register(to, index, pages, copied) => {
                let mode = if copied { Mode::Copied } else { Mode::Mapped };
                let body = register(gid(to), index, pages << 12, mode).to_bytes();
                self.control(&request(command::REGISTER, &body));
            }
            Deed::Unregister(token) => {
                let body = TokenRequest { token: self.token(token) }.to_bytes();
                self.control(&request(command::UNREGISTER, &body));
            }
            Deed::Grant(index) => self.grant(index),
            Deed::Hello => self.control(&well_formed(0, 0)),
            Deed::Reset => {
                self.world.fabric.reset(id);
                self.open.clear();
            }
            Deed::Reconnect(window, copied) => {
                self.world.maps.remove(&id);
                self.world.fabric.connect(id, Abilities { window, copied, board: true }).unwrap();
                self.open.clear();
            }
            Deed::Deaf(deaf) => toggle(&mut self.world.deaf, id, deaf),
            Deed::Refuse(refuse) => toggle(&mut self.world.refusing, id, refuse),
            Deed::Attentive(yes) => toggle(&mut self.world.attentive, id, yes),
            Deed::FinishMaps(ok) => {
                for (extent, member) in self.world.unanswered.clone() {
                    self.world.fabric.finish_map(extent, member, ok);
                    self.world.fabric.finish_zero(extent, 0, 1 << 16, ok);
                }
            }
            Deed::PollEvent => drop(self.world.fabric.poll_event(id)),
            Deed::EventsFailed => self.world.fabric.events_failed(id),
            Deed::Wait(ms) => self.world.wait(Duration::from_millis(ms)),
            Deed::Settle => self.world.fabric.settle(),
        }
        self.world.work();
        self.collect();
        self.untouched();
    }

    fn end_move(&mut self, nth: usize, how: u8) {
        if nth >= self.moves.len() {
            return;
        }
        let target = self.moves.swap_remove(nth);
        let finished = match how {
            0 => target.finish(),
            1 => target.fail(),
            _ => return drop(target),
        };
        if finished.settle {
            self.world.fabric.settle();
        }
    }

    /// The others' pair works as before; the hostile one has none of it in its window.
    fn untouched(&mut self) {
        let (alice, bob, token) = (self.alice, self.bob, self.good.token);
        self.world.take_signals(alice);
        assert_eq!(self.world.signal(bob, token), Ok(Some(alice)));
        assert_eq!(self.world.take_signals(alice), [9]);
        let attach = request(command::ATTACH, &token.to_le_bytes());
        let tag = self.world.send(bob, &attach);
        let reply = self.world.replies.remove(&tag).unwrap();
        assert_eq!(AttachReply::from_bytes(body(&reply)).unwrap().len, 1 << 16);
        let (extent, _) = self.world.maps[&alice][&self.good.extent_offset];
        assert!(!self.world.mapped_by[&extent].contains(&self.mallory));
        self.world.take_events(alice);
        self.world.take_events(bob);
    }

    /// Everybody leaves: nothing stays.
    fn end(mut self) {
        self.moves.clear();
        let members = [self.mallory, self.alice, self.bob];
        self.world.register(self.alice, register(gid(3), 10, 1 << 14, Mode::Mapped));
        members.iter().for_each(|&id| self.world.fabric.remove_member(id));
        self.world.work();
        let totals = self.world.fabric.totals();
        let left = (totals.members, totals.pairs, totals.extents, totals.dmbs);
        assert_eq!(left, (0, 0, 0, 0));
        assert!(self.world.extents.is_empty());
        self.world.wait(Duration::from_secs(10));
        assert_eq!(self.world.fabric.poll_timeout(), None);
    }
}

fn toggle(set: &mut std::collections::BTreeSet<MemberId>, id: MemberId, present: bool) {
    if present {
        set.insert(id);
    } else {
        set.remove(&id);
    }
}

proptest! {
    #[test]
    fn nobody_else_is_hurt(deeds in prop::collection::vec(deed(), 1..150)) {
        let mut siege = Siege::new();
        for deed in deeds {
            siege.run(deed);
        }
        siege.end();
    }
}
