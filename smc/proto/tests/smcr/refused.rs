// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Links that do not come to be, or not at once.
//!
//! Invariant: after each failure both ends are where they were before.

use std::time::Duration;

use smc_proto::id::{BufferId, ConnId};
use smc_proto::smcr::{Received, Redundancy, Wish};
use smc_wire::llc::{AddLink, Body, DeleteReason, Message, RejectReason, Version};

use crate::fabric::World;
use crate::host::{CLIENT, Options, SERVER, port};

fn symmetric(version: Version) -> World {
    World::connected(&Options::new(version, &[1, 2], &[1, 2]))
}

// row 65: an offer is answer enough, also if it comes to nothing
#[test]
fn request_is_answered_once() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1]));
    let from = world.frames.len();
    world.hosts[CLIENT].fail_qp = true;
    world.set_port(CLIENT, 2, true);
    world.run();
    assert_eq!(world.talk(from), ["C REQUEST ADD LINK", "S ADD LINK", "C ADD LINK!"]);
    world.check_agreement();
}

// row 65
#[test]
fn port_that_changes_nothing_asks_for_nothing() {
    for version in [Version::V1, Version::V2] {
        let mut world = symmetric(version);
        let from = world.frames.len();
        for side in [SERVER, CLIENT] {
            world.set_port(side, 2, true);
            world.run();
        }
        assert_eq!(world.talk(from), Vec::<String>::new());
    }
}

/// The server's offer, as the client got it in the first contact.
fn offer(world: &World) -> AddLink<'_> {
    let mut bodies =
        world.frames.iter().filter_map(|frame| Message::parse(&frame.bytes).ok().map(|m| m.body));
    bodies
        .find_map(|body| match body {
            Body::AddLink(offer) => Some(offer),
            _ => None,
        })
        .unwrap()
}

// row 66: an offer with the number of a link that is there, or without a queue pair
#[test]
fn impossible_offers_are_rejected() {
    for taken in [true, false] {
        let mut world = World::connected(&Options::new(Version::V1, &[1, 2], &[1]));
        world.hosts[CLIENT].up.insert(port(CLIENT, 2).device);
        world.tamper = Some(Box::new(|from, _, _| from == SERVER));
        world.set_port(CLIENT, 2, true);
        world.run();
        world.tamper = None;
        let AddLink { mac, gid, qpn, psn, mtu, link, .. } = offer(&world);
        let (link, mtu) = if taken { (1, mtu) } else { (link + 7, None) };
        let offer = AddLink { mac, gid, qpn, psn, mtu, link, rejected: None, tail: None };
        let (from, carrier) = (world.frames.len(), world.active(SERVER)[0].id);
        world.say(SERVER, carrier, false, Body::AddLink(offer));
        world.run();
        let answer = Message::parse(&world.frames[from].bytes).unwrap();
        let rejected = Some(RejectReason::NO_ALTERNATE_PATH);
        assert_eq!(answer.body, Body::AddLink(AddLink { rejected, ..offer }));
        assert!(answer.response);
    }
}

/// A first contact in which `lost` says which messages are lost; all that was said.
fn contact(
    version: Version,
    lost: impl FnMut(usize, &[u8]) -> bool + 'static,
) -> (World, Vec<String>) {
    let mut world = World::new(&Options::new(version, &[1, 2], &[1, 2]));
    let mut lost = lost;
    world.tamper = Some(Box::new(move |from, _, bytes| !lost(from, bytes)));
    world.start();
    world.run_for(Duration::from_secs(20));
    let talk = world.talk(0);
    (world, talk)
}

// row 67: who gives a new link up says so
#[test]
fn half_made_link_is_deleted() {
    let mut answers = 0;
    let (world, talk) = contact(Version::V1, move |from, bytes| {
        answers += usize::from(from == CLIENT && bytes[0] == 1);
        from == CLIENT && bytes[0] == 1 && answers > 1
    });
    assert!(talk.contains(&"S DELETE LINK".into()), "{talk:?}");
    assert_eq!(world.active(SERVER).len(), 1);
    world.check_agreement();

    let mut asks = 0;
    let (world, talk) = contact(Version::V2, move |from, bytes| {
        asks += usize::from(from == SERVER && bytes[0] == 0x21);
        from == SERVER && (bytes[0] == 0x24 || bytes[0] == 0x21 && asks > 1)
    });
    assert!(talk.contains(&"C DELETE LINK".into()), "{talk:?}");
    assert_eq!(world.active(CLIENT).len(), 1);
    world.check_agreement();
}

