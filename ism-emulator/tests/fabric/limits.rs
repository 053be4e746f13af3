// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Quotas, rates, windows that do not answer, drivers that do not listen.
//!
//! Invariant tested: what a member uses up is its own, and what it does not answer costs others a
//! bounded time.

use std::time::Duration;

use ism_abi::{Ping, RegisterRequest, SignalEventRequest, command, event, status as s};
use ism_emulator::{MemberId, Mode, Quota, Tag};

use crate::world::{World, config, event_body, gid, kind, register, request, status};

fn member(w: &mut World, n: u8, groups: &[&str], quota: Quota) -> MemberId {
    let id = w.silent_member(n, groups, quota);
    w.connect(id);
    assert_eq!(status(&w.hello(id)), s::OK);
    id
}

fn send_register(w: &mut World, id: MemberId, body: RegisterRequest) -> Tag {
    w.send(id, &request(command::REGISTER, &body.to_bytes()))
}

/// The status of an answer that came, if it came.
fn answer(w: &mut World, tag: Tag) -> Option<u32> {
    w.replies.remove(&tag).map(|reply| status(&reply))
}

#[test]
fn bytes_and_dmbs_are_limited_and_given_back() {
    for (group, mode) in [("m", Mode::Mapped), ("c", Mode::Copied)] {
        let mut w = World::new(config());
        let quota = Quota { bytes: 160 << 10, dmbs: 3, ..Quota::default() };
        let a = member(&mut w, 1, &[group], quota);
        let first = w.register(a, register(gid(1), 0, 64 << 10, mode));
        w.register(a, register(gid(1), 1, 64 << 10, mode));
        assert_eq!(w.try_register(a, register(gid(1), 2, 64 << 10, mode)), s::NO_SPACE);
        w.register(a, register(gid(1), 2, 32 << 10, mode));
        assert_eq!(w.token(a, command::UNREGISTER, first.token), s::OK);
        w.register(a, register(gid(1), 0, 16 << 10, mode));
        assert_eq!(w.try_register(a, register(gid(1), 3, 16 << 10, mode)), s::NO_SPACE);
    }
}

#[test]
fn an_odd_length_counts_as_the_memory_it_takes() {
    let mut w = World::new(config());
    let a = member(&mut w, 1, &["m", "c"], Quota::default());
    w.register(a, register(gid(1), 0, 68 << 10, Mode::Mapped));
    let stats = w.fabric.stats(a).unwrap();
    assert_eq!((stats.wire.dmb_bytes, stats.charged_bytes), (68 << 10, 128 << 10));
}

#[test]
fn peers_are_limited_on_both_sides() {
    let mut w = World::new(config());
    let one = Quota { peers: 1, ..Quota::default() };
    let a = member(&mut w, 1, &["m"], one);
    let (b, c) = (w.member(2, &["m"]), w.member(3, &["m"]));
    w.register(b, register(gid(1), 0, 1 << 16, Mode::Mapped));
    assert_eq!(w.try_register(a, register(gid(3), 0, 1 << 16, Mode::Mapped)), s::NO_SPACE);
    assert_eq!(w.try_register(c, register(gid(1), 0, 1 << 16, Mode::Mapped)), s::NO_SPACE);
    assert_eq!(w.try_register(a, register(gid(2), 0, 1 << 16, Mode::Mapped)), s::OK);
    // A peer that is gone counts until it is forgotten.
    w.fabric.disconnect(b);
    assert_eq!(w.try_register(c, register(gid(1), 0, 1 << 16, Mode::Mapped)), s::NO_SPACE);
}

#[test]
fn a_pair_takes_only_so_much_of_a_window() {
    let mut config = config();
    config.pair_extents = 2;
    let mut w = World::new(config);
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let mut fits = 0;
    while w.try_register(a, register(gid(2), fits, 1 << 20, Mode::Mapped)) == s::OK {
        fits += 1;
    }
    // The first megabyte has the signal pages in it.
    assert_eq!(fits, 63);
    assert_eq!((w.maps[&a].len(), w.maps[&b].len()), (2, 2));
    assert_eq!(w.try_register(b, register(gid(1), 0, 512 << 10, Mode::Mapped)), s::OK);
}

