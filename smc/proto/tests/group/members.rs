// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who shares a group with whom, and how long a group lives.

use std::time::Duration;

use smc_proto::Instant;
use smc_proto::group::{
    Ask, Cause, Fate, GroupError, Groups, IDLE, IDLE_CLIENT, JoinError, Peer, Role, Version,
    VlanState, Wish,
};
use smc_proto::id::{ConnId, DeviceId};

use crate::engine::{Engine, link, native, smcd, smcr};

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

#[test]
fn smcd_shares_a_group_among_both_roles() {
    let mut engine = Engine::new();
    let first = engine.groups.join_server(A, &smcd(Role::Server, 7, 8)).unwrap();
    let second = engine.groups.join_client(B, &smcd(Role::Client, 7, 8), false).unwrap();
    assert!(first.first_contact && !second.first_contact);
    assert_eq!(first.group, second.group);
    assert_eq!(engine.groups.members(first.group).collect::<Vec<_>>(), [A, B]);
}

// smc_core.c:1963 smcd_lgr_match
#[test]
fn smcd_groups_are_told_apart_by_what_both_sides_see() {
    let other_device = |ask: Ask| match ask.peer {
        Peer::Smcd(mut peer) => {
            peer.device = DeviceId(9);
            Ask { peer: Peer::Smcd(peer), ..ask }
        }
        Peer::Smcr(_) => ask,
    };
    let real = |gid, ext, vlan, version| {
        let mut ask = native(Role::Server, gid, vlan);
        if let Peer::Smcd(peer) = &mut ask.peer {
            peer.gid.ext = ext;
        }
        Ask { version, ..ask }
    };
    let emulated = smcd(Role::Server, 7, 8);
    let cases = [
        ("the same", emulated, emulated, true),
        ("another GID", emulated, smcd(Role::Server, 6, 8), false),
        ("another extension", emulated, smcd(Role::Server, 7, 9), false),
        ("another device", emulated, other_device(emulated), false),
        (
            "a real ISM has no extension",
            real(7, 0, 0, Version::V1),
            real(7, 1, 0, Version::V1),
            true,
        ),
        ("another VLAN", real(7, 0, 5, Version::V1), real(7, 0, 6, Version::V1), false),
        ("VLANs with version 2", real(7, 0, 5, Version::V2), real(7, 0, 6, Version::V2), true),
    ];
    for (what, first, second, shared) in cases {
        let mut engine = Engine::new();
        let one = engine.groups.join_server(A, &first).unwrap();
        let two = engine.groups.join_server(B, &second).unwrap();
        assert_eq!((one.group == two.group, !two.first_contact), (shared, shared), "{what}");
    }
}

// smc_core.c:1932 smcr_lgr_match
#[test]
fn smcr_groups_are_found_by_an_active_link() {
    let (v1, v2) = (Version::V1, Version::V2);
    let (server, client) = (Role::Server, Role::Client);
    let cases = [
        ("the same", server, v1, 1, link(2, 3, 4), true),
        ("another peer id", server, v1, 9, link(2, 3, 4), false),
        ("another GID", server, v1, 1, link(9, 3, 4), false),
        ("another MAC", server, v1, 1, link(2, 9, 4), false),
        ("another MAC, version 2", server, v2, 1, link(2, 9, 4), true),
        ("a server does not know the queue pair", server, v1, 1, link(2, 3, 9), true),
        ("the other role", client, v1, 1, link(2, 3, 4), false),
    ];
    for (what, role, version, peer, end, shared) in cases {
        let mut engine = Engine::new();
        let old = smcr(Role::Server, version, 1, link(2, 3, 4));
        let group = engine.groups.join_server(A, &old).unwrap().group;
        engine.groups.set_link(group, 0, Some(link(2, 3, 4)));
        let ask = smcr(role, version, peer, end);
        let found = match role {
            Role::Server => Ok(engine.groups.join_server(B, &ask).unwrap().group),
            Role::Client => engine.groups.join_client(B, &ask, false).map(|joined| joined.group),
        };
        assert_eq!(found == Ok(group), shared, "{what}");
    }
}

