// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Links come and go: ADD LINK in both versions, REQ ADD LINK, DELETE LINK, asymmetric links.

use std::time::Duration;

use smc_proto::id::BufferId;
use smc_proto::smcr::link::State;
use smc_proto::smcr::{Redundancy, Wish};
use smc_wire::llc::{Body, DeleteLink, DeleteReason, DeleteTarget, Message, Version};

use crate::fabric::World;
use crate::host::{CLIENT, FIRST, Options, SERVER};

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

fn two_ports(version: Version) -> Options {
    Options::new(version, &[1, 2], &[1, 2])
}

fn redundancy(world: &World) -> [Redundancy; 2] {
    [SERVER, CLIENT].map(|side| world.hosts[side].group.redundancy())
}

#[test]
fn second_link_comes_with_the_first_contact() {
    for version in VERSIONS {
        let world = World::connected(&two_ports(version));
        assert_eq!(redundancy(&world), [Redundancy::Symmetric; 2]);
        world.check_agreement();
        for side in [SERVER, CLIENT] {
            let links = world.active(side);
            assert_eq!(links.len(), 2);
            assert_ne!(links[0].port.device, links[1].port.device);
            let index = world.first_rtoken[side];
            let keys = links.iter().map(|link| world.hosts[side].group.rtoken(index, link.id));
            assert!(keys.into_iter().all(|key| key.is_some()), "the RMB is on both links");
        }
    }
}

/// A world with one link and `count` RMBs on each side, whose second ports come up: the server's
/// begins ADD LINK.
fn with_rmbs(version: Version, server: u32, client: u32) -> World {
    let mut world = World::connected(&Options::new(version, &[1], &[1]));
    for (side, count) in [(SERVER, server), (CLIENT, client)] {
        (1..count).for_each(|n| world.share(side, BufferId(n)));
    }
    world
}

fn add_ports(world: &mut World) -> Vec<String> {
    let from = world.frames.len();
    world.set_port(CLIENT, 2, true);
    world.set_port(SERVER, 2, true);
    world.run();
    world.talk(from)
}

// row 63
// RFC 7609, 3.5.2
#[test]
fn three_rmbs_take_two_continuations_each_way() {
    let mut world = with_rmbs(Version::V1, 3, 3);
    let (add, cont) =
        (["S ADD LINK", "C ADD LINK!"], ["S ADD LINK CONTINUATION", "C ADD LINK CONTINUATION!"]);
    let expected = [&add[..], &cont, &cont, &["S CONFIRM LINK", "C CONFIRM LINK!"]].concat();
    let talk = add_ports(&mut world);
    let at = talk.iter().position(|said| said.contains("CONT")).unwrap() - 2;
    assert_eq!(talk[at..at + 8], expected);
    assert_eq!(redundancy(&world), [Redundancy::Symmetric; 2]);
    world.check_agreement();
    for side in [SERVER, CLIENT] {
        assert_eq!(world.group(side).rtoken_count(), 3);
        let links = world.active(side);
        let missing = (0..3u8).map(smc_proto::smcr::RtokenIndex).any(|index| {
            links.iter().any(|link| world.hosts[side].group.rtoken(index, link.id).is_none())
        });
        assert!(!missing, "each RMB is on each link");
    }
    let counts: Vec<_> = world
        .frames
        .iter()
        .filter_map(|frame| match Message::parse(&frame.bytes).unwrap().body {
            Body::AddLinkCont(cont) => Some(cont.remaining),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [3, 3, 1, 1]);
}

// row 63: the side that has told all goes on with empty ones
#[test]
fn continuations_go_on_until_both_have_told_all() {
    for (server, client) in [(1, 4), (5, 1)] {
        let mut world = with_rmbs(Version::V1, server, client);
        let talk = add_ports(&mut world);
        let rounds = talk.iter().filter(|said| said.contains("CONT")).count();
        assert_eq!(rounds, 2 * server.max(client).div_ceil(2) as usize);
        assert_eq!(redundancy(&world), [Redundancy::Symmetric; 2]);
        world.check_agreement();
    }
}

// row 63: a peer that never comes to its end is left
#[test]
fn endless_continuations_end() {
    let mut world = with_rmbs(Version::V1, 1, 1);
    world.tamper = Some(Box::new(|_, _, bytes| {
        if bytes[0] == 3 {
            bytes[5] = 255;
        }
        true
    }));
    add_ports(&mut world);
    world.run_for(Duration::from_secs(60));
    let rounds = world.talk(0).iter().filter(|said| said.contains("CONT")).count();
    assert!((200..600).contains(&rounds), "{rounds}");
    assert!(world.group(SERVER).is_quiet() && world.group(SERVER).is_open());
}

// row 64
#[test]
fn version_2_tells_all_keys_in_the_tail() {
    let mut world = with_rmbs(Version::V2, 3, 3);
    let talk = add_ports(&mut world);
    assert!(!talk.iter().any(|said| said.contains("CONT")), "{talk:?}");
    let lengths: Vec<_> =
        world.frames.iter().filter(|f| f.bytes[0] == 0x22).map(|f| f.bytes.len()).collect();
    assert_eq!(lengths[lengths.len() - 2..], [44 + 28 + 3 * 16; 2]);
    assert_eq!(redundancy(&world), [Redundancy::Symmetric; 2]);
    world.check_agreement();
}

// row 64: keys behind the received bytes are not believed
#[test]
fn short_tail_brings_fewer_keys() {
    let mut world = with_rmbs(Version::V2, 3, 3);
    add_ports(&mut world);
    world.tamper = Some(Box::new(|from, _, bytes| {
        if from == SERVER && bytes[0] == 0x22 {
            bytes.truncate(44 + 28 + 16 + 7);
        }
        true
    }));
    // The server makes another link in the place of the one that goes.
    let (victim, now) = (world.active(SERVER)[1].id, world.now);
    assert!(world.group(SERVER).delete_link(now, victim, DeleteReason::OPERATOR));
    world.pump(SERVER);
    world.run();
    let new = world.active(CLIENT)[1].id;
    let keys = (0..3u8).map(smc_proto::smcr::RtokenIndex);
    let known = keys.filter(|&index| world.hosts[CLIENT].group.rtoken(index, new).is_some());
    assert_eq!(known.count(), 1);
    assert_eq!(redundancy(&world), [Redundancy::Symmetric; 2]);
}

// row 65
#[test]
fn version_2_client_asks_when_a_port_comes_up() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1]));
    assert_eq!(redundancy(&world), [Redundancy::AsymmetricPeer, Redundancy::AsymmetricLocal]);
    let from = world.frames.len();
    world.set_port(CLIENT, 2, true);
    world.run();
    let talk = world.talk(from);
    assert_eq!(talk[..3], ["C REQUEST ADD LINK", "S ADD LINK", "C ADD LINK!"]);
    assert_eq!(redundancy(&world), [Redundancy::Symmetric; 2]);
    world.check_agreement();
}

