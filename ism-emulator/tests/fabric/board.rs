// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The board: who is told what, who is told nothing, and its bounds.
//!
//! Invariant: what `smc-discovery`'s model of a board says of ends is tested against this one in `tests/`.

use ism_abi::{BoardEntry, BoardPostReply, BoardPostRequest, board, command, event, status as s};
use ism_emulator::{MemberId, Quota};

use crate::world::{World, body, config, event_body, kind, status};

const KEY: [u8; 60] = [3; 60];

fn request(kind: u8, id: u64) -> BoardPostRequest {
    BoardPostRequest { key: KEY, kind, side: 0, reserved: [0; 2], id, other: 0 }
}

fn try_post(w: &mut World, member: MemberId, request: &BoardPostRequest) -> (u32, u32) {
    let reply = w.call(member, command::BOARD_POST, &request.to_bytes()).unwrap();
    (status(&reply), BoardPostReply::from_bytes(body(&reply)).unwrap().listeners)
}

fn post(w: &mut World, member: MemberId, kind: u8, id: u64) -> u32 {
    let (status, listeners) = try_post(w, member, &request(kind, id));
    assert_eq!(status, s::OK);
    listeners
}

fn told(w: &mut World, member: MemberId) -> Vec<(u64, u64, u8, u64)> {
    let events = w.take_events(member);
    let board = events.iter().filter(|it| kind(it) == event::BOARD_ENTRY);
    let entry = board.map(|it| BoardEntry::from_bytes(event_body(it)).unwrap());
    entry.map(|it| (it.reader, it.number, it.kind, it.id)).collect()
}

fn member(w: &mut World, n: u8, groups: &[&str]) -> MemberId {
    w.member(n, groups)
}

#[test]
fn members_of_other_groups_see_nothing_of_one_another() {
    let mut w = World::new(config());
    let a = member(&mut w, 1, &["m"]);
    let b = member(&mut w, 2, &["c"]);
    let both = member(&mut w, 3, &["c", "m"]);
    let both_too = member(&mut w, 4, &["m", "c"]);
    assert_eq!(post(&mut w, a, board::LISTEN, 1), 0);
    for (n, other) in [(2, b), (3, both)] {
        assert_eq!(post(&mut w, other, board::CALL, n), 0);
        post(&mut w, other, board::ANNOUNCE, n);
        post(&mut w, a, board::ANNOUNCE, 10 + n);
        assert_eq!(told(&mut w, a), [(10 + n, 0, board::ANNOUNCE, 10 + n)]);
        assert_eq!(told(&mut w, other), [(n, 0, board::ANNOUNCE, n)]);
        post(&mut w, a, board::LEAVE, 10 + n);
        told(&mut w, a);
    }
    post(&mut w, both_too, board::ANNOUNCE, 4);
    let list = [(4, 0, board::ANNOUNCE, 3), (4, 1, board::ANNOUNCE, 4)];
    assert_eq!(told(&mut w, both_too), list);
}

#[test]
fn a_caller_that_leaves_unheard_is_withdrawn() {
    let mut w = World::new(config());
    let (a, b) = (member(&mut w, 1, &["m"]), member(&mut w, 2, &["m"]));
    w.attentive.clear();
    post(&mut w, a, board::LISTEN, 1);
    for n in 0..1000 {
        assert_eq!(post(&mut w, b, board::CALL, n), 1);
        post(&mut w, b, board::LEAVE, n);
    }
    assert_eq!(told(&mut w, a), []);
    post(&mut w, b, board::CALL, 7);
    assert_eq!(told(&mut w, a), [(1, 0, board::CALL, 7)]);
    post(&mut w, b, board::LEAVE, 7);
    assert_eq!(told(&mut w, a), [(1, 0, board::LEAVE, 7)]);
}

/// A listener that starts over has events with the same numbers as before.
#[test]
fn a_callers_end_withdraws_nothing_of_a_listener_that_came_again() {
    let mut w = World::new(config());
    let (a, b) = (member(&mut w, 1, &["m"]), member(&mut w, 2, &["m"]));
    w.attentive.clear();
    post(&mut w, a, board::LISTEN, 1);
    post(&mut w, b, board::CALL, 1);
    w.hello(a);
    post(&mut w, a, board::ANNOUNCE, 2);
    post(&mut w, b, board::LEAVE, 1);
    assert_eq!(told(&mut w, a), [(2, 0, board::ANNOUNCE, 2)]);
}

#[test]
fn who_takes_no_events_cannot_make_them_pile_up_by_posting() {
    let mut w = World::new(config());
    let a = member(&mut w, 1, &["m"]);
    w.attentive.clear();
    let busy = (0..1_000_000).find(|n| {
        let kind = if n % 2 == 0 { board::ANNOUNCE } else { board::LEAVE };
        try_post(&mut w, a, &request(kind, n / 2)).0 == s::BUSY
    });
    assert!(busy.is_some());
    told(&mut w, a);
    assert_ne!(try_post(&mut w, a, &request(board::ANNOUNCE, 1_000_000)).0, s::BUSY);
}