// row 59: on a further link too
#[test]
fn confirm_link_must_name_its_link() {
    let mut world = World::new(&Options::new(Version::V1, &[1, 2], &[1, 2]));
    world.tamper = Some(Box::new(|_, _, bytes| {
        if bytes[0] == 1 && bytes[29] != 1 {
            bytes[29] = 9;
        }
        true
    }));
    world.start();
    world.run_for(Duration::from_secs(20));
    for side in [SERVER, CLIENT] {
        assert!(world.told(side, &Wish::FirstContactDone));
        assert_eq!(world.active(side).len(), 1);
    }
    world.check_agreement();
}

#[test]
fn offer_waits_for_the_clients_own_flow() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1, 2]));
    assert_eq!(world.group(SERVER).redundancy(), Redundancy::AsymmetricLocal);
    // The answer to the client's CONFIRM RKEY is lost, so that its flow takes 2 s.
    world.tamper = Some(Box::new(|from, _, bytes| from != SERVER || bytes[0] != 6));
    let now = world.now;
    world.group(CLIENT).share_rmb(now, BufferId(1)).unwrap();
    world.pump(CLIENT);
    world.run_for(Duration::from_secs(1));
    let from = world.frames.len();
    world.set_port(SERVER, 2, true);
    world.run();
    assert_eq!(world.talk(from), ["S ADD LINK"]);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.talk(from)[..2], ["S ADD LINK", "C ADD LINK!"]);
    assert_eq!(world.group(SERVER).redundancy(), Redundancy::Symmetric);
    world.check_agreement();
}

#[test]
fn new_link_comes_although_the_old_one_is_lost_at_its_last_step() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1]));
    let carrier = world.active(CLIENT)[0].id;
    world.set_port(CLIENT, 2, true);
    while world.talk(0).last().unwrap() != "C ADD LINK!" {
        assert!(world.step(None));
    }
    let (now, new) =
        (world.now, world.hosts[CLIENT].group.links().find(|l| l.number == 3).unwrap().id);
    world.group(CLIENT).handle_link_failed(now, carrier);
    world.pump(CLIENT);
    world.run();
    assert!(world.group(CLIENT).link(carrier).is_none());
    assert!(world.told(CLIENT, &Wish::LinkUp { link: new }));
    assert_eq!(world.group(CLIENT).redundancy(), Redundancy::Symmetric);
    world.run_for(Duration::from_secs(60));
    world.check_agreement();
}

#[test]
fn new_connections_can_come_right_after_a_loss() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1]));
    let (lost, now) = (world.active(SERVER)[0].id, world.now);
    world.group(SERVER).handle_link_failed(now, lost);
    assert!(world.group(SERVER).join(ConnId(1)).is_ok_and(|link| link != lost));
    world.pump(SERVER);
}

#[test]
fn connections_do_not_move_to_another_link_of_a_port_that_is_down() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1]));
    let conn = ConnId(1);
    world.group(CLIENT).join(conn).unwrap();
    world.set_port(CLIENT, 1, false);
    let told = &world.hosts[CLIENT].told;
    assert!(!told.iter().any(|wish| matches!(wish, Wish::MoveConnection { .. })), "{told:?}");
    assert!(world.told(CLIENT, &Wish::KillConnection { conn }));
}

// row 67: LLC of a link that is being deleted does not count, CDC does
#[test]
fn deleted_link_takes_data_until_its_end() {
    let mut world = symmetric(Version::V1);
    world.share(SERVER, BufferId(1));
    let at = world.send(CLIENT, BufferId(1), 100);
    let client_link = world.streams[at].route.link;
    let qpn = world.group(CLIENT).link(client_link).unwrap().qp.unwrap().qpn;
    let victim = world.active(SERVER).into_iter().find(|l| l.peer.unwrap().qpn == qpn).unwrap();
    let now = world.now;
    assert!(world.group(SERVER).delete_link(now, victim.id, DeleteReason::OPERATOR));
    let test = Body::TestLink(Default::default());
    assert_eq!(world.say(CLIENT, client_link, false, test), Received::Dropped);
    while world.streams[at].received == 0 {
        assert!(world.step(None));
    }
    assert_eq!(world.streams[at].moves, 0, "it came over the old link");
    world.run();
    assert!(world.streams[at].is_done());
}