#[test]
fn who_comes_and_goes_uses_up_only_its_own_share() {
    let mut config = config();
    config.pair_extents = 3;
    for (group, mode, instances) in [("m", Mode::Mapped, 3), ("c", Mode::Copied, 5)] {
        let mut w = World::new(config.clone());
        let quota = Quota { peers: 6, ..Quota::default() };
        let b = member(&mut w, 2, &[group], quota);
        let (a, c) = (w.member(1, &[group]), w.member(3, &[group]));
        let mut registered = 0;
        while w.try_register(a, register(gid(2), 0, 1 << 16, mode)) == s::OK {
            registered += 1;
            w.hello(a);
        }
        assert_eq!(registered, instances.min(4));
        // Others still find room.
        assert_eq!(w.try_register(c, register(gid(2), 0, 1 << 16, mode)), s::OK);
        // What b forgets is free for a again.
        let gone = w.take_events(b).into_iter().find(|e| kind(e) == event::PEER_GONE).unwrap();
        assert_eq!(w.status(b, command::FORGET_PEER, &event_body(&gone)[..24]), s::OK);
        assert_eq!(w.try_register(a, register(gid(2), 0, 1 << 16, mode)), s::OK);
    }
}

#[test]
fn a_full_window_leaves_no_trace() {
    let mut config = config();
    config.pair_extents = 100;
    let mut w = World::new(config);
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let mut index = 0;
    while w.try_register(a, register(gid(1), index, 1 << 20, Mode::Mapped)) == s::OK {
        index += 1;
    }
    assert_eq!(w.maps[&a].len(), 7);
    let before = w.fabric.totals();
    assert_eq!(w.try_register(b, register(gid(1), 0, 1 << 20, Mode::Mapped)), s::NO_SPACE);
    assert_eq!(w.fabric.totals(), before);
    // The place that was taken in b's window is free again.
    for extent in 0..7 {
        let mut fits =
            |n| w.try_register(b, register(gid(2), extent * 32 + n, 1 << 20, Mode::Mapped));
        assert!((0..31_u32).all(|n| fits(n) == s::OK));
    }
}

#[test]
fn control_requests_have_a_rate() {
    let mut w = World::new(config());
    let a = member(&mut w, 1, &["m"], Quota { control_per_s: 10, ..Quota::default() });
    let ping = Ping { cookie: 1 }.to_bytes();
    // HELLO was one.
    assert!((0..9).all(|_| w.status(a, command::PING, &ping) == s::OK));
    assert_eq!(w.status(a, command::PING, &ping), s::BUSY);
    w.wait(Duration::from_millis(100));
    assert_eq!(w.status(a, command::PING, &ping), s::OK);
    assert_eq!(w.status(a, command::PING, &ping), s::BUSY);
    w.wait(Duration::from_secs(100));
    assert_eq!((0..20).filter(|_| w.status(a, command::PING, &ping) == s::OK).count(), 10);
}

#[test]
fn signals_past_the_rate_come_later() {
    let mut w = World::new(config());
    let b = w.member(2, &["c"]);
    let a = member(&mut w, 1, &["c"], Quota { signals_per_s: 4, ..Quota::default() });
    let dmbs = [3, 70].map(|index| w.register(b, register(gid(1), index, 1 << 16, Mode::Copied)));
    for _ in 0..2 {
        assert!(dmbs.iter().all(|dmb| w.signal(a, dmb.token).is_ok()));
    }
    assert_eq!(w.take_signals(b), [3, 70]);
    for _ in 0..100 {
        assert_eq!(w.signal(a, dmbs[1].token), Ok(None));
    }
    assert!(w.take_signals(b).is_empty());
    let at = w.fabric.poll_timeout().unwrap();
    w.wait(at - w.now);
    assert_eq!(w.take_signals(b), [70]);
    assert_eq!(w.fabric.poll_timeout(), None);
}

#[test]
fn a_move_past_the_rate_signals_when_its_data_is_there() {
    let mut w = World::new(config());
    let b = w.member(2, &["c"]);
    let a = member(&mut w, 1, &["c"], Quota { signals_per_s: 1, ..Quota::default() });
    let dmb = w.register(b, register(gid(1), 3, 1 << 16, Mode::Copied));
    assert_eq!(w.begin_move(a, dmb.token, 0, 8).unwrap().finish().tell, Some(b));
    w.take_signals(b);
    let target = w.begin_move(a, dmb.token, 0, 8).unwrap();
    w.wait(Duration::from_secs(5));
    assert!(w.take_signals(b).is_empty());
    assert_eq!(target.finish().tell, None);
    let at = w.fabric.poll_timeout().unwrap();
    w.wait(at - w.now);
    assert_eq!(w.take_signals(b), [3]);
}

