// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Buffers: sizes, reuse, degradation, the end.

use smc_proto::group::{
    Acquired, BufferKind, Cause, Fate, GroupError, RegisterError, Role, Shortage, Version, Wish,
};
use smc_proto::id::{BufferId, ConnId, GroupId};
use smc_proto::smcd::dmb::Dmb;

use crate::engine::{Engine, link, smcd, smcr};

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);
const RECEIVE: BufferKind = BufferKind::Receive;

fn with_smcd(conns: &[ConnId]) -> (Engine, GroupId) {
    let mut engine = Engine::new();
    let mut group = GroupId(0);
    for conn in conns {
        group = engine.groups.join_server(*conn, &smcd(Role::Server, 7, 8)).unwrap().group;
    }
    (engine, group)
}

fn with_smcr(conns: &[ConnId]) -> (Engine, GroupId) {
    let mut engine = Engine::new();
    let mut group = GroupId(0);
    for conn in conns {
        let ask = smcr(Role::Server, Version::V2, 1, link(2, 3, 4));
        group = engine.groups.join_server(*conn, &ask).unwrap().group;
        engine.groups.set_link(group, 0, Some(link(2, 3, 4)));
    }
    (engine, group)
}

fn bytes(acquired: Acquired) -> Result<u32, Shortage> {
    match acquired {
        Acquired::Ready(buffer) => Ok(buffer.size.bytes()),
        Acquired::Failed(shortage) => Err(shortage),
        Acquired::Wait => panic!("nothing came of it"),
    }
}

// smc_core.c:2085 smc_compress_bufsize
#[test]
fn sizes_are_rounded_up_and_bounded() {
    let kib = 1024;
    let cases = [
        (0, 16 * kib, 16 * kib),
        (1, 16 * kib, 16 * kib),
        (16 * kib, 16 * kib, 16 * kib),
        (16 * kib + 1, 32 * kib, 32 * kib),
        (65536, 64 * kib, 64 * kib),
        (kib * kib, kib * kib, kib * kib),
        (kib * kib + 1, kib * kib, 2 * kib * kib),
        (u32::MAX, kib * kib, 512 * kib * kib),
    ];
    for (asked, of_smcd, of_smcr) in cases {
        let (mut engine, group) = with_smcd(&[A]);
        assert_eq!(bytes(engine.acquire(group, A, RECEIVE, asked)), Ok(of_smcd));
        let (mut engine, group) = with_smcr(&[A]);
        assert_eq!(bytes(engine.acquire(group, A, RECEIVE, asked)), Ok(of_smcr));
    }
}

// row 47
#[test]
fn a_buffer_is_zeroed_before_another_connection_gets_it() {
    let (mut engine, group) = with_smcd(&[A, B]);
    let first = engine.receive_buffer(group, A);
    engine.disown(A);
    engine.groups.leave(engine.now, group, A, Fate::Reuse, &mut engine.stats).unwrap();
    assert_eq!(engine.groups.poll_wish(), Some(Wish::Zero { group, buffer: first.id }));
    // not zeroed yet: B gets another one
    let second = engine.receive_buffer(group, B);
    assert_ne!(first.id, second.id);
    engine.leave(group, B, Fate::Reuse);
    // zeroed: the next one gets it, with the token the peer's device knows
    engine.zero(first.id);
    engine.groups.handle_zeroed(first.id);
    let conn = ConnId(3);
    engine.groups.join_server(conn, &smcd(Role::Server, 7, 8)).unwrap();
    assert_eq!(engine.receive_buffer(group, conn), first);
    assert_eq!(
        (engine.stats.smcd.rx.buffers_allocated, engine.stats.smcd.rx.buffers_reused),
        (2, 1)
    );
}

#[test]
fn only_a_buffer_of_the_same_size_kind_and_group_is_used_again() {
    let (mut engine, group) = with_smcd(&[A]);
    let old = engine.receive_buffer(group, A);
    engine.leave(group, A, Fate::Reuse);
    let other = smcd(Role::Server, 70, 80);
    let elsewhere = engine.groups.join_server(B, &other).unwrap().group;
    engine.groups.join_server(A, &smcd(Role::Server, 7, 8)).unwrap();
    let got = [
        engine.acquire(elsewhere, B, RECEIVE, 65536),
        engine.acquire(group, A, BufferKind::Send, 65536),
        engine.acquire(group, A, RECEIVE, 65537),
    ];
    for got in got {
        assert!(matches!(got, Acquired::Ready(buffer) if buffer.id != old.id), "{got:?}");
    }
}

