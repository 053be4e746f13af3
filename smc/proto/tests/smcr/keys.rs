// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! RMBs and their keys: CONFIRM RKEY, DELETE RKEY, and that a key brings data.

use std::time::Duration;

use smc_proto::id::BufferId;
use smc_proto::smcr::{BufferError, RtokenIndex, Wish};
use smc_wire::id::Rkey;
use smc_wire::llc::{Body, ConfirmRkey, DeleteRkey, LinkRtoken, Message, Rtoken, Version};

use crate::fabric::World;
use crate::host::{CLIENT, Options, SERVER};

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];
const SECOND: BufferId = BufferId(1);

fn two_ports(version: Version) -> World {
    World::connected(&Options::new(version, &[1, 2], &[1, 2]))
}

/// The last message, which `from` must have sent.
fn last(world: &World, from: usize) -> Message<'_> {
    let frame = world.frames.last().unwrap();
    assert_eq!(frame.from, from);
    Message::parse(&frame.bytes).unwrap()
}

// row 62
// RFC 7609, 3.5.5
#[test]
fn new_rmb_is_told_for_each_link() {
    for version in VERSIONS {
        for side in [SERVER, CLIENT] {
            let mut world = two_ports(version);
            let from = world.frames.len();
            world.share(side, SECOND);
            let who = if side == SERVER { ["S", "C"] } else { ["C", "S"] };
            let [ask, answer] = who;
            let expected = [format!("{ask} CONFIRM RKEY"), format!("{answer} CONFIRM RKEY!")];
            assert_eq!(world.talk(from), expected);
            let asked = Message::parse(&world.frames[from].bytes).unwrap();
            let Body::ConfirmRkey(asked) = asked.body else { panic!("{asked:?}") };
            assert_eq!(asked.num_others, 1, "the other link's key");
            world.check_agreement();
            let peer = &world.hosts[1 - side].group;
            for link in world.active(1 - side) {
                assert!(peer.rtoken(RtokenIndex(1), link.id).is_some());
            }
        }
    }
}

// row 62
#[test]
fn deleted_rmb_leaves_all_links() {
    for version in VERSIONS {
        let mut world = two_ports(version);
        world.share(CLIENT, SECOND);
        assert_eq!(world.group(SERVER).rtoken_count(), 2);
        let (from, now) = (world.frames.len(), world.now);
        world.group(CLIENT).unshare_rmb(now, SECOND).unwrap();
        world.pump(CLIENT);
        world.run();
        assert_eq!(world.talk(from), ["C DELETE RKEY", "S DELETE RKEY!"]);
        assert!(world.told(CLIENT, &Wish::BufferFree { buffer: SECOND }));
        assert_eq!(world.group(SERVER).rtoken_count(), 1);
        // Its memory regions are kept for the next connection.
        let keys = |world: &World| {
            let links = world.active(CLIENT);
            links
                .iter()
                .map(|l| world.hosts[CLIENT].group.local_rtoken(SECOND, l.id))
                .collect::<Vec<_>>()
        };
        let before = keys(&world);
        world.share(CLIENT, SECOND);
        assert_eq!(keys(&world), before);
        world.check_agreement();
    }
}

// row 62: both sides at once
#[test]
fn rkey_flows_run_both_ways_at_once() {
    let mut world = two_ports(Version::V1);
    let now = world.now;
    for n in 1..20 {
        for side in [SERVER, CLIENT] {
            world.group(side).share_rmb(now, BufferId(n)).unwrap();
            world.pump(side);
        }
    }
    world.run();
    for side in [SERVER, CLIENT] {
        assert_eq!(world.group(side).rtoken_count(), 20);
        assert!(world.group(side).is_quiet());
    }
    world.check_agreement();
}

// row 62: the key of an unknown or no link, or twice that of one, is refused, nothing of the message is taken
#[test]
fn confirm_rkey_for_a_link_that_is_not_there_is_refused() {
    for number in [0, 9, 1] {
        let mut world = two_ports(Version::V1);
        let link = world.active(CLIENT)[0].id; // whose number is 1
        let rtoken = Rtoken { rkey: Rkey(0xABCD), vaddr: 0x1000 };
        let other = LinkRtoken { link: number, rtoken };
        let request = ConfirmRkey::request(rtoken, [other]);
        world.say(CLIENT, link, false, Body::ConfirmRkey(request));
        world.run();
        let answer = last(&world, SERVER);
        let refused = ConfirmRkey { negative: true, retry: true, ..request };
        assert!(answer.response);
        assert_eq!(answer.body, Body::ConfirmRkey(refused));
        assert_eq!(world.group(SERVER).rtoken_count(), 1);
    }
}