#[test]
fn software_events_of_one_sender_are_bounded() {
    let mut w = World::new(config());
    let (a, b, c) = (w.member(1, &["m"]), w.member(2, &["m"]), w.member(3, &["m"]));
    w.attentive.remove(&b);
    let event = SignalEventRequest { gid: gid(2), code: 1, reserved: 0, info: 2 }.to_bytes();
    let sent = (0..100).filter(|_| w.status(a, command::SIGNAL_EVENT, &event) == s::OK).count();
    assert_eq!(sent, 16);
    assert_eq!(w.status(a, command::SIGNAL_EVENT, &event), s::BUSY);
    // Another sender is not hurt, and what is taken makes room.
    assert_eq!(w.status(c, command::SIGNAL_EVENT, &event), s::OK);
    assert_eq!(w.take_events(b).len(), 17);
    assert_eq!(w.status(a, command::SIGNAL_EVENT, &event), s::OK);
}

#[test]
fn a_sleeping_writer_costs_bounded_memory() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let dmb = w.register(a, register(gid(2), 0, 1 << 16, Mode::Mapped));
    w.take_events(b);
    w.attentive.remove(&b);
    for index in 1..100 {
        let tag = send_register(&mut w, a, register(gid(2), index, 1 << 14, Mode::Mapped));
        // Its window is full of what it has not forgotten.
        assert!(matches!(answer(&mut w, tag), None | Some(s::NO_SPACE)));
        w.hello(a);
    }
    assert_eq!(w.token(a, command::UNREGISTER, dmb.token), s::NO_TOKEN);
    // One PEER_GONE a pair: the peer quota bounds them.
    let kinds: Vec<u16> = w.take_events(b).iter().map(kind).collect();
    assert!(kinds.len() <= 64 && kinds.iter().all(|k| *k == event::PEER_GONE), "{kinds:?}");
}

#[test]
fn a_window_that_does_not_answer_costs_one_timeout() {
    let mut w = World::new(config());
    let (a, b, c) = (w.member(1, &["m"]), w.member(2, &["m"]), w.member(3, &["m"]));
    w.deaf.insert(b);
    let dmb = register(gid(2), 0, 1 << 16, Mode::Mapped);
    let first = send_register(&mut w, a, dmb);
    let again = send_register(&mut w, a, dmb);
    let second = send_register(&mut w, a, register(gid(2), 1, 1 << 16, Mode::Mapped));
    assert!(w.replies.is_empty());
    w.wait(Duration::from_millis(1999));
    assert!(w.replies.is_empty());
    w.wait(Duration::from_millis(1));
    for tag in [first, again, second] {
        assert_eq!(answer(&mut w, tag), Some(s::IO_ERROR));
    }
    // Later ones fail at once, from whomever; pairs without that window are not hurt.
    assert_eq!(w.try_register(a, dmb), s::IO_ERROR);
    assert_eq!(w.try_register(c, dmb), s::IO_ERROR);
    assert_eq!(w.try_register(c, register(gid(1), 0, 1 << 16, Mode::Mapped)), s::OK);
    // Until it answers.
    w.deaf.clear();
    for (extent, member) in std::mem::take(&mut w.unanswered) {
        w.fabric.finish_map(extent, member, true);
    }
    assert_eq!(w.try_register(a, dmb), s::OK);
    assert_eq!(w.try_register(c, RegisterRequest { index: 1, ..dmb }), s::OK);
    assert_eq!(w.fabric.poll_timeout(), None);
}

#[test]
fn a_late_window_gets_no_new_extents() {
    let mut config = config();
    config.chunk_size = 2 << 20;
    let mut w = World::new(config);
    let (a, b, c) = (w.member(1, &["m"]), w.member(2, &["m"]), w.member(3, &["m"]));
    w.register(a, register(gid(2), 0, 1 << 20, Mode::Mapped));
    w.deaf.insert(b);
    send_register(&mut w, c, register(gid(2), 0, 1 << 16, Mode::Mapped));
    w.wait(Duration::from_secs(2));
    let before = w.fabric.totals();
    assert_eq!(w.try_register(a, register(gid(2), 1, 1 << 20, Mode::Mapped)), s::IO_ERROR);
    assert_eq!(w.fabric.totals(), before);
    // What fits into what is mapped is not hurt.
    assert_eq!(w.try_register(a, register(gid(2), 1, 1 << 18, Mode::Mapped)), s::OK);
}

