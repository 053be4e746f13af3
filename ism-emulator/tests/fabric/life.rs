// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Members come, go, start over, and their peers forget them.
//!
//! Invariant tested: after a member went, nothing of it works, and everything it used is given
//! back as soon as its peer lets go.

use ism_abi::{ForgetPeerRequest, PeerGone, SignalEventRequest, command, event, status as s};
use ism_emulator::{MemberId, Mode, Refusal, Tag, Wish};

use crate::world::{World, body, config, event_body, gid, kind, register, request, status};

fn forget(w: &mut World, id: MemberId, peer: u8, instance: u64) -> u32 {
    let body = ForgetPeerRequest { gid: gid(peer), instance };
    w.status(id, command::FORGET_PEER, &body.to_bytes())
}

/// The only event of a member, a PEER_GONE.
fn peer_gone(w: &mut World, id: MemberId) -> PeerGone {
    let events = w.take_events(id);
    assert_eq!(events.iter().map(kind).collect::<Vec<_>>(), [event::PEER_GONE]);
    PeerGone::from_bytes(event_body(&events[0])).unwrap()
}

/// Ways for a member to go.
const WAYS: [fn(&mut World, MemberId); 4] = [
    |w, id| w.fabric.disconnect(id),
    |w, id| w.fabric.reset(id),
    |w, id| assert_eq!(status(&w.hello(id)), s::OK),
    |w, id| w.fabric.remove_member(id),
];

#[test]
fn who_goes_takes_all_tokens_along() {
    for (way, go) in WAYS.iter().enumerate() {
        for mode in [Mode::Mapped, Mode::Copied] {
            let mut w = World::new(config());
            let group = if mode == Mode::Mapped { "m" } else { "c" };
            let (a, b) = (w.member(1, &[group]), w.member(2, &[group]));
            let of_a = w.register(a, register(gid(2), 7, 1 << 16, mode));
            let of_b = w.register(b, register(gid(1), 7, 1 << 16, mode));
            w.take_events(b);
            go(&mut w, a);
            w.work();
            let gone = peer_gone(&mut w, b);
            assert_eq!((gone.gid, gone.instance), (gid(1), of_a.instance));
            assert_eq!(w.signal(b, of_a.token), Err(Refusal::NoToken));
            assert_eq!(w.begin_move(b, of_a.token, 0, 1).unwrap_err(), Refusal::NoToken);
            assert!(w.signal(a, of_b.token).is_err());
            assert!(w.take_signals(b).is_empty());
            // The survivor keeps its memory until it has let go of all.
            assert_eq!(forget(&mut w, b, 1, gone.instance), s::IN_USE);
            assert_eq!(forget(&mut w, b, 3, gone.instance), s::INVALID);
            assert_eq!(w.token(b, command::UNREGISTER, of_b.token), s::OK);
            assert_eq!(w.maps.get(&b).map_or(0, |maps| maps.len()), w.extents.len());
            assert_eq!(forget(&mut w, b, 1, gone.instance), s::OK);
            assert_eq!(forget(&mut w, b, 1, gone.instance), s::OK);
            assert!(w.extents.is_empty() && w.maps.get(&b).is_none_or(|m| m.is_empty()));
            // A front-end that is gone has no window to unmap.
            if way == 1 || way == 2 {
                assert!(w.maps.get(&a).is_none_or(|m| m.is_empty()));
            }
            let totals = w.fabric.totals();
            assert_eq!((totals.pairs, totals.extents, totals.dmbs), (0, 0, 0));
            assert_eq!(w.fabric.stats(b).unwrap().charged_bytes, 0);
            assert_eq!(w.fabric.poll_timeout(), None);
        }
    }
}

#[test]
fn a_member_that_comes_back_is_another_pair() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let old = w.register(a, register(gid(2), 7, 1 << 16, Mode::Mapped));
    let of_b = w.register(b, register(gid(1), 7, 1 << 16, Mode::Mapped));
    w.take_events(b);
    w.connect(a);
    w.hello(a);
    let gone = peer_gone(&mut w, b);
    let new = w.register(a, register(gid(2), 7, 1 << 16, Mode::Mapped));
    assert!(new.instance != old.instance && new.token != old.token);
    assert_eq!((w.extents.len(), w.maps[&b].len(), w.maps[&a].len()), (2, 2, 1));
    // The old DMB holds its index; a REGISTER that looks the same is not the same.
    let again = register(gid(1), 7, 1 << 16, Mode::Mapped);
    assert_eq!(w.try_register(b, again), s::IN_USE);
    assert_eq!(forget(&mut w, b, 1, new.instance), s::IN_USE);
    assert_eq!(w.token(b, command::UNREGISTER, of_b.token), s::OK);
    assert_eq!(forget(&mut w, b, 1, gone.instance), s::OK);
    assert_eq!((w.extents.len(), w.maps[&b].len()), (1, 1));
    assert_eq!(w.signal(b, new.token), Ok(Some(a)));
}