#[test]
fn who_listens_later_is_told_of_callers_that_are_there() {
    let mut w = World::new(config());
    let (a, b) = (member(&mut w, 1, &["m"]), member(&mut w, 2, &["m"]));
    post(&mut w, a, board::LISTEN, 1);
    post(&mut w, b, board::CALL, 8);
    post(&mut w, b, board::CALL, 9);
    post(&mut w, b, board::LEAVE, 8);
    post(&mut w, b, board::LISTEN, 2);
    assert_eq!(told(&mut w, b), [(2, 0, board::CALL, 9)]);
    told(&mut w, a);
    // Gone with all that it had, for itself and for the other.
    w.fabric.disconnect(b);
    w.work();
    assert_eq!(told(&mut w, a), [(1, 0, board::LEAVE, 9)]);
}

#[test]
fn the_board_is_bounded_by_quota_and_key() {
    let mut w = World::new(config());
    let quota = Quota { board: 2, ..Quota::default() };
    let (a, b) = (w.silent_member(1, &["m"], quota), member(&mut w, 2, &["m"]));
    w.connect(a);
    w.hello(a);
    post(&mut w, a, board::LISTEN, 1);
    post(&mut w, a, board::ANNOUNCE, 2);
    assert_eq!(try_post(&mut w, a, &request(board::ANNOUNCE, 3)).0, s::NO_SPACE);
    assert_eq!(try_post(&mut w, a, &request(board::LISTEN, 2)).0, s::IN_USE);
    post(&mut w, a, board::LEAVE, 1);
    // The key: one is here, and others come and go.
    for n in 0..7 {
        post(&mut w, b, board::ANNOUNCE, n);
        post(&mut w, b, board::LEAVE, n);
    }
    assert_eq!(try_post(&mut w, b, &request(board::ANNOUNCE, 9)).0, s::NO_SPACE);
    post(&mut w, a, board::LEAVE, 2);
    post(&mut w, b, board::ANNOUNCE, 9);
}

/// Whose entries are of no use to anybody, however many, costs another member no more than a few.
#[test]
fn a_member_has_few_listeners_and_callers_under_one_key() {
    let mut w = World::new(config());
    let (a, b) = (member(&mut w, 1, &["m"]), member(&mut w, 2, &["m"]));
    for n in 0..64 {
        post(&mut w, a, board::LISTEN, n);
    }
    assert_eq!(try_post(&mut w, a, &request(board::LISTEN, 64)).0, s::NO_SPACE);
    // The next of another member's, as always.
    assert_eq!(post(&mut w, b, board::CALL, 0), 64);
    for n in 1..64 {
        post(&mut w, b, board::CALL, n);
    }
    assert_eq!(try_post(&mut w, b, &request(board::CALL, 64)).0, s::NO_SPACE);
    assert_eq!(post(&mut w, a, board::CALL, 100), 64);
    let elsewhere = BoardPostRequest { key: [4; 60], ..request(board::LISTEN, 101) };
    assert_eq!(try_post(&mut w, a, &elsewhere).0, s::OK);
}

#[test]
fn a_post_that_makes_no_sense_is_refused_and_changes_nothing() {
    let mut w = World::new(config());
    let a = member(&mut w, 1, &["m"]);
    post(&mut w, a, board::ANNOUNCE, 1);
    let fine = request(board::ACCEPT, 1);
    for wrong in [
        BoardPostRequest { kind: 0, ..fine },
        BoardPostRequest { kind: 6, ..fine },
        BoardPostRequest { side: 1, ..fine },
        BoardPostRequest { kind: board::ANNOUNCE, side: 2, id: 9, ..fine },
        BoardPostRequest { kind: board::CALL, other: 1, id: 9, ..fine },
        BoardPostRequest { reserved: [0, 1], ..fine },
        BoardPostRequest { id: 9, ..fine },
        BoardPostRequest { key: [4; 60], ..fine },
    ] {
        assert_eq!(try_post(&mut w, a, &wrong), (s::INVALID, 0), "{wrong:?}");
    }
    assert_eq!(try_post(&mut w, a, &fine).0, s::OK);
    assert_eq!(try_post(&mut w, a, &fine).0, s::INVALID, "once");
    // Of what is not there, or elsewhere.
    post(&mut w, a, board::LEAVE, 77);
    let elsewhere = BoardPostRequest { key: [4; 60], ..request(board::LEAVE, 1) };
    assert_eq!(try_post(&mut w, a, &elsewhere).0, s::OK);
    let list = [(1, 0, board::ANNOUNCE, 1), (1, 1, board::ACCEPT, 1)];
    assert_eq!(told(&mut w, a), list);
}

#[test]
fn who_did_not_ask_for_a_board_has_none() {
    let mut w = World::new(config());
    let a = w.silent_member(1, &["m"], Quota::default());
    let abilities = ism_emulator::Abilities { window: None, copied: true, board: false };
    w.fabric.connect(a, abilities).unwrap();
    w.hello(a);
    assert_eq!(try_post(&mut w, a, &request(board::CALL, 1)).0, s::UNSUPPORTED);
}