// row 65: the server that adds no link says so
#[test]
fn server_answers_a_request_that_it_cannot_serve() {
    let mut world = World::connected(&two_ports(Version::V2));
    let link = world.active(CLIENT)[0].id;
    let from = world.frames.len();
    let gids = [crate::host::port(CLIENT, 3).gid];
    let ask = Body::ReqAddLink(smc_wire::llc::ReqAddLink::new(&gids));
    world.say(CLIENT, link, false, ask);
    world.run();
    assert_eq!(world.talk(from), ["S REQUEST ADD LINK!"]);
}

// row 65: without an answer the client's other flows wait 2 s, not for ever
#[test]
fn unanswered_request_does_not_block_the_client() {
    let mut world = World::connected(&Options::new(Version::V2, &[1], &[1]));
    world.tamper = Some(Box::new(|_, _, bytes| bytes[0] != 0x25));
    world.set_port(CLIENT, 2, true);
    let now = world.now;
    world.group(CLIENT).share_rmb(now, BufferId(7)).unwrap();
    world.run_for(Duration::from_secs(3));
    assert!(world.told(CLIENT, &Wish::BufferReady { buffer: BufferId(7), result: Ok(()) }));
}

// row 66
#[test]
fn offer_without_an_alternate_path_is_rejected() {
    for version in VERSIONS {
        let mut world = World::connected(&Options::new(version, &[1], &[1]));
        let rejection = world.frames.last().unwrap().clone();
        assert_eq!(world.talk(0)[2..], ["S ADD LINK", "C ADD LINK!"]);
        assert_eq!((rejection.from, rejection.bytes[3]), (CLIENT, 0xC0));
        let reason = match version {
            Version::V1 => rejection.bytes[2],
            Version::V2 => 1, // version 2's length stands in the reason's place
        };
        assert_eq!(reason, 1);
        assert_eq!(redundancy(&world), [Redundancy::Single; 2]);
        world.run();
        assert_eq!(world.hosts[SERVER].qps.len(), 1, "the server destroyed the queue pair");
    }
}