// row 48
#[test]
fn a_refused_size_is_tried_smaller_to_the_end() {
    use RegisterError::{Never, NoSpace, Refused};
    let cases = [
        // (what is refused, first size, outcome, downgrades)
        (Some((64 << 10, NoSpace)), 1 << 20, Ok(64 << 10), 1),
        (Some((64 << 10, Refused)), 1 << 20, Ok(64 << 10), 1),
        (Some((16 << 10, Refused)), 32 << 10, Ok(16 << 10), 1),
        (Some((0, NoSpace)), 1 << 20, Err(Shortage::MaxDmb), 1),
        (Some((0, Refused)), 1 << 20, Err(Shortage::Memory), 1),
        (Some((0, NoSpace)), 1, Err(Shortage::MaxDmb), 1),
        (Some((0, Never)), 1 << 20, Err(Shortage::Memory), 0),
        (None, 1 << 20, Ok(1 << 20), 0),
    ];
    for (refuse, first, outcome, downgrades) in cases {
        let (mut engine, group) = with_smcd(&[A]);
        engine.refuse = refuse;
        assert_eq!(bytes(engine.acquire(group, A, RECEIVE, first)), outcome, "{refuse:?}");
        let counted = &engine.stats.smcd.rx;
        assert_eq!(counted.buffers_downgraded, downgrades, "{refuse:?}");
        assert_eq!(counted.buffer_bytes, outcome.map_or(0, u64::from));
        assert_eq!(engine.memory.len(), usize::from(outcome.is_ok()));
        // whoever failed may ask again
        engine.refuse = None;
        if outcome.is_err() {
            assert_eq!(bytes(engine.acquire(group, A, RECEIVE, first)), Ok(first.max(16 << 10)));
        }
    }
}

// row 48
#[test]
fn the_last_refusal_decides_what_the_peer_is_told() {
    let (mut engine, group) = with_smcd(&[A]);
    let steps = [(32, RegisterError::NoSpace), (16, RegisterError::Refused)];
    let asked = engine.groups.acquire(group, A, RECEIVE, 32 << 10, &mut engine.stats);
    assert_eq!(asked, Ok(Acquired::Wait));
    let mut last = None;
    for (kib, error) in steps {
        let Some(Wish::Register { buffer, size, .. }) = engine.groups.poll_wish() else { panic!() };
        assert_eq!(size.bytes(), kib << 10);
        last = engine.groups.handle_registered(buffer, Err(error), &mut engine.stats);
    }
    assert_eq!(last.unwrap().acquired, Acquired::Failed(Shortage::Memory));
}

// row 48
#[test]
fn a_smaller_free_buffer_is_taken_on_the_way_down() {
    let (mut engine, group) = with_smcd(&[A, B]);
    let small = engine.receive_buffer(group, A);
    engine.leave(group, A, Fate::Reuse);
    engine.refuse = Some((0, RegisterError::NoSpace));
    assert_eq!(engine.acquire(group, B, RECEIVE, 256 << 10), Acquired::Ready(small));
    let counted = &engine.stats.smcd.rx;
    assert_eq!((counted.buffers_downgraded, counted.buffers_reused), (1, 1));
}

#[test]
fn a_buffer_that_is_not_to_be_trusted_is_given_back() {
    let (mut engine, group) = with_smcd(&[A, B, ConnId(3)]);
    engine.receive_buffer(group, A);
    engine.leave(group, A, Fate::Discard);
    assert_eq!(engine.memory.len(), 0);
    // spoiled: it could not be registered on all links
    let spoiled = engine.receive_buffer(group, B);
    engine.groups.spoil(spoiled.id);
    engine.leave(group, B, Fate::Reuse);
    assert_eq!(engine.memory.len(), 0);
    // the same while it is zeroed, and while nobody has it
    let conn = ConnId(3);
    let spoiled = engine.receive_buffer(group, conn);
    engine.disown(conn);
    engine.groups.leave(engine.now, group, conn, Fate::Reuse, &mut engine.stats).unwrap();
    engine.groups.spoil(spoiled.id);
    engine.run();
    assert_eq!(engine.memory.len(), 0);
    let (conn, ask) = (ConnId(4), smcd(Role::Server, 7, 8));
    engine.groups.join_server(conn, &ask).unwrap();
    let spoiled = engine.receive_buffer(group, conn);
    engine.leave(group, conn, Fate::Reuse);
    assert_eq!(engine.memory.len(), 1);
    engine.groups.spoil(spoiled.id);
    engine.run();
    assert_eq!(engine.memory.len(), 0);
}

#[test]
fn a_buffer_that_cannot_be_zeroed_is_given_back() {
    let (mut engine, group) = with_smcd(&[ConnId(3)]);
    let lost = engine.receive_buffer(group, ConnId(3));
    engine.disown(ConnId(3));
    engine.groups.leave(engine.now, group, ConnId(3), Fate::Reuse, &mut engine.stats).unwrap();
    assert_eq!(engine.groups.poll_wish(), Some(Wish::Zero { group, buffer: lost.id }));
    engine.groups.handle_lost(lost.id);
    assert_eq!(engine.groups.poll_wish(), Some(Wish::Free { group, buffer: lost.id }));
}

