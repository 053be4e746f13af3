// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each command on the way it is meant to go, and one step beside it.
//!
//! Invariant tested: every command's OK, and each refusal that its own fields can earn.

use std::collections::BTreeSet;

use ism_abi::{
    AttachReply, Config, DmbGranted, DmbUnregistered, HelloReply, HelloRequest, QueryReply,
    QueryRequest, RegisterReply, SignalEventRequest, SoftwareEvent, StatsReply, VlanRequest,
    command, event, mode, status as s,
};
use ism_emulator::{Abilities, ConfigError, MemberConfig, Mode, Quota, Refusal, Wish};

use crate::world::{WINDOW, World, body, config, event_body, gid, kind, register, request, status};

fn query(w: &mut World, from: ism_emulator::MemberId, to: u8, vlan: Option<u16>) -> (u32, u8) {
    let body_bytes = QueryRequest {
        gid: gid(to),
        vlan_id: vlan.unwrap_or(0),
        vlan_valid: u8::from(vlan.is_some()),
        reserved: [0; 5],
    };
    let reply = w.call(from, command::QUERY_RGID, &body_bytes.to_bytes()).unwrap();
    (status(&reply), QueryReply::from_bytes(body(&reply)).unwrap().mode)
}

#[test]
fn config_space_says_what_the_driver_needs() {
    let mut w = World::new(config());
    let a = w.member(1, &["m"]);
    let read = Config::from_bytes(&w.fabric.config(a)).unwrap();
    assert_eq!((read.gid, read.fabric_id, read.window_size), (gid(1), 0xff01, WINDOW));
    assert_eq!((read.chunk_size, read.notify_size, read.max_dmb_len), (32 << 20, 0, 2 << 20));
    w.fabric.connect(a, Abilities { window: None, copied: true, board: true }).unwrap();
    let read = Config::from_bytes(&w.fabric.config(a)).unwrap();
    assert_eq!((read.chunk_size, read.window_size), (0, 0));
}

#[test]
fn hello_tells_the_quota_and_wants_our_version() {
    let mut w = World::new(config());
    let quota = Quota {
        bytes: 9,
        dmbs: 8,
        peers: 7,
        signals_per_s: 6000,
        control_per_s: 5000,
        ..Quota::default()
    };
    let a = w.silent_member(1, &["m"], quota);
    w.connect(a);
    let reply = w.hello(a);
    let limits = HelloReply::from_bytes(body(&reply)).unwrap();
    let told = (limits.max_bytes, limits.max_dmbs, limits.max_peers);
    assert_eq!(told, (9, 8, 7));
    assert_eq!((limits.max_signal_rate, limits.max_control_rate), (6000, 5000));
    for version in [0, 2, u16::MAX] {
        let hello = HelloRequest { version, reserved: [0; 6] };
        assert_eq!(w.status(a, command::HELLO, &hello.to_bytes()), s::INVALID);
    }
}

#[test]
fn before_hello_everything_is_refused() {
    let mut w = World::new(config());
    let a = w.silent_member(1, &["m"], Quota::default());
    w.connect(a);
    // PING too: a driver whose device was reset behind its back learns of it so.
    for command in
        [command::PING, command::STATS, command::REGISTER, command::ADD_VLAN, command::DETACH]
    {
        assert_eq!(w.status(a, command, &[]), s::NOT_READY);
    }
    assert_eq!(w.signal(a, 1), Err(Refusal::NotReady));
    assert_eq!(w.begin_move(a, 1, 0, 4).unwrap_err(), Refusal::NotReady);
}

#[test]
fn malformed_requests_are_refused_in_full_length() {
    let mut w = World::new(config());
    let a = w.member(1, &["m"]);
    let send = |w: &mut World, bytes: &[u8]| {
        let tag = w.send(a, bytes);
        w.replies.remove(&tag).unwrap()
    };
    assert_eq!(status(&send(&mut w, &[])), s::INVALID);
    assert_eq!(status(&send(&mut w, &request(0xeeee, &[]))), s::UNSUPPORTED);
    let mut dirty = request(command::STATS, &[]);
    dirty[5] = 1;
    assert_eq!(status(&send(&mut w, &dirty)), s::INVALID);
    let short = send(&mut w, &request(command::REGISTER, &[0; 3]));
    assert_eq!(status(&short), s::INVALID);
    assert_eq!(short.len(), ism_emulator::reply_len(&request(command::REGISTER, &[])));
    assert!(body(&short).iter().all(|byte| *byte == 0));
}