// row 62: the mask says which keys were not known
#[test]
fn delete_rkey_tells_the_unknown_keys() {
    for (version, unknown) in [(Version::V1, 0x60), (Version::V2, 2)] {
        let mut world = two_ports(version);
        let link = world.active(CLIENT)[0];
        let known = world.group(CLIENT).local_rtoken(crate::host::FIRST, link.id).unwrap().rkey;
        let keys = [known, Rkey(1), Rkey(2)];
        world.say(CLIENT, link.id, false, Body::DeleteRkey(DeleteRkey::request(&keys)));
        world.run();
        let Body::DeleteRkey(answer) = last(&world, SERVER).body else { panic!() };
        assert_eq!((answer.negative, answer.unknown), (true, unknown));
        assert_eq!(world.group(SERVER).rtoken_count(), 0);
    }
}

// row 62
#[test]
fn refused_or_unanswered_rmb_is_not_shared() {
    for refused in [true, false] {
        let mut world = two_ports(Version::V2);
        world.tamper = Some(Box::new(move |_, _, bytes| {
            let answer = bytes[0] == 0x26 && bytes[3] & 0x80 != 0;
            if answer && refused {
                bytes[3] |= 0x20;
            }
            !answer || refused
        }));
        let now = world.now;
        world.group(CLIENT).share_rmb(now, SECOND).unwrap();
        world.pump(CLIENT);
        world.run_for(Duration::from_secs(2));
        let error = if refused { BufferError::Refused } else { BufferError::Timeout };
        assert!(world.told(CLIENT, &Wish::BufferReady { buffer: SECOND, result: Err(error) }));
        // It has left the group, so that the peer cannot write it.
        let link = world.active(CLIENT)[0].id;
        assert_eq!(world.group(CLIENT).local_rtoken(SECOND, link), None);
    }
}

// row 62: a command waits at most 20 s for other flows
#[test]
fn commands_behind_slow_flows_are_given_up() {
    let mut world = two_ports(Version::V1);
    world.tamper = Some(Box::new(|from, _, bytes| from != SERVER || bytes[0] != 6));
    let now = world.now;
    for n in 1..=20 {
        world.group(CLIENT).share_rmb(now, BufferId(n)).unwrap();
    }
    world.pump(CLIENT);
    let answers = |world: &World| {
        let told = world.hosts[CLIENT].told.iter();
        told.filter(|wish| matches!(wish, Wish::BufferReady { result: Err(_), .. })).count()
    };
    world.run_for(Duration::from_millis(19_999));
    assert_eq!(answers(&world), 9, "one each 2 s");
    world.run_for(Duration::from_millis(1));
    assert!(answers(&world) >= 19, "all but the one that is asked for");
    world.run_for(Duration::from_secs(2));
    assert_eq!(answers(&world), 20);
}

#[test]
fn late_answer_is_not_taken_for_the_next_rmb() {
    let mut world = two_ports(Version::V1);
    let mut held = Vec::new();
    world.tamper = Some(Box::new(move |from, _, bytes| {
        if from == SERVER && bytes[0] == 6 {
            // The answer to the first request comes as the answer to the second.
            let answer = std::mem::replace(&mut held, bytes.clone());
            *bytes = answer;
        }
        !bytes.is_empty()
    }));
    let now = world.now;
    world.group(CLIENT).share_rmb(now, BufferId(1)).unwrap();
    world.pump(CLIENT);
    world.run_for(Duration::from_secs(2));
    let now = world.now;
    world.group(CLIENT).share_rmb(now, BufferId(2)).unwrap();
    world.pump(CLIENT);
    world.run();
    assert!(!world.told(CLIENT, &Wish::BufferReady { buffer: BufferId(2), result: Ok(()) }));
    world.run_for(Duration::from_secs(2));
    let result = Err(BufferError::Timeout);
    assert!(world.told(CLIENT, &Wish::BufferReady { buffer: BufferId(2), result }));
}