#[test]
fn a_buffer_that_comes_after_its_connection_left_serves_the_next_one() {
    for (fate, kept) in [(Fate::Reuse, true), (Fate::Discard, false)] {
        let (mut engine, group) = with_smcd(&[A, B]);
        let asked = engine.groups.acquire(group, A, RECEIVE, 65536, &mut engine.stats);
        assert_eq!(asked, Ok(Acquired::Wait));
        let Some(Wish::Register { buffer, kind, size, .. }) = engine.groups.poll_wish() else {
            panic!()
        };
        engine.groups.leave(engine.now, group, A, fate, &mut engine.stats).unwrap();
        let dmb = engine.allocate(group, buffer, kind, size);
        assert_eq!(engine.groups.handle_registered(buffer, Ok(dmb), &mut engine.stats), None);
        engine.run();
        assert_eq!(engine.memory.len(), usize::from(kept));
        engine.receive_buffer(group, B);
        let counted = &engine.stats.smcd.rx;
        let expected = if kept { (0, 1) } else { (1, 0) };
        assert_eq!((counted.buffers_allocated, counted.buffers_reused), expected);
    }
}

#[test]
fn a_registration_in_a_group_that_ends_is_not_tried_again() {
    for outcome in [Ok(Dmb::default()), Err(RegisterError::Refused)] {
        let (mut engine, group) = with_smcd(&[A]);
        let asked = engine.groups.acquire(group, A, RECEIVE, 65536, &mut engine.stats);
        assert_eq!(asked, Ok(Acquired::Wait));
        let Some(Wish::Register { buffer, .. }) = engine.groups.poll_wish() else { panic!() };
        engine.groups.terminate(group, Cause::PeerGone);
        let result = engine.groups.handle_registered(buffer, outcome, &mut engine.stats).unwrap();
        let wishes: Vec<Wish> = std::iter::from_fn(|| engine.groups.poll_wish()).collect();
        assert_eq!(wishes, [Wish::Kill { conn: A, tell_peer: false }]);
        engine.groups.leave(engine.now, group, A, Fate::Reuse, &mut engine.stats).unwrap();
        let wishes: Vec<Wish> = std::iter::from_fn(|| engine.groups.poll_wish()).collect();
        match outcome {
            Ok(_) => assert_eq!(wishes, [Wish::Free { group, buffer }, Wish::Gone { group }]),
            Err(_) => {
                assert_eq!(result.acquired, Acquired::Failed(Shortage::Memory));
                assert_eq!(wishes, [Wish::Gone { group }]);
            }
        }
    }
}

// row 71
#[test]
fn an_smcr_group_announces_no_more_than_255_rmbs() {
    let mut engine = Engine::new();
    let ask = smcr(Role::Client, Version::V1, 1, link(2, 3, 4));
    let group = engine.groups.join_client(ConnId(0), &ask, true).unwrap().group;
    engine.groups.set_link(group, 0, Some(link(2, 3, 4)));
    for conn in 0..256 {
        if conn > 0 {
            engine.groups.join_client(ConnId(conn), &ask, false).unwrap();
        }
        let got = engine.acquire(group, ConnId(conn), RECEIVE, 16384);
        assert_eq!(bytes(got).is_ok(), conn < 255, "{conn}");
    }
    // send buffers are nobody else's affair
    assert!(bytes(engine.acquire(group, ConnId(255), BufferKind::Send, 16384)).is_ok());
    engine.leave(group, ConnId(9), Fate::Reuse);
    assert!(bytes(engine.acquire(group, ConnId(255), RECEIVE, 16384)).is_ok());
}

#[test]
fn a_caller_that_errs_is_told() {
    let (mut engine, group) = with_smcd(&[A]);
    engine.receive_buffer(group, A);
    let mut acquire =
        |group, conn| engine.groups.acquire(group, conn, RECEIVE, 1, &mut engine.stats);
    assert_eq!(acquire(group, A), Err(GroupError::HasBuffer(A, RECEIVE)));
    assert_eq!(acquire(group, B), Err(GroupError::NoMember(group, B)));
    assert_eq!(acquire(GroupId(99), B), Err(GroupError::NoGroup(GroupId(99))));
    let unknown = BufferId(77);
    assert_eq!(
        engine.groups.handle_registered(unknown, Ok(Dmb::default()), &mut engine.stats),
        None
    );
    engine.groups.handle_zeroed(unknown);
    engine.groups.spoil(unknown);
    assert_eq!(engine.groups.poll_wish(), None);
}
