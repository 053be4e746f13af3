// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A link group's end, when links fail on the way.
//!
//! Invariant: the end takes at most 2 s a link, and nothing is wished after it.

use std::time::Duration;

use smc_proto::Instant;
use smc_proto::id::BufferId;
use smc_proto::smcr::qp::QueuePair;
use smc_proto::smcr::{LinkGroup, Params, Role, Wish};
use smc_wire::id::{Psn, Qpn};
use smc_wire::llc::{Body, DeleteReason, Message, Version};

use crate::fabric::World;
use crate::host::{CLIENT, Options, SERVER, port};

const WHY: DeleteReason = DeleteReason::PROGRAM;

fn wishes(group: &mut LinkGroup) -> Vec<Wish> {
    std::iter::from_fn(|| group.poll_wish()).collect()
}

/// The links over which DELETE LINK goes.
fn told_over(wishes: &[Wish]) -> Vec<u32> {
    let sends = wishes.iter().filter_map(|wish| match wish {
        Wish::PostSend { link, message, .. } => Some((link.0, message[0] & 0x0F)),
        _ => None,
    });
    sends.map(|(link, kind)| (kind == 4).then_some(link).unwrap()).collect()
}

// row 67
#[test]
fn peer_is_told_over_the_next_link_if_the_first_one_fails() {
    let mut world = World::connected(&Options::new(Version::V1, &[1, 2], &[1, 2]));
    world.cut.insert((port(SERVER, 1).device, port(CLIENT, 1).device));
    let now = world.now;
    world.group(SERVER).terminate(now, true, WHY);
    world.pump(SERVER);
    world.run();
    assert!(world.group(SERVER).is_gone());
    assert!(world.told(CLIENT, &Wish::GroupGone { reason: WHY }));
}

#[test]
fn silent_send_queues_hold_the_end_up_2_s_each() {
    let mut world = World::connected(&Options::new(Version::V2, &[1, 2], &[1, 2]));
    let (start, two) = (world.now, Duration::from_secs(2));
    let group = world.group(SERVER);
    group.terminate(start, false, WHY);
    assert_eq!(told_over(&wishes(group)), [0]);
    assert_eq!(group.poll_timeout(), Some(start.after(two)));
    group.handle_timeout(start.after(two));
    assert_eq!(told_over(&wishes(group)), [1]);
    // A queue pair that fails is waited for no longer.
    let second = group.links().nth(1).unwrap().id;
    group.handle_link_failed(start.after(two), second);
    assert!(group.is_gone());
    assert_eq!(wishes(group).last(), Some(&Wish::GroupGone { reason: WHY }));
    assert_eq!(group.poll_timeout(), None);
}

#[test]
fn nothing_else_begins_while_a_group_ends() {
    let mut world = World::connected(&Options::new(Version::V1, &[1, 2], &[1, 2]));
    let now = world.now;
    let group = world.group(SERVER);
    let second = group.links().nth(1).unwrap().id;
    assert!(group.delete_link(now, second, WHY));
    group.terminate(now, false, WHY);
    wishes(group);
    group.handle_drained(now, second);
    group.handle_port_up(now, port(SERVER, 3));
    assert!(group.share_rmb(now, BufferId(3)).is_err());
    assert_eq!(wishes(group), []);
}

// row 67: the server says it back in an orderly way
#[test]
fn server_repeats_the_clients_delete_all() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1]));
    let (from, now) = (world.frames.len(), world.now);
    world.group(CLIENT).terminate(now, false, DeleteReason::OPERATOR);
    // The client's queue pair must live to hear it.
    let wishes = wishes(world.group(CLIENT));
    let Some(Wish::PostSend { link, message, .. }) = wishes.last() else { panic!("{wishes:?}") };
    world.inject(CLIENT, *link, message);
    world.run();
    let Body::DeleteLink(delete) = Message::parse(&world.frames[from].bytes).unwrap().body else {
        panic!("no DELETE LINK")
    };
    assert!(delete.orderly && delete.reason == DeleteReason::OPERATOR);
}

#[test]
fn group_without_a_connected_link_ends_at_once() {
    let params = Params::new(Role::Client, Version::V2, [0; 4], port(CLIENT, 1));
    let mut group = LinkGroup::new(&params);
    let now = Instant(7);
    let (link, buffer) = (group.first_link(), BufferId(1));
    group.register_sndbuf(now, buffer).unwrap();
    wishes(&mut group);
    group.handle_qp_created(now, link, Some(QueuePair { qpn: Qpn(1), psn: Psn(2) }));
    assert_eq!(wishes(&mut group), [Wish::RegisterMr { link, buffer }]);
    group.terminate(now, false, WHY);
    let ended = wishes(&mut group);
    assert_eq!(
        ended[ended.len() - 2..],
        [Wish::DestroyQp { link }, Wish::GroupGone { reason: WHY }]
    );
    assert!(group.start(now, crate::host::end_of(SERVER)).is_err());
    group.terminate(now, false, WHY);
    group.handle_timeout(now);
    group.handle_link_failed(now, link);
    assert_eq!(wishes(&mut group), []);
}