#[test]
fn a_map_for_the_past_grants_nothing_now() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.deaf.insert(b);
    let dmb = register(gid(2), 0, 1 << 16, Mode::Mapped);
    send_register(&mut w, a, dmb);
    w.hello(a);
    let tag = send_register(&mut w, a, dmb);
    assert_eq!(w.unanswered.len(), 2);
    let (past, now) = (w.unanswered[0].0, w.unanswered[1].0);
    w.fabric.finish_map(past, b, true);
    w.work();
    assert_eq!(answer(&mut w, tag), None);
    w.fabric.finish_map(now, b, true);
    w.work();
    assert_eq!(answer(&mut w, tag), Some(s::OK));
}

#[test]
fn a_late_window_that_goes_is_forgiven() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.deaf.insert(b);
    let dmb = register(gid(2), 0, 1 << 16, Mode::Mapped);
    send_register(&mut w, a, dmb);
    w.wait(Duration::from_secs(2));
    assert_eq!(w.try_register(a, dmb), s::IO_ERROR);
    w.deaf.clear();
    w.connect(b);
    w.hello(b);
    // The old front-end's answer means nothing to the new one.
    for (extent, member) in std::mem::take(&mut w.unanswered) {
        w.fabric.finish_map(extent, member, false);
    }
    assert_eq!(w.try_register(a, dmb), s::OK);
}

#[test]
fn a_window_that_refuses_is_asked_again() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.refusing.insert(b);
    let dmb = register(gid(2), 0, 1 << 16, Mode::Mapped);
    assert_eq!(w.try_register(a, dmb), s::IO_ERROR);
    assert_eq!(w.try_register(a, dmb), s::IO_ERROR);
    w.refusing.clear();
    assert_eq!(w.try_register(a, dmb), s::OK);
    assert_eq!((w.extents.len(), w.maps[&a].len(), w.maps[&b].len()), (1, 1, 1));
}

#[test]
fn memory_that_was_short_is_tried_again() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let dmb = register(gid(2), 0, 1 << 16, Mode::Mapped);
    w.no_memory = true;
    assert_eq!(w.try_register(a, dmb), s::IO_ERROR);
    assert_eq!(w.try_register(a, dmb), s::IO_ERROR);
    w.no_memory = false;
    assert_eq!(w.try_register(a, dmb), s::OK);
    assert_eq!(w.try_register(b, register(gid(1), 0, 1 << 16, Mode::Mapped)), s::OK);
    assert_eq!((w.created, w.extents.len(), w.zeroed.len()), (3, 1, 0));
}

#[test]
fn a_driver_that_does_not_listen_costs_one_timeout() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.attentive.remove(&b);
    let dmb = register(gid(2), 0, 1 << 16, Mode::Mapped);
    let tag = send_register(&mut w, a, dmb);
    w.wait(Duration::from_secs(2));
    assert_eq!(answer(&mut w, tag), Some(s::IO_ERROR));
    assert_eq!(w.try_register(a, dmb), s::IO_ERROR);
    // An event buffer shows that it listens again; the grant was withdrawn.
    assert!(w.take_events(b).is_empty());
    w.attentive.insert(b);
    assert_eq!(w.try_register(a, dmb), s::OK);
}

#[test]
fn a_grant_taken_too_late_is_followed_by_its_end() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.attentive.remove(&b);
    let tag = send_register(&mut w, a, register(gid(2), 0, 1 << 16, Mode::Mapped));
    // Taken, and not yet in the ring when the time is over.
    assert_eq!(w.fabric.poll_event(b).as_ref().map(kind), Some(event::DMB_GRANTED));
    w.wait(Duration::from_secs(2));
    assert_eq!(answer(&mut w, tag), Some(s::IO_ERROR));
    let kinds: Vec<u16> = w.take_events(b).iter().map(kind).collect();
    assert_eq!(kinds, [event::DMB_UNREGISTERED]);
}

#[test]
fn events_that_could_not_be_written_come_again() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.attentive.remove(&b);
    let tag = send_register(&mut w, a, register(gid(2), 0, 1 << 16, Mode::Mapped));
    let event = w.fabric.poll_event(b).unwrap();
    w.fabric.events_failed(b);
    assert_eq!(w.take_events(b), [event]);
    assert_eq!(answer(&mut w, tag), Some(s::OK));
}