// row 62: an answer of version 2 does not say to which request it is
#[test]
fn late_answer_is_no_proof_that_the_next_key_was_deleted() {
    for version in VERSIONS {
        let mut world = two_ports(version);
        let (late, lost) = (BufferId(1), BufferId(2));
        world.share(CLIENT, late);
        world.share(CLIENT, lost);
        // The first request is heard and its answer comes late, the second one is not heard.
        let mut requests = 0;
        world.tamper = Some(Box::new(move |from, _, bytes| {
            let is_delete = bytes[0] & 0xF == 9;
            requests += usize::from(is_delete && from == CLIENT);
            !is_delete || (from == CLIENT && requests == 1)
        }));
        let unshare = |world: &mut World, buffer| {
            let now = world.now;
            world.group(CLIENT).unshare_rmb(now, buffer).unwrap();
            world.pump(CLIENT);
        };
        unshare(&mut world, late);
        world.run_for(Duration::from_secs(2));
        assert!(world.told(CLIENT, &Wish::BufferFree { buffer: late }), "given up");
        unshare(&mut world, lost);
        world.run();
        assert!(!world.told(CLIENT, &Wish::BufferFree { buffer: lost }));
        let link = world.active(SERVER)[0].id;
        let answer = DeleteRkey { num_rkeys: 1, ..DeleteRkey::request(&[]) };
        world.say(SERVER, link, true, Body::DeleteRkey(answer));
        world.run();
        assert!(world.told(CLIENT, &Wish::BufferFree { buffer: lost }));
        // The peer still has the key, so that no memory may be behind it.
        assert_eq!(world.group(SERVER).rtoken_count(), 2);
        for link in world.active(CLIENT) {
            assert_eq!(world.hosts[CLIENT].group.local_rtoken(lost, link.id), None);
        }
        world.check_agreement();
    }
}

#[test]
fn region_that_cannot_be_registered_fails_the_share() {
    let mut world = two_ports(Version::V1);
    world.hosts[SERVER].fail_mr.insert(SECOND);
    let (from, now) = (world.frames.len(), world.now);
    world.group(SERVER).share_rmb(now, SECOND).unwrap();
    world.pump(SERVER);
    world.run();
    let result = Err(BufferError::Register);
    assert!(world.told(SERVER, &Wish::BufferReady { buffer: SECOND, result }));
    assert_eq!(world.talk(from), Vec::<String>::new());
}

#[test]
fn commands_out_of_turn_are_errors() {
    let mut world = two_ports(Version::V1);
    let now = world.now;
    let group = world.group(CLIENT);
    group.share_rmb(now, SECOND).unwrap();
    assert_eq!(group.share_rmb(now, SECOND), Err(BufferError::State));
    assert_eq!(group.unshare_rmb(now, SECOND), Err(BufferError::State));
    assert_eq!(group.unshare_rmb(now, BufferId(99)), Err(BufferError::State));
    assert_eq!(group.drop_buffer(SECOND), Err(BufferError::State));
    world.pump(CLIENT);
    world.run();
    let group = world.group(CLIENT);
    group.unshare_rmb(now, SECOND).unwrap();
    world.pump(CLIENT);
    world.run();
    assert_eq!(world.group(CLIENT).drop_buffer(SECOND), Ok(()));
    world.pump(CLIENT);
}

#[test]
fn send_buffers_are_on_each_link_also_on_later_ones() {
    let mut world = World::connected(&Options::new(Version::V2, &[1], &[1]));
    let (buffer, now) = (BufferId(50), world.now);
    world.group(CLIENT).register_sndbuf(now, buffer).unwrap();
    world.pump(CLIENT);
    world.run();
    assert!(world.told(CLIENT, &Wish::BufferReady { buffer, result: Ok(()) }));
    world.set_port(SERVER, 2, true);
    world.set_port(CLIENT, 2, true);
    world.run();
    assert_eq!(world.active(CLIENT).len(), 2);
    for link in world.active(CLIENT) {
        assert!(world.hosts[CLIENT].group.local_rtoken(buffer, link.id).is_some());
    }
    assert_eq!(world.group(SERVER).rtoken_count(), 1, "the peer does not learn of it");
}

// row 61
// RFC 7609, 4.4
#[test]
fn data_are_written_before_the_cdc_on_the_same_queue_pair() {
    for version in VERSIONS {
        for side in [SERVER, CLIENT] {
            let mut world = two_ports(version);
            world.share(1 - side, SECOND);
            let at = world.send(side, SECOND, 5000);
            let link = world.streams[at].route.link;
            // On the queue pair, a write stands before each CDC.
            let kinds: Vec<_> = world.hosts[side]
                .qp(link)
                .queue
                .iter()
                .map(|(_, item)| match item {
                    crate::host::Item::Write { .. } => 'w',
                    crate::host::Item::Cdc { .. } => 'c',
                    crate::host::Item::Llc(..) => 'l',
                })
                .collect();
            assert_eq!(kinds, ['w', 'c', 'w', 'c', 'w', 'c']);
            world.run();
            // The stream's receiver compared its RMB at each CDC.
            assert!(world.streams[at].is_done());
        }
    }
}