// row 66: a queue pair that cannot be made is a rejection too
#[test]
fn client_without_a_queue_pair_rejects() {
    let mut world = World::new(&two_ports(Version::V1));
    world.hosts[CLIENT].fail_qp = true;
    world.start();
    world.run();
    assert_eq!(world.talk(0)[2..], ["S ADD LINK", "C ADD LINK!"]);
    assert_eq!(redundancy(&world), [Redundancy::Single; 2]);
    world.check_agreement();
}

// row 67
// RFC 7609, 3.5.4
#[test]
fn operator_deletes_one_link() {
    for (version, side) in [(Version::V1, SERVER), (Version::V2, CLIENT)] {
        let mut world = World::connected(&two_ports(version));
        let (from, now) = (world.frames.len(), world.now);
        let victim = world.active(side)[1];
        assert!(world.group(side).delete_link(now, victim.id, DeleteReason::OPERATOR));
        world.pump(side);
        world.run();
        let talk = world.talk(from);
        let asked: &[&str] = if side == CLIENT { &["C DELETE LINK"] } else { &[] };
        let expected = [asked, &["S DELETE LINK", "C DELETE LINK!"]].concat();
        assert_eq!(talk[..expected.len()], expected);
        let message = Message::parse(&world.frames[from].bytes).unwrap();
        let Body::DeleteLink(delete) = message.body else { panic!("{message:?}") };
        let target = DeleteTarget::Link(victim.number);
        assert_eq!(delete, DeleteLink { target, orderly: true, reason: DeleteReason::OPERATOR });
        assert!(world.group(side).link(victim.id).is_none());
        // The server makes another one at once, since both ports are up.
        assert_eq!(talk[expected.len()], "S ADD LINK");
        assert_eq!(redundancy(&world), [Redundancy::Symmetric; 2]);
        world.check_agreement();
    }
}

// row 67: what was posted on the link completes before the peer is told
#[test]
fn link_is_drained_before_it_is_deleted() {
    let mut world = World::connected(&two_ports(Version::V1));
    world.share(CLIENT, BufferId(1));
    let at = world.send(SERVER, BufferId(1), 1000);
    let (victim, now) = (world.streams[at].route.link, world.now);
    let from = world.frames.len();
    assert!(world.group(SERVER).delete_link(now, victim, DeleteReason::OPERATOR));
    world.pump(SERVER);
    let llc = |world: &World| {
        let queues = world.hosts[SERVER].qps.values().flat_map(|qp| &qp.queue);
        queues.filter(|(_, item)| matches!(item, crate::host::Item::Llc(..))).count()
    };
    while !world.hosts[SERVER].qp(victim).queue.is_empty() {
        assert_eq!(llc(&world), 0, "the client is told too early");
        assert!(world.step(None));
    }
    world.run();
    let position = |what: &dyn Fn(&crate::fabric::Frame) -> bool| {
        world.frames[from..].iter().rposition(what).unwrap()
    };
    let told = position(&|frame| frame.from == SERVER && frame.bytes[0] == 4);
    let last = position(&|frame| frame.link == victim && frame.bytes[0] == 0xFE);
    assert!(last < told, "DELETE LINK stands before the last CDC of the link");
    assert!(world.streams[at].is_done() && world.streams[at].moves == 1);
}

// row 67: the client does not know the link
#[test]
fn client_says_that_it_has_no_such_link() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1]));
    let link = world.active(SERVER)[0].id;
    let from = world.frames.len();
    let target = DeleteTarget::Link(77);
    let delete = DeleteLink { target, orderly: true, reason: DeleteReason::LOST_PATH };
    world.say(SERVER, link, false, Body::DeleteLink(delete));
    world.run();
    let answer = Message::parse(&world.frames[from].bytes).unwrap();
    let reason = DeleteReason::UNKNOWN_LINK;
    assert_eq!(answer.body, Body::DeleteLink(DeleteLink { reason, ..delete }));
    assert!(answer.response);
}

// row 67: the whole group, from either end, in an orderly way or not
#[test]
fn group_ends_on_both_sides() {
    for version in VERSIONS {
        for side in [SERVER, CLIENT] {
            for orderly in [false, true] {
                let mut world = World::connected(&two_ports(version));
                let conn = smc_proto::id::ConnId(5);
                world.group(1 - side).join(conn).unwrap();
                let (from, now) = (world.frames.len(), world.now);
                world.group(side).terminate(now, orderly, DeleteReason::OPERATOR);
                world.pump(side);
                world.run_for(Duration::from_secs(5));
                let message = Message::parse(&world.frames[from].bytes).unwrap();
                let (target, reason) = (DeleteTarget::All, DeleteReason::OPERATOR);
                assert_eq!(message.body, Body::DeleteLink(DeleteLink { target, orderly, reason }));
                for side in [SERVER, CLIENT] {
                    assert!(world.group(side).is_gone());
                    assert!(world.hosts[side].qps.is_empty());
                }
                assert!(world.told(1 - side, &Wish::KillConnection { conn }));
                assert!(world.told(side, &Wish::GroupGone { reason: DeleteReason::OPERATOR }));
            }
        }
    }
}

