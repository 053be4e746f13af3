// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lost links: connections move, rewind and validate; TEST LINK finds what is lost silently.

use std::time::Duration;

use smc_proto::id::{BufferId, DeviceId};
use smc_proto::smcr::link::State;
use smc_proto::smcr::{Received, Redundancy, Wish};
use smc_wire::cdc::{ProducerFlags, Smcr};
use smc_wire::llc::{Body, DeleteLink, DeleteReason, DeleteTarget, Message, Version};

use crate::fabric::World;
use crate::host::{CLIENT, Options, SERVER, port};

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];
const RMB: BufferId = BufferId(1);

/// Two symmetric links and a stream of `len` bytes under way from `side`.
fn streaming(version: Version, side: usize, len: usize) -> World {
    let mut world = World::connected(&Options::new(version, &[1, 2], &[1, 2]));
    world.share(1 - side, RMB);
    world.send(side, RMB, len);
    world
}

fn device_pair(world: &World, side: usize, link: smc_proto::smcr::LinkId) -> (DeviceId, DeviceId) {
    let view = world.hosts[side].group.link(link).unwrap();
    let there = [1u8, 2].map(|n| port(1 - side, n));
    let peer = there.iter().find(|port| port.gid == view.peer.unwrap().gid).unwrap().device;
    if side == SERVER { (view.port.device, peer) } else { (peer, view.port.device) }
}

// row 68
// RFC 7609, 4.6.1
#[test]
fn cut_link_loses_no_byte_of_its_connections() {
    for version in VERSIONS {
        for side in [SERVER, CLIENT] {
            for steps in 0..24 {
                let mut world = streaming(version, side, 3000);
                (0..steps).for_each(|_| assert!(world.step(None)));
                let old = world.streams[0].route.link;
                let cut = device_pair(&world, side, old);
                world.cut.insert(cut);
                world.run_for(Duration::from_secs(1));
                let stream = &world.streams[0];
                assert!(stream.is_done() && !stream.aborted && !stream.killed, "{steps} steps");
                assert_eq!(stream.moves, 1);
                assert!(!world.hosts[side].group.links().any(|link| link.id == old));
            }
        }
    }
}

// row 68
#[test]
fn validation_with_the_last_completed_number_comes_first_on_the_new_link() {
    let mut world = streaming(Version::V2, CLIENT, 3000);
    (0..9).for_each(|_| assert!(world.step(None)));
    let from = world.frames.len();
    let old = world.streams[0].route.link;
    let cut = device_pair(&world, CLIENT, old);
    world.cut.insert(cut);
    world.run();
    let on_new = |frame: &&crate::fabric::Frame| frame.link != old && frame.from == CLIENT;
    let cdcs: Vec<Smcr> = world.frames[from..]
        .iter()
        .filter(on_new)
        .filter_map(|frame| match frame.received {
            Received::Cdc(cdc) => Some(cdc),
            _ => None,
        })
        .collect();
    assert_eq!(cdcs[0].flags, ProducerFlags::FAILOVER_VALIDATION);
    assert!(cdcs[1..].iter().all(|cdc| cdc.flags.is_empty()));
    assert!(cdcs[0].seqno < cdcs[1].seqno);
}

// row 68: the link that is lost is deleted on both sides, and both come to rest with one link
#[test]
fn lost_port_is_told_to_the_peer() {
    for version in VERSIONS {
        for side in [SERVER, CLIENT] {
            let mut world = streaming(version, side, 100);
            world.run();
            let from = world.frames.len();
            world.set_port(side, 1, false);
            world.run();
            let talk = world.talk(from);
            let first = if side == SERVER { "S DELETE LINK" } else { "C DELETE LINK" };
            assert_eq!(talk[0], first);
            let llc = world.frames[from..].iter().find(|frame| frame.bytes[0] != 0xFE).unwrap();
            let Body::DeleteLink(delete) = Message::parse(&llc.bytes).unwrap().body else {
                panic!("{talk:?}")
            };
            assert_eq!((delete.orderly, delete.reason), (true, DeleteReason::LOST_PATH));
            world.run_for(Duration::from_secs(100));
            world.check_agreement();
            assert!(world.active(side).iter().all(|link| link.port.device != port(side, 1).device));
        }
    }
}