#[test]
fn an_smcr_client_goes_by_the_queue_pair() {
    let mut engine = Engine::new();
    let ask = |qpn| smcr(Role::Client, Version::V2, 1, link(2, 3, qpn));
    let first = engine.groups.join_client(A, &ask(4), true).unwrap().group;
    let second = engine.groups.join_client(B, &ask(5), true).unwrap().group;
    engine.groups.set_link(first, 0, Some(link(2, 3, 4)));
    engine.groups.set_link(second, 0, Some(link(2, 3, 5)));
    let found = engine.groups.join_client(ConnId(3), &ask(5), false).unwrap();
    assert_eq!((found.group, found.first_contact), (second, false));
    engine.groups.set_link(second, 0, None);
    let lost = engine.groups.join_client(ConnId(4), &ask(5), false);
    assert_eq!(lost, Err(JoinError::OutOfSync));
}

#[test]
fn a_client_that_does_not_know_the_group_is_out_of_sync() {
    let mut engine = Engine::new();
    let ask = smcd(Role::Client, 7, 8);
    assert_eq!(engine.groups.join_client(A, &ask, false), Err(JoinError::OutOfSync));
    let first = engine.groups.join_client(A, &ask, true).unwrap();
    // told first contact again: another group, whatever is there
    let second = engine.groups.join_client(B, &ask, true).unwrap();
    assert!(second.first_contact && first.group != second.group);
    // and the oldest one is found first
    let third = engine.groups.join_client(ConnId(3), &ask, false).unwrap();
    assert_eq!(third.group, first.group);
}

// row 71
#[test]
fn a_server_lets_no_more_connections_in_than_agreed() {
    for limit in [16, 255] {
        let mut engine = Engine::new();
        let ask = |role| {
            let ask = smcr(role, Version::V2, 1, link(2, 3, 4));
            let Peer::Smcr(mut peer) = ask.peer else { panic!() };
            peer.max_conns = limit;
            Ask { peer: Peer::Smcr(peer), ..ask }
        };
        let first = engine.groups.join_server(ConnId(0), &ask(Role::Server)).unwrap().group;
        engine.groups.set_link(first, 0, Some(link(2, 3, 4)));
        for conn in 1..u32::from(limit) {
            let joined = engine.groups.join_server(ConnId(conn), &ask(Role::Server)).unwrap();
            assert_eq!((joined.group, joined.first_contact), (first, false));
        }
        let over = engine.groups.join_server(ConnId(1000), &ask(Role::Server)).unwrap();
        assert!(over.first_contact && over.group != first);
        // one leaves, one fits again
        engine.leave(first, ConnId(3), Fate::Reuse);
        let again = engine.groups.join_server(ConnId(1001), &ask(Role::Server)).unwrap();
        assert_eq!(again.group, first);
        // the peer's table of RMBs is full
        engine.leave(first, ConnId(4), Fate::Reuse);
        engine.groups.set_open(first, false);
        let closed = engine.groups.join_server(ConnId(1002), &ask(Role::Server)).unwrap();
        assert_ne!(closed.group, first);
    }
}

#[test]
fn smcd_has_no_limit_of_connections() {
    let mut engine = Engine::new();
    for conn in 0..1000 {
        let joined = engine.groups.join_server(ConnId(conn), &smcd(Role::Server, 7, 8)).unwrap();
        assert_eq!(joined.first_contact, conn == 0);
    }
}

#[test]
fn a_group_ends_when_idle_for_its_time() {
    let client = smcr(Role::Client, Version::V1, 1, link(2, 3, 4));
    let cases = [
        (smcd(Role::Server, 7, 8), IDLE),
        (smcd(Role::Client, 7, 8), IDLE),
        (smcr(Role::Server, Version::V1, 1, link(2, 3, 4)), IDLE),
        (client, IDLE_CLIENT),
    ];
    for (ask, delay) in cases {
        let mut engine = Engine::new();
        let group = match ask.role {
            Role::Server => engine.groups.join_server(A, &ask).unwrap().group,
            Role::Client => engine.groups.join_client(A, &ask, true).unwrap().group,
        };
        assert_eq!(engine.groups.poll_timeout(), None, "no connection has left");
        engine.now = Instant(5);
        engine.leave(group, A, Fate::Reuse);
        assert_eq!(engine.groups.poll_timeout(), Some(Instant(5).after(delay)));
        engine.advance(Instant(4).after(delay));
        assert_eq!(engine.take_seen(), []);
        engine.advance(Instant(5).after(delay));
        let seen = engine.take_seen();
        match ask.peer {
            Peer::Smcd(_) => {
                assert!(matches!(seen[..], [Wish::Signal { .. }, Wish::Gone { .. }]), "{seen:?}");
            }
            Peer::Smcr(_) => {
                assert_eq!(seen, [Wish::EndLinks { group, cause: Cause::Idle }]);
                engine.groups.handle_links_gone(group);
                engine.run();
                assert_eq!(engine.take_seen(), [Wish::Gone { group }]);
            }
        }
        assert_eq!((engine.groups.infos().count(), engine.groups.poll_timeout()), (0, None));
    }
}