#[test]
fn nobody_is_told_who_had_nothing_with_it() {
    let mut w = World::new(config());
    let (a, b, c) = (w.member(1, &["m"]), w.member(2, &["m"]), w.member(3, &["m"]));
    w.register(a, register(gid(2), 7, 1 << 16, Mode::Mapped));
    w.take_events(b);
    w.fabric.disconnect(a);
    peer_gone(&mut w, b);
    assert!(w.take_events(c).is_empty());
}

#[test]
fn an_untaken_grant_is_withdrawn() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.attentive.remove(&b);
    let tag = w.send(
        a,
        &request(command::REGISTER, &register(gid(2), 7, 1 << 16, Mode::Mapped).to_bytes()),
    );
    assert!(w.replies.is_empty());
    w.hello(a);
    assert_eq!(w.replies.get(&tag).map(|r| status(r)), Some(s::NOT_READY));
    peer_gone(&mut w, b);
}

#[test]
fn register_fails_when_the_writer_goes() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.attentive.remove(&b);
    let bytes = request(command::REGISTER, &register(gid(2), 7, 1 << 16, Mode::Mapped).to_bytes());
    let tag = w.send(a, &bytes);
    w.fabric.disconnect(b);
    w.work();
    let reply = w.replies.remove(&tag).unwrap();
    assert_eq!(status(&reply), s::UNREACHABLE);
    assert!(body(&reply).iter().all(|byte| *byte == 0));
    let stats = w.fabric.stats(a).unwrap();
    assert_eq!((stats.wire.dmbs, stats.charged_bytes), (0, 0));
    assert_eq!(w.fabric.poll_timeout(), None);
}

#[test]
fn forgetting_detaches() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let dmb = w.register(a, register(gid(2), 7, 1 << 16, Mode::Mapped));
    assert_eq!(w.token(b, command::ATTACH, dmb.token), s::OK);
    w.fabric.disconnect(a);
    assert_eq!(w.fabric.stats(b).unwrap().orphans, 1);
    assert_eq!(forget(&mut w, b, 1, dmb.instance), s::OK);
    assert_eq!(w.fabric.stats(b).unwrap().orphans, 0);
    assert!(w.extents.is_empty());
    assert_eq!(w.token(b, command::DETACH, dmb.token), s::NO_TOKEN);
}

#[test]
fn wishes_of_a_front_end_that_is_gone_are_withdrawn() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let bytes = request(command::REGISTER, &register(gid(2), 7, 1 << 16, Mode::Mapped).to_bytes());
    assert!(w.fabric.control(a, Tag(500), &bytes, w.now).is_none());
    w.fabric.disconnect(a);
    let of_a = |wish: &Wish| match wish {
        Wish::Map { member, .. } | Wish::Unmap { member, .. } => *member == a,
        Wish::Reply { member, .. } | Wish::EventsReady { member } => *member == a,
        _ => false,
    };
    let wishes: Vec<Wish> = std::iter::from_fn(|| w.fabric.poll_wish()).collect();
    assert!(!wishes.iter().any(of_a), "{wishes:?}");
    wishes.into_iter().for_each(|wish| w.carry_out(wish));
    let gone = peer_gone(&mut w, b);
    assert_eq!(forget(&mut w, b, 1, gone.instance), s::OK);
    assert!(w.extents.is_empty());
}

#[test]
fn software_events_go_to_the_living_only() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    let event = SignalEventRequest { gid: gid(2), code: 1, reserved: 0, info: 2 }.to_bytes();
    assert_eq!(w.status(a, command::SIGNAL_EVENT, &event), s::OK);
    w.fabric.reset(b);
    assert_eq!(w.status(a, command::SIGNAL_EVENT, &event), s::UNREACHABLE);
}

#[test]
fn members_are_listed() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["m"]), w.member(2, &["m"]));
    w.fabric.reset(a);
    w.fabric.disconnect(b);
    let list: Vec<_> = w.fabric.list().map(|m| (m.name, m.gid, m.connected, m.ready)).collect();
    let expected = [("member1", gid(1), true, false), ("member2", gid(2), false, false)];
    assert_eq!(list, expected.map(|(name, gid, c, r)| (name.to_owned(), gid, c, r)));
}