#[test]
fn register_grants_then_answers() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let request = register(gid(2), 70, 64 << 10, Mode::Mapped).to_bytes();
    let reply = w.call(a, command::REGISTER, &request).unwrap();
    assert_eq!(status(&reply), s::OK);
    let mine = RegisterReply::from_bytes(body(&reply)).unwrap();
    let events = w.take_events(b);
    assert_eq!(kind(&events[0]), event::DMB_GRANTED);
    let theirs = DmbGranted::from_bytes(event_body(&events[0])).unwrap();
    assert_eq!((theirs.token, theirs.index, theirs.gid), (mine.token, 70, gid(1)));
    assert_eq!((theirs.len, theirs.mode), (64 << 10, mode::MAPPED));
    // Each at its own place, the same place in the extent; the first extent starts with signals.
    let (my_extent, at_mine) = w.maps[&a][&mine.extent_offset];
    assert_eq!((at_mine, mine.extent_len), (32 << 20, 32 << 20));
    let (&their_offset, &(their_extent, _)) = w.maps[&b].first_key_value().unwrap();
    assert_eq!(my_extent, their_extent);
    let place = mine.window_offset - mine.extent_offset;
    assert_eq!(place, theirs.window_offset - their_offset);
    assert!(place >= 64 << 10 && place.is_multiple_of(64 << 10));
    assert_eq!(mine.signal_offset - mine.extent_offset, theirs.signal_offset - their_offset);
    // The other direction has the other page.
    let back = w.register(b, register(gid(1), 0, 16 << 10, Mode::Mapped));
    assert_eq!(back.instance, mine.instance);
    assert_ne!(back.signal_offset - back.extent_offset, mine.signal_offset - mine.extent_offset);

    assert_eq!(w.signal(b, mine.token), Ok(Some(a)));
    assert_eq!(w.take_signals(a), [70]);
    w.take_events(b);
    assert_eq!(w.token(a, command::UNREGISTER, mine.token), s::OK);
    let events = w.take_events(b);
    assert_eq!(kind(&events[0]), event::DMB_UNREGISTERED);
    let gone = DmbUnregistered::from_bytes(event_body(&events[0])).unwrap();
    assert_eq!((gone.gid, gone.token), (gid(1), mine.token));
    assert_eq!(w.zeroed, [(my_extent, place, 64 << 10)]);
    assert_eq!(w.token(a, command::UNREGISTER, mine.token), s::NO_TOKEN);
    assert_eq!(w.signal(b, mine.token), Err(Refusal::NoToken));
}

#[test]
fn register_again_is_the_same_or_in_use() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let request = register(gid(2), 7, 64 << 10, Mode::Mapped);
    let first = w.register(a, request);
    assert_eq!(w.register(a, request), first);
    assert_eq!(w.take_events(b).len(), 1);
    for other in [
        ism_abi::RegisterRequest { len: 32 << 10, ..request },
        ism_abi::RegisterRequest { rgid: gid(1), ..request },
        ism_abi::RegisterRequest { rgid: gid(9), ..request },
    ] {
        assert_eq!(w.try_register(a, other), s::IN_USE);
    }
    let charged = w.fabric.stats(a).unwrap().charged_bytes;
    assert_eq!(charged, 64 << 10);
}