#[test]
fn joining_stops_the_idle_time_and_leaving_starts_it_anew() {
    let mut engine = Engine::new();
    let ask = smcd(Role::Server, 7, 8);
    let group = engine.groups.join_server(A, &ask).unwrap().group;
    engine.leave(group, A, Fate::Reuse);
    engine.advance(Instant(0).after(Duration::from_secs(599)));
    assert_eq!(engine.groups.join_server(B, &ask).unwrap().group, group);
    assert_eq!(engine.groups.poll_timeout(), None);
    engine.advance(Instant(0).after(Duration::from_secs(10_000)));
    engine.leave(group, B, Fate::Reuse);
    let due = Instant(0).after(Duration::from_secs(10_600));
    assert_eq!(engine.groups.poll_timeout(), Some(due));
}

#[test]
fn a_terminated_group_kills_each_connection_once_and_waits_for_them() {
    let mut engine = Engine::new();
    let ask = smcd(Role::Server, 7, 8);
    let group = engine.groups.join_server(A, &ask).unwrap().group;
    engine.groups.join_server(B, &ask).unwrap();
    engine.receive_buffer(group, A);
    assert!(engine.groups.terminate(group, Cause::Operator));
    assert!(!engine.groups.terminate(group, Cause::DeviceGone), "it is ending already");
    engine.run();
    let seen = engine.take_seen();
    let kill = |conn| Wish::Kill { conn, tell_peer: true };
    assert_eq!(seen[..2], [kill(A), kill(B)]);
    assert!(matches!(seen[2..], [Wish::Signal { .. }]), "{seen:?}");
    // nobody joins it, nobody gets a buffer of it
    assert_ne!(engine.groups.join_server(ConnId(3), &ask).unwrap().group, group);
    let late = engine.groups.acquire(
        group,
        B,
        smc_proto::group::BufferKind::Receive,
        1,
        &mut engine.stats,
    );
    assert_eq!(late, Err(GroupError::NoGroup(group)));
    // the buffer outlives the group for the connection that may still read it
    assert_eq!(engine.memory.len(), 1);
    engine.leave(group, A, Fate::Reuse);
    assert_eq!((engine.memory.len(), engine.take_seen()), (0, vec![]));
    engine.leave(group, B, Fate::Reuse);
    assert_eq!(engine.take_seen(), [Wish::Gone { group }]);
    let twice = engine.groups.leave(engine.now, group, B, Fate::Reuse, &mut engine.stats);
    assert_eq!(twice, Err(GroupError::NoMember(group, B)));
}

#[test]
fn an_smcr_group_keeps_its_buffers_until_its_links_are_gone() {
    let mut engine = Engine::new();
    let ask = smcr(Role::Server, Version::V2, 1, link(2, 3, 4));
    let group = engine.groups.join_server(A, &ask).unwrap().group;
    engine.receive_buffer(group, A);
    engine.groups.handle_links_gone(group); // none of its business while the group lives
    engine.groups.terminate(group, Cause::Violation);
    engine.leave(group, A, Fate::Reuse);
    let kill = Wish::Kill { conn: A, tell_peer: true };
    assert_eq!(engine.take_seen(), [kill, Wish::EndLinks { group, cause: Cause::Violation }]);
    assert_eq!(engine.memory.len(), 1, "the peer may still write it");
    engine.groups.handle_links_gone(group);
    engine.run();
    assert_eq!((engine.memory.len(), engine.take_seen()), (0, vec![Wish::Gone { group }]));
}

#[test]
fn a_first_contact_that_failed_ends_its_group() {
    let mut engine = Engine::new();
    let group = engine.groups.join_client(A, &smcd(Role::Client, 7, 8), true).unwrap().group;
    engine.receive_buffer(group, A);
    engine.leave(group, A, Fate::Reuse);
    engine.groups.terminate(group, Cause::Early);
    engine.run();
    let seen = engine.take_seen();
    assert!(matches!(seen[..], [Wish::Signal { .. }, Wish::Gone { .. }]), "{seen:?}");
    assert_eq!((engine.memory.len(), engine.groups.poll_timeout()), (0, None));
}