// row 68: links that are deleted one behind the other, the client hearing of both at once
#[test]
fn connection_that_is_moved_twice_at_once_is_where_the_last_move_leads() {
    let mut world = World::connected(&Options::new(Version::V2, &[1], &[1, 2]));
    world.share(SERVER, RMB);
    world.send(CLIENT, RMB, 100);
    world.run();
    // A third link, while the client does not hear that the asymmetric one shall go.
    world.tamper = Some(Box::new(|from, _, bytes| from != SERVER || bytes[0] & 0xF != 4));
    world.set_port(SERVER, 2, true);
    world.run_for(Duration::from_secs(1));
    let links: Vec<_> = world.active(CLIENT).iter().map(|link| (link.id, link.number)).collect();
    let [(first, one), (second, two), (third, _)] = links[..] else { panic!("{links:?}") };
    assert_eq!(world.streams[0].route.link, first);
    // The client is busy with a key that is not answered.
    world.tamper = Some(Box::new(|from, _, bytes| from != SERVER || bytes[0] & 0xF != 6));
    let now = world.now;
    world.group(CLIENT).share_rmb(now, BufferId(2)).unwrap();
    world.pump(CLIENT);
    world.run();
    for number in [one, two] {
        let (target, reason) = (DeleteTarget::Link(number), DeleteReason::OPERATOR);
        let message = DeleteLink { target, orderly: true, reason };
        let carrier = world.active(SERVER)[1].id;
        world.say(SERVER, carrier, false, Body::DeleteLink(message));
    }
    assert_eq!(world.streams[0].moves, 0);
    while world.tick(now.after(Duration::from_secs(2))) {}
    let conn = world.streams[0].conn;
    let moves = [(first, second), (second, third)];
    for (from, to) in moves {
        assert!(world.told(CLIENT, &Wish::MoveConnection { conn, from, to }), "{from:?}, {to:?}");
    }
    assert_eq!((world.streams[0].moves, world.streams[0].route.link), (2, third));
}

// row 68: the port comes back, and with it the second link
#[test]
fn group_is_symmetric_again_when_the_port_is_back() {
    for version in VERSIONS {
        for side in [SERVER, CLIENT] {
            let mut world = streaming(version, side, 100);
            world.set_port(side, 1, false);
            world.run_for(Duration::from_secs(40));
            world.set_port(side, 1, true);
            world.run_for(Duration::from_secs(40));
            world.check_agreement();
            let redundancy = [SERVER, CLIENT].map(|side| world.hosts[side].group.redundancy());
            assert_eq!(redundancy, [Redundancy::Symmetric; 2], "{version:?}, side {side}");
        }
    }
}

// row 68: without another link the group ends, with its connections
#[test]
fn last_link_takes_the_group_with_it() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1]));
    world.share(CLIENT, RMB);
    let at = world.send(SERVER, RMB, 2000);
    let conn = world.streams[at].conn;
    world.set_port(SERVER, 1, false);
    world.run_for(Duration::from_secs(5));
    assert!(world.told(SERVER, &Wish::KillConnection { conn }));
    let reason = DeleteReason::LOST_PATH;
    assert!(world.told(SERVER, &Wish::GroupGone { reason }));
    // The client learns of it by itself.
    world.run_for(Duration::from_secs(60));
    assert!(world.group(CLIENT).is_gone());
}

#[test]
fn asymmetric_link_saves_the_side_with_one_port() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1]));
    world.share(SERVER, RMB);
    let at = world.send(CLIENT, RMB, 3000);
    (0..6).for_each(|_| assert!(world.step(None)));
    world.set_port(SERVER, 1, false);
    world.run_for(Duration::from_secs(60));
    assert!(world.streams[at].is_done() && !world.streams[at].killed);
    world.check_agreement();
}