#[test]
fn register_checks_its_fields() {
    let mut w = World::new(config());
    let (a, _b) = (w.member(1, &["m", "c"]), w.member(2, &["c"]));
    let good = register(gid(2), 7, 64 << 10, Mode::Copied);
    type Request = ism_abi::RegisterRequest;
    for bad in [
        Request { index: 4096, ..good },
        Request { index: u32::MAX, ..good },
        Request { len: 0, ..good },
        Request { len: (16 << 10) - 4096, ..good },
        Request { len: (64 << 10) + 1, ..good },
        Request { len: (2 << 20) + 4096, ..good },
        Request { ram_addr: 4, ..good },
        Request { ram_addr: u64::MAX - 4095, ..good },
        Request { vlan_valid: 2, ..good },
        Request { vlan_valid: 1, vlan_id: 0, ..good },
        Request { vlan_valid: 1, vlan_id: 4095, ..good },
        Request { mode: 0, ..good },
        Request { mode: 3, ..good },
        Request { reserved: [0, 0, 0, 1], ..good },
        register(gid(2), 7, 64 << 10, Mode::Mapped).with_ram(4096),
    ] {
        assert_eq!(w.try_register(a, bad), s::INVALID, "{bad:?}");
    }
    let mapped = register(gid(2), 7, 64 << 10, Mode::Mapped);
    assert_eq!(w.try_register(a, mapped), s::WRONG_MODE);
    assert_eq!(w.try_register(a, Request { rgid: gid(9), ..good }), s::UNREACHABLE);
    assert_eq!(w.try_register(a, Request { vlan_valid: 1, vlan_id: 5, ..good }), s::UNREACHABLE);
    assert_eq!(w.fabric.totals().dmbs, 0);
    let copied = w.register(a, good);
    let window = (copied.window_offset, copied.extent_len, copied.signal_offset);
    assert_eq!(window, (0, 0, 0));
    assert_ne!(copied.instance, 0);
}

trait WithRam {
    fn with_ram(self, ram_addr: u64) -> Self;
}

impl WithRam for ism_abi::RegisterRequest {
    fn with_ram(self, ram_addr: u64) -> Self {
        Self { ram_addr, ..self }
    }
}

#[test]
fn groups_decide_who_talks_and_how() {
    let mut w = World::new(config());
    let a = w.member(1, &["m"]);
    let b = w.member(2, &["m", "c"]);
    let c = w.member(3, &["c"]);
    assert_eq!(query(&mut w, a, 2, None), (s::OK, mode::MAPPED));
    assert_eq!(query(&mut w, b, 3, None), (s::OK, mode::COPIED));
    assert_eq!(query(&mut w, a, 3, None), (s::UNREACHABLE, 0));
    assert_eq!(query(&mut w, a, 77, None), (s::UNREACHABLE, 0));
    assert_eq!(query(&mut w, a, 1, None), (s::OK, mode::MAPPED));
    assert_eq!(query(&mut w, c, 3, None), (s::OK, mode::COPIED));
    assert_eq!(w.try_register(a, register(gid(3), 0, 1 << 16, Mode::Mapped)), s::UNREACHABLE);
    // A member of no named group is in the default one.
    let (d, _) = (w.member(4, &[]), w.member(5, &["default"]));
    assert_eq!(query(&mut w, d, 5, None), (s::OK, mode::MAPPED));
}

#[test]
fn without_a_window_a_pair_is_copied() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.fabric.connect(b, Abilities { window: None, copied: true, board: true }).unwrap();
    w.hello(b);
    assert_eq!(query(&mut w, a, 2, None), (s::OK, mode::COPIED));
    // Too small for one extent: the same.
    w.fabric.connect(b, Abilities { window: Some(32 << 20), copied: true, board: true }).unwrap();
    w.hello(b);
    assert_eq!(query(&mut w, a, 2, None), (s::OK, mode::COPIED));
    w.fabric.connect(b, Abilities { window: None, copied: false, board: true }).unwrap();
    w.hello(b);
    assert_eq!(query(&mut w, a, 2, None), (s::UNREACHABLE, 0));
}

#[test]
fn a_vlan_wants_both() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let join = |w: &mut World, id, vlan_id, command| {
        w.status(id, command, &VlanRequest { vlan_id, reserved: [0; 6] }.to_bytes())
    };
    assert_eq!(query(&mut w, a, 2, Some(0x1fff)).0, s::OK);
    assert_eq!(query(&mut w, a, 2, Some(5)).0, s::UNREACHABLE);
    assert_eq!(join(&mut w, a, 5, command::ADD_VLAN), s::OK);
    assert_eq!(query(&mut w, a, 2, Some(5)).0, s::UNREACHABLE);
    assert_eq!(join(&mut w, b, 5, command::ADD_VLAN), s::OK);
    assert_eq!(query(&mut w, a, 2, Some(5)).0, s::OK);
    assert_eq!(join(&mut w, b, 5, command::DEL_VLAN), s::OK);
    assert_eq!(query(&mut w, a, 2, Some(5)).0, s::UNREACHABLE);
    assert_eq!(join(&mut w, a, 0x1fff, command::ADD_VLAN), s::OK);
    assert_eq!(join(&mut w, a, 0x1fff, command::DEL_VLAN), s::OK);
    for id in [0, 4095, u16::MAX] {
        assert_eq!(join(&mut w, a, id, command::ADD_VLAN), s::INVALID);
    }
    let member = MemberConfig {
        name: "walled".to_owned(),
        gid: gid(3),
        groups: vec!["m".to_owned()],
        vlans: Some(BTreeSet::from([7])),
        quota: Quota::default(),
    };
    let c = w.fabric.add_member(member).unwrap();
    w.connect(c);
    w.hello(c);
    assert_eq!(join(&mut w, c, 7, command::ADD_VLAN), s::OK);
    assert_eq!(join(&mut w, c, 5, command::ADD_VLAN), s::UNREACHABLE);
}