#[test]
fn a_server_sees_a_first_contact_under_way() {
    let asks = [
        (smcd(Role::Server, 7, 8), smcd(Role::Server, 7, 9)),
        (
            smcr(Role::Server, Version::V2, 1, link(2, 3, 0)),
            smcr(Role::Server, Version::V2, 1, link(9, 3, 0)),
        ),
    ];
    for (ask, other) in asks {
        let mut engine = Engine::new();
        assert_eq!(engine.groups.first_contact_under_way(&ask), None);
        let group = engine.groups.join_server(A, &ask).unwrap().group;
        assert_eq!(engine.groups.first_contact_under_way(&ask), Some(group));
        assert_eq!(engine.groups.first_contact_under_way(&other), None);
        engine.groups.settle(group);
        assert_eq!(engine.groups.first_contact_under_way(&ask), None);
    }
}

#[test]
fn a_vlan_is_added_for_the_first_and_removed_after_the_last_holder() {
    let mut engine = Engine::new();
    let (device, vlan) = (DeviceId(2), 5);
    let (add, remove) = (Wish::AddVlan { device, vlan }, Wish::RemoveVlan { device, vlan });
    assert_eq!(engine.groups.hold_vlan(device, 0), VlanState::Ready);
    assert_eq!(engine.groups.hold_vlan(device, vlan), VlanState::Pending);
    engine.run();
    assert_eq!(engine.take_seen(), [add]);
    assert_eq!(engine.groups.hold_vlan(device, vlan), VlanState::Ready);
    let ask = native(Role::Server, 7, vlan);
    let group = engine.groups.join_server(A, &ask).unwrap().group;
    engine.groups.release_vlan(device, vlan);
    engine.groups.release_vlan(device, vlan);
    engine.leave(group, A, Fate::Reuse);
    assert_eq!(engine.take_seen(), [], "the group still holds it");
    engine.groups.terminate(group, Cause::Operator);
    engine.run();
    assert_eq!(engine.take_seen()[1..], [remove, Wish::Gone { group }]);
    // refused: nobody holds it, the next one asks again
    assert_eq!(engine.groups.hold_vlan(device, vlan), VlanState::Pending);
    engine.groups.handle_vlan(device, vlan, false);
    assert_eq!(engine.groups.hold_vlan(device, vlan), VlanState::Pending);
}

#[test]
fn a_vlan_that_nobody_waits_for_is_asked_for_once() {
    let (device, vlan) = (DeviceId(2), 5);
    let (add, remove) = (Wish::AddVlan { device, vlan }, Wish::RemoveVlan { device, vlan });
    for again in [false, true] {
        let mut engine = Engine::new();
        let groups = &mut engine.groups;
        groups.hold_vlan(device, vlan);
        groups.release_vlan(device, vlan);
        if again {
            assert_eq!(groups.hold_vlan(device, vlan), VlanState::Pending);
        }
        let wishes = |groups: &mut Groups| std::iter::from_fn(|| groups.poll_wish()).collect();
        let before: Vec<_> = wishes(groups);
        assert_eq!(before, [add]);
        groups.handle_vlan(device, vlan, true);
        let after: Vec<_> = wishes(groups);
        if again {
            assert_eq!(after, []);
            assert_eq!(groups.hold_vlan(device, vlan), VlanState::Ready);
        } else {
            assert_eq!(after, [remove]);
        }
    }
}

// smc_core.c:894 smc_lgr_create: a server with version 2 has not looked at the VLAN
#[test]
fn a_server_with_version_2_needs_no_vlan() {
    for (role, version, needed) in [
        (Role::Server, Version::V2, false),
        (Role::Client, Version::V2, true),
        (Role::Server, Version::V1, true),
    ] {
        let mut engine = Engine::new();
        let ask = Ask { version, ..native(role, 7, 5) };
        match role {
            Role::Server => engine.groups.join_server(A, &ask).unwrap(),
            Role::Client => engine.groups.join_client(A, &ask, true).unwrap(),
        };
        engine.run();
        let add = Wish::AddVlan { device: DeviceId(2), vlan: 5 };
        assert_eq!(engine.take_seen().contains(&add), needed, "{role:?} {version:?}");
    }
}

#[test]
fn state_is_small() {
    use smc_proto::group::{GROUP_BYTES, MEMBER_BYTES};
    let (group, member) = (GROUP_BYTES, MEMBER_BYTES);
    println!("{group} bytes a group, {member} a member with two buffers");
    assert!(group <= 320 && member <= 128, "{group} {member}");
}
