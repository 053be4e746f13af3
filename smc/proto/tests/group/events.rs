// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-D's events: shutdown, test link, device gone.

use std::time::Duration;

use smc_proto::Instant;
use smc_proto::group::{Ask, Cause, Fate, Peer, Role, Version, Wish};
use smc_proto::id::{ConnId, DeviceId, GroupId};
use smc_proto::smcd::event::{DeviceEvent, EventCode, EventInfo};
use smc_wire::id::IsmGid;

use crate::engine::{Engine, link, native, smcd, smcr};

const EMULATED: DeviceId = DeviceId(1);
const REAL: DeviceId = DeviceId(2);

fn shutdown(gid: IsmGid, vlan: u16) -> DeviceEvent {
    let info = EventInfo { group: [1, 2, 3, 4], vlan, code: EventInfo::REQUEST }.bits();
    DeviceEvent::Software { gid, code: EventCode::SHUTDOWN, info }
}

/// One connection to each of the peers; gives their groups.
fn with(asks: &[Ask]) -> (Engine, Vec<GroupId>) {
    let mut engine = Engine::new();
    let mut groups = Vec::new();
    for (ask, conn) in asks.iter().zip(1..) {
        let joined = match ask.role {
            Role::Server => engine.groups.join_server(ConnId(conn), ask).unwrap(),
            Role::Client => engine.groups.join_client(ConnId(conn), ask, true).unwrap(),
        };
        groups.push(joined.group);
    }
    engine.run();
    engine.take_seen();
    (engine, groups)
}

/// Which of the groups an event ends.
fn ended(asks: &[Ask], device: DeviceId, event: &DeviceEvent) -> Vec<bool> {
    let (mut engine, groups) = with(asks);
    engine.groups.handle_event(device, event);
    let is_ending = |id: &GroupId| engine.groups.infos().any(|info| info.id == *id && info.ending);
    groups.iter().map(is_ending).collect()
}

// row 52
#[test]
fn a_shutdown_ends_the_groups_with_its_sender_only() {
    let server = Role::Server;
    // the other peers differ in the first or in the last 64 bits
    let emulated = [smcd(server, 7, 8), smcd(server, 6, 8), smcd(server, 7, 9), smcd(server, 6, 9)];
    let event = shutdown(IsmGid { gid: 7, ext: 8 }, 0);
    assert_eq!(ended(&emulated, EMULATED, &event), [true, false, false, false]);
    assert_eq!(ended(&emulated, DeviceId(3), &event), [false; 4]);
    // Linux ends them all here, because both extensions are 0
    let real = [native(server, 7, 0), native(server, 6, 0), native(server, 5, 0)];
    let event = shutdown(IsmGid { gid: 6, ext: 0 }, 0);
    assert_eq!(ended(&real, REAL, &event), [false, true, false]);
    assert_eq!(ended(&real, REAL, &shutdown(IsmGid::default(), 0)), [false; 3], "from nobody");
    // an SMC-R group has no ISM device
    let event = shutdown(IsmGid::default(), EventInfo::ANY_VLAN);
    assert_eq!(ended(&[smcr(server, Version::V2, 1, link(2, 3, 4))], REAL, &event), [false]);
}

// row 52
#[test]
fn a_shutdown_of_one_vlan_leaves_the_others() {
    let gid = IsmGid { gid: 7, ext: 0 };
    let vlans = [0, 5, 6].map(|vlan| native(Role::Server, 7, vlan));
    assert_eq!(ended(&vlans, REAL, &shutdown(gid, 5)), [false, true, false]);
    assert_eq!(ended(&vlans, REAL, &shutdown(gid, 0)), [true, false, false]);
    assert_eq!(ended(&vlans, REAL, &shutdown(gid, EventInfo::ANY_VLAN)), [true; 3]);
}

/// Between Linux hosts on a VLAN with version 2, the client's group has the VLAN and the server's
/// none; the event carries the sender's.
// row 49
#[test]
fn version_2_on_a_vlan_understands_linux() {
    let on_vlan = |role| Ask { vlan: 5, ..smcd(role, 7, 8) };
    let gid = IsmGid { gid: 7, ext: 8 };
    let cases = [
        // we are the server, the event comes from a Linux client, from ours, from elsewhere
        (Role::Server, 5, true),
        (Role::Server, 0, true),
        (Role::Server, 6, false),
        // we are the client, the event comes from a server
        (Role::Client, 0, true),
        (Role::Client, 5, false),
    ];
    for (role, vlan, meant) in cases {
        let ends = ended(&[on_vlan(role)], EMULATED, &shutdown(gid, vlan));
        assert_eq!(ends, [meant], "{role:?} {vlan}");
    }
    // what we send is what the Linux peer's group has
    for (role, vlan) in [(Role::Server, 5), (Role::Client, 0)] {
        let (mut engine, groups) = with(&[on_vlan(role)]);
        engine.groups.terminate(groups[0], Cause::Operator);
        engine.run();
        let seen = engine.take_seen();
        let [_, Wish::Signal { info, .. }] = seen[..] else { panic!("{seen:?}") };
        assert_eq!(EventInfo::from_bits(info).vlan, vlan, "{role:?}");
    }
}