// row 70
#[test]
fn idle_link_is_tested_after_30_s() {
    for version in VERSIONS {
        let mut world = World::connected(&Options::new(version, &[1], &[1]));
        let from = world.frames.len();
        let start = world.now;
        world.run_for(Duration::from_secs(24));
        assert_eq!(world.talk(from), Vec::<String>::new());
        world.run_for(Duration::from_secs(7));
        let talk = world.talk(from);
        assert!(talk.contains(&"S TEST LINK".into()) && talk.contains(&"C TEST LINK!".into()));
        assert!(world.now.since(start) >= Duration::from_secs(30));
        world.run_for(Duration::from_secs(300));
        assert!(world.group(SERVER).is_open() && world.group(CLIENT).is_open());
    }
}

// row 70: traffic is as good as an answer
#[test]
fn busy_link_is_not_tested() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1]));
    let from = world.frames.len();
    for n in 0..10 {
        world.run_for(Duration::from_secs(20));
        for side in [SERVER, CLIENT] {
            world.share(side, BufferId(10 + n));
        }
    }
    assert!(!world.talk(from).iter().any(|said| said.contains("TEST")));
}

// row 70: the answer repeats the bytes of the question
#[test]
fn test_link_is_echoed() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1]));
    let link = world.active(CLIENT)[0].id;
    let user_data = *b"are you there ??";
    let question = Body::TestLink(smc_wire::llc::TestLink { user_data });
    world.say(CLIENT, link, false, question);
    world.run();
    let frame = world.frames.last().unwrap();
    let answer = Message::parse(&frame.bytes).unwrap();
    assert_eq!((answer.response, answer.body), (true, question));
}

// row 70: without an answer within 2 s the link is down
#[test]
fn unanswered_test_loses_the_link() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1, 2]));
    let silent = world.active(CLIENT)[1];
    let qpn = silent.qp.unwrap().qpn;
    let victim = world.active(SERVER).into_iter().find(|l| l.peer.unwrap().qpn == qpn).unwrap();
    // The client's answers get lost, though the queue pair says that all is well.
    world.tamper = Some(Box::new(move |from, link, bytes| {
        (from, link, bytes[0]) != (CLIENT, silent.id, 0x27)
    }));
    let from = world.frames.len();
    let idle_since = Duration::from_secs(5);
    world.run_for(Duration::from_secs(31) - idle_since);
    assert_eq!(world.talk(from).iter().filter(|said| *said == "S TEST LINK").count(), 2);
    assert_eq!(world.active(SERVER).len(), 2);
    world.run_for(Duration::from_secs(2));
    let left = world.active(SERVER);
    assert!(left.iter().all(|link| link.id != victim.id), "{left:?}");
    assert!(world.told(SERVER, &Wish::LinkUp { link: victim.id }));
}

#[test]
fn full_send_queue_that_stands_still_is_a_lost_link() {
    let mut world = World::connected(&Options::new(Version::V1, &[1, 2], &[1, 2]));
    let (now, link) = (world.now, world.active(SERVER)[0].id);
    let body = Body::TestLink(Default::default());
    let mut bytes = [0; 44];
    Message { version: Version::V1, response: false, body }.emit(&mut bytes).unwrap();
    // The queue pair takes the answers and never completes them.
    let server = world.group(SERVER);
    (0..1000).for_each(|_| assert_eq!(server.handle_recv(now, link, &bytes), Received::Control));
    let posted = std::iter::from_fn(|| server.poll_wish()).count();
    assert_eq!(posted, 16, "as many as the send queue takes, the rest waits or is dropped");
    let due = now.after(Duration::from_secs(10));
    assert_eq!(server.poll_timeout(), Some(due));
    server.handle_timeout(now.after(Duration::from_secs(9)));
    assert_eq!(server.link(link).unwrap().state, State::Active);
    server.handle_timeout(due);
    assert_eq!(server.link(link).unwrap().state, State::Inactive);
    assert!(server.poll_timeout().is_none_or(|next| next > due), "it waits no longer");
}