#[test]
fn attach_is_for_the_writer_in_mapped_mode() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m", "c"]));
    let c = w.member(3, &["m", "c"]);
    let dmb = w.register(a, register(gid(2), 7, 64 << 10, Mode::Mapped));
    let granted = DmbGranted::from_bytes(event_body(&w.take_events(b)[0])).unwrap();
    let token = ism_abi::TokenRequest { token: dmb.token }.to_bytes();
    let reply = w.call(b, command::ATTACH, &token).unwrap();
    let attached = AttachReply::from_bytes(body(&reply)).unwrap();
    let place = (attached.window_offset, attached.len, attached.index);
    assert_eq!(place, (granted.window_offset, 64 << 10, 7));
    assert_eq!(w.call(b, command::ATTACH, &token).unwrap(), reply);
    for stranger in [a, c] {
        assert_eq!(w.token(stranger, command::ATTACH, dmb.token), s::NO_TOKEN);
        assert_eq!(w.token(stranger, command::DETACH, dmb.token), s::NO_TOKEN);
    }
    assert_eq!(w.token(b, command::DETACH, dmb.token), s::OK);
    assert_eq!(w.token(b, command::DETACH, dmb.token), s::OK);

    let d = w.member(4, &["c"]);
    let copied = w.register(d, register(gid(2), 0, 64 << 10, Mode::Copied));
    assert_eq!(w.token(b, command::ATTACH, copied.token), s::WRONG_MODE);
    assert_eq!(w.token(b, command::DETACH, copied.token), s::WRONG_MODE);
}

#[test]
fn an_attached_dmb_outlives_its_registration() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let dmb = w.register(a, register(gid(2), 7, 64 << 10, Mode::Mapped));
    assert_eq!(w.token(b, command::ATTACH, dmb.token), s::OK);
    assert_eq!(w.token(a, command::UNREGISTER, dmb.token), s::OK);
    assert_eq!(w.take_events(b).last().map(kind), Some(event::DMB_UNREGISTERED));
    assert!(w.zeroed.is_empty());
    assert_eq!(w.token(b, command::ATTACH, dmb.token), s::NO_TOKEN);
    assert_eq!(w.signal(b, dmb.token), Err(Refusal::NoToken));
    let next = w.register(a, register(gid(2), 7, 64 << 10, Mode::Mapped));
    assert_ne!(next.window_offset, dmb.window_offset);
    assert_eq!(w.token(b, command::DETACH, dmb.token), s::OK);
    assert_eq!(w.zeroed.len(), 1);
    assert_eq!(w.token(b, command::DETACH, dmb.token), s::NO_TOKEN);
}

#[test]
fn memory_is_zero_before_it_is_used_again() {
    let mut w = World::new(config());
    let a = w.member(1, &["m"]);
    let dmb = w.register(a, register(gid(1), 7, 1 << 20, Mode::Mapped));
    // The daemon does not get to its wishes yet.
    let request = request(command::UNREGISTER, &dmb.token.to_le_bytes());
    let reply = w.fabric.control(a, ism_emulator::Tag(99), &request, w.now).unwrap();
    assert_eq!(status(reply.as_bytes()), s::OK);
    let (zero, others): (Vec<_>, Vec<_>) =
        std::iter::from_fn(|| w.fabric.poll_wish()).partition(|w| matches!(w, Wish::Zero { .. }));
    others.into_iter().for_each(|wish| w.carry_out(wish));
    let other = w.register(a, register(gid(1), 7, 1 << 20, Mode::Mapped));
    assert_ne!(other.window_offset, dmb.window_offset);
    zero.into_iter().for_each(|wish| w.carry_out(wish));
    let third = w.register(a, register(gid(1), 8, 1 << 20, Mode::Mapped));
    assert_eq!(third.window_offset, dmb.window_offset);
}