// row 49
#[test]
fn an_idle_group_tells_the_peer_of_its_end() {
    let (mut engine, groups) = with(&[native(Role::Server, 7, 5)]);
    engine.leave(groups[0], ConnId(1), Fate::Reuse);
    engine.advance(Instant(0).after(Duration::from_secs(599)));
    assert_eq!(engine.take_seen(), []);
    engine.advance(Instant(0).after(Duration::from_secs(600)));
    let group = groups[0].0.to_ne_bytes();
    let info = EventInfo { group, vlan: 5, code: EventInfo::REQUEST }.bits();
    let gid = IsmGid { gid: 7, ext: 0 };
    let signal = Wish::Signal { device: REAL, gid, code: EventCode::SHUTDOWN, info };
    let remove = Wish::RemoveVlan { device: REAL, vlan: 5 };
    assert_eq!(engine.take_seen(), [signal, remove, Wish::Gone { group: groups[0] }]);
}

#[test]
fn an_idle_group_says_nothing_while_its_twin_is_busy() {
    // the event would end both groups at the peer
    let client = smcd(Role::Client, 7, 8);
    let (mut engine, groups) = with(&[client, client]);
    assert_ne!(groups[0], groups[1]);
    engine.leave(groups[0], ConnId(1), Fate::Reuse);
    engine.advance(Instant(0).after(Duration::from_secs(600)));
    assert_eq!(engine.take_seen(), [Wish::Gone { group: groups[0] }]);
    engine.leave(groups[1], ConnId(2), Fate::Reuse);
    engine.advance(Instant(0).after(Duration::from_secs(1200)));
    assert!(matches!(engine.take_seen()[..], [Wish::Signal { .. }, Wish::Gone { .. }]));
}

#[test]
fn a_peer_that_is_gone_is_not_told() {
    let gid = IsmGid { gid: 7, ext: 8 };
    for event in [shutdown(gid, 0), DeviceEvent::Device { gid }] {
        let (mut engine, groups) = with(&[smcd(Role::Server, 7, 8)]);
        engine.groups.handle_event(EMULATED, &event);
        engine.run();
        assert_eq!(engine.take_seen(), [Wish::Kill { conn: ConnId(1), tell_peer: false }]);
        engine.leave(groups[0], ConnId(1), Fate::Reuse);
        assert_eq!(engine.take_seen(), [Wish::Gone { group: groups[0] }]);
    }
}

// row 50
#[test]
fn a_test_link_request_is_answered_with_the_same_bits() {
    let gid = IsmGid { gid: 7, ext: 8 };
    for code in 0..=3 {
        let mut engine = Engine::new();
        let info = EventInfo { group: [9, 8, 7, 6], vlan: 0x123, code };
        let event = DeviceEvent::Software { gid, code: EventCode::TEST_LINK, info: info.bits() };
        engine.groups.handle_event(EMULATED, &event);
        engine.run();
        let info = EventInfo { code: 2, ..info }.bits();
        let answer = Wish::Signal { device: EMULATED, gid, code: EventCode::TEST_LINK, info };
        let expected = if code == 1 { vec![answer] } else { vec![] };
        assert_eq!(engine.take_seen(), expected, "{code}");
    }
}

// row 51
#[test]
fn a_device_event_ends_all_groups_to_that_device() {
    let on_vlan = |vlan, ext| Ask { vlan, ..smcd(Role::Server, 7, ext) };
    let v1 = Ask { version: Version::V1, ..on_vlan(6, 8) };
    let asks = [on_vlan(5, 8), v1, on_vlan(0, 9)];
    let event = DeviceEvent::Device { gid: IsmGid { gid: 7, ext: 8 } };
    assert_eq!(ended(&asks, EMULATED, &event), [true, true, false]);
    let all = DeviceEvent::Device { gid: IsmGid::default() };
    assert_eq!(ended(&asks, EMULATED, &all), [true; 3]);
    assert_eq!(ended(&asks, REAL, &all), [false; 3]);
}

#[test]
fn other_events_do_nothing() {
    let gid = IsmGid { gid: 7, ext: 8 };
    let asks = [smcd(Role::Server, 7, 8)];
    assert_eq!(ended(&asks, EMULATED, &DeviceEvent::Buffer), [false]);
    for code in [0, 0x7F, 0x81, u32::MAX] {
        let event = DeviceEvent::Software { gid, code: EventCode(code), info: u64::MAX };
        assert_eq!(ended(&asks, EMULATED, &event), [false], "{}", EventCode(code));
    }
}

#[test]
fn our_device_that_goes_takes_its_groups_along() {
    let link = link(2, 3, 4);
    let asks = [
        smcd(Role::Server, 7, 8),
        smcd(Role::Client, 6, 8),
        native(Role::Server, 7, 0),
        smcr(Role::Server, Version::V2, 1, link),
    ];
    let (mut engine, groups) = with(&asks);
    engine.groups.terminate_device(EMULATED);
    engine.run();
    let kills = engine.take_seen();
    let killed = |conn| Wish::Kill { conn: ConnId(conn), tell_peer: true };
    assert!(matches!(kills[..], [one, Wish::Signal { .. }, two, Wish::Signal { .. }]
        if one == killed(1) && two == killed(2)));
    let ending: Vec<bool> = engine.groups.infos().map(|info| info.ending).collect();
    assert_eq!(ending, [true, true, false, false]);
    assert!(groups.iter().all(|group| engine.groups.peer(*group).is_some()));
    assert!(matches!(engine.groups.peer(groups[3]), Some(Peer::Smcr(_))));
}