// row 69
// RFC 7609, 3.5.3
#[test]
fn asymmetric_link_goes_when_two_symmetric_ones_are_there() {
    for version in VERSIONS {
        for late in [SERVER, CLIENT] {
            let ports: [&[u8]; 2] = if late == SERVER { [&[1], &[1, 2]] } else { [&[1, 2], &[1]] };
            let mut world = World::connected(&Options::new(version, ports[0], ports[1]));
            let one = |side: usize| world.hosts[side].group.redundancy();
            assert_eq!(one(late), Redundancy::AsymmetricLocal);
            assert_eq!(one(1 - late), Redundancy::AsymmetricPeer);
            let asymmetric = world.active(SERVER).into_iter().find(|link| link.asymmetric).unwrap();
            let from = world.frames.len();
            world.set_port(late, 2, true);
            world.run();
            let talk = world.talk(from);
            assert_eq!(talk[talk.len() - 2..], ["S DELETE LINK", "C DELETE LINK!"]);
            let at = world.frames.len() - 2;
            let message = Message::parse(&world.frames[at].bytes).unwrap();
            let target = DeleteTarget::Link(asymmetric.number);
            let reason = DeleteReason::NO_ASYMMETRIC_NEEDED;
            assert_eq!(
                message.body,
                Body::DeleteLink(DeleteLink { target, orderly: true, reason })
            );
            assert_eq!(redundancy(&world), [Redundancy::Symmetric; 2]);
            assert!(world.group(SERVER).link(asymmetric.id).is_none());
            world.check_agreement();
        }
    }
}

// row 69: new connections are not put on an asymmetric link
#[test]
fn asymmetric_link_gets_no_new_connections() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1]));
    for n in 0..4 {
        let link = world.group(SERVER).join(smc_proto::id::ConnId(n)).unwrap();
        assert!(!world.group(SERVER).link(link).unwrap().asymmetric);
    }
}

#[test]
fn connections_take_turns_on_symmetric_links() {
    let mut world = World::connected(&two_ports(Version::V1));
    let links: Vec<_> =
        (0..4).map(|n| world.group(SERVER).join(smc_proto::id::ConnId(n)).unwrap()).collect();
    assert_eq!((links[0], links[1]), (links[2], links[3]));
    assert_ne!(links[0], links[1]);
    assert_eq!(world.group(SERVER).connections_on(links[0]), 2);
}

// What only the other role may say ends the group, and this group alone.
#[test]
fn protocol_violation_ends_the_group() {
    let mut world = World::connected(&two_ports(Version::V2));
    let (conn, link) = (smc_proto::id::ConnId(1), world.active(SERVER)[0].id);
    world.group(CLIENT).join(conn).unwrap();
    let from = world.frames.len();
    world.say(SERVER, link, false, Body::ReqAddLink(Default::default()));
    world.run();
    let message = Message::parse(&world.frames[from].bytes).unwrap();
    let (target, reason) = (DeleteTarget::All, DeleteReason::PROTOCOL_VIOLATION);
    assert_eq!(message.body, Body::DeleteLink(DeleteLink { target, orderly: false, reason }));
    assert!(world.told(CLIENT, &Wish::KillConnection { conn }));
    assert!(world.told(CLIENT, &Wish::GroupGone { reason }));
}

#[test]
fn flow_that_waits_for_a_lost_answer_ends() {
    for lost in [0x02, 0x01] {
        let mut world = World::new(&two_ports(Version::V1));
        let mut first = true;
        world.tamper = Some(Box::new(move |from, _, bytes| {
            let is_lost = from == CLIENT && bytes[0] == lost;
            !is_lost || (lost == 1 && std::mem::take(&mut first))
        }));
        world.start();
        world.run_for(Duration::from_secs(20));
        assert_eq!(world.active(SERVER).len(), 1, "lost {lost:#x}");
        world.tamper = None;
        world.run_for(Duration::from_secs(60));
        for side in [SERVER, CLIENT] {
            assert!(world.told(side, &Wish::FirstContactDone));
            let left = world.hosts[side].group.links().filter(|link| link.state != State::Active);
            assert_eq!(left.count(), 0);
        }
        world.check_agreement();
        let link = world.active(SERVER)[0].id;
        assert!(world.group(SERVER).local_rtoken(FIRST, link).is_some());
    }
}