#[test]
fn software_events_carry_the_senders_gid() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let event_to = |to| SignalEventRequest { gid: gid(to), code: 3, reserved: 0, info: 44 };
    assert_eq!(w.status(a, command::SIGNAL_EVENT, &event_to(2).to_bytes()), s::OK);
    let events = w.take_events(b);
    assert_eq!(kind(&events[0]), event::SOFTWARE_EVENT);
    let got = SoftwareEvent::from_bytes(event_body(&events[0])).unwrap();
    assert_eq!((got.gid, got.code, got.info), (gid(1), 3, 44));
    assert_eq!(w.status(a, command::SIGNAL_EVENT, &event_to(9).to_bytes()), s::UNREACHABLE);
    let dirty = SignalEventRequest { reserved: 1, ..event_to(2) };
    assert_eq!(w.status(a, command::SIGNAL_EVENT, &dirty.to_bytes()), s::INVALID);
}

#[test]
fn stats_count() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["c"]), w.member(2, &["c"]));
    let dmb = w.register(a, register(gid(2), 7, 64 << 10, Mode::Copied));
    w.signal(b, dmb.token).unwrap();
    w.begin_move(b, dmb.token, 0, 100).unwrap().finish();
    w.begin_move(b, dmb.token, 0, 100).unwrap().fail();
    w.token(b, command::DETACH, 1);
    w.take_signals(a);
    let mut stats = |id| {
        let reply = w.call(id, command::STATS, &[]).unwrap();
        StatsReply::from_bytes(body(&reply)).unwrap()
    };
    let (of_a, of_b) = (stats(a), stats(b));
    assert_eq!((of_a.dmbs, of_a.dmb_bytes, of_a.grants), (1, 64 << 10, 0));
    assert_eq!((of_a.signals_received, of_a.errors), (1, 0));
    assert_eq!((of_b.dmbs, of_b.grants, of_b.signals_sent), (0, 1, 2));
    assert_eq!((of_b.moves, of_b.move_bytes, of_b.errors), (1, 100, 2));
}

#[test]
fn configurations_are_checked() {
    let mut w = World::new(config());
    let member = |n: u8, group: &str| MemberConfig {
        name: format!("vm{n}"),
        gid: gid(n),
        groups: vec![group.to_owned()],
        vlans: None,
        quota: Quota::default(),
    };
    let id = w.fabric.add_member(member(1, "m")).unwrap();
    let unknown = w.fabric.add_member(member(2, "x")).unwrap_err();
    assert_eq!(unknown.to_string(), "group \"x\" is not configured");
    // The low half counts alone.
    let mut twin = member(1, "m");
    twin.gid[1] = 99;
    assert!(matches!(w.fabric.add_member(twin), Err(ConfigError::Gid { taken_by: Some(_), .. })));
    for half in [0..8, 8..16] {
        let mut zero = member(3, "m");
        zero.gid[half].fill(0);
        let refused = w.fabric.add_member(zero);
        assert!(matches!(refused, Err(ConfigError::Gid { taken_by: None, .. })));
    }
    let vlan = MemberConfig { vlans: Some(BTreeSet::from([0])), ..member(3, "m") };
    assert_eq!(w.fabric.add_member(vlan), Err(ConfigError::Vlan(0)));
    w.fabric.remove_member(id);
    assert!(w.fabric.add_member(member(1, "m")).is_ok());
    assert_eq!(w.fabric.connect(id, Abilities::default()), Err(ConfigError::NoMember(id)));
    let mut low = config();
    low.fabric_id = 0x1234;
    assert!(matches!(low.check(), Err(ConfigError::Range { what: "fabric id", .. })));
    let mut odd = config();
    odd.chunk_size += 4096;
    assert_eq!(odd.check(), Err(ConfigError::ChunkAlign((32 << 20) + 4096)));
}
