// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Full and small buffers, counted as Linux counts them.

use smc_proto::conn::{Counts, How};

use crate::world::{A, B, Kind, OOB, PLAIN, World, stream};

fn full_and_small(counts: Counts) -> [(u32, u32); 3] {
    [
        (counts.send_full, counts.send_too_small),
        (counts.peer_full, counts.peer_too_small),
        (counts.receive_full, counts.receive_too_small),
    ]
}

/// Sends until there is no room.
fn fill(world: &mut World) {
    while world.send(A, &stream(0, 64), PLAIN) > 0 {}
}

// smc_tx.c:204, 207
#[test]
fn a_call_that_is_larger_than_a_ring_finds_it_too_small() {
    let mut world = World::new([Kind::Copied(64), Kind::Mapped], (96, 80));
    for len in [0, 64, 65, 80, 81, usize::MAX] {
        world.conn(A).count_send(len);
    }
    assert_eq!(full_and_small(world.conn(A).take_counts()), [(0, 4), (0, 2), (0, 0)]);
    // A mapped sender has one ring that is both.
    world.conn(B).count_send(96);
    world.conn(B).count_send(97);
    assert_eq!(full_and_small(world.conn(B).take_counts()), [(0, 1), (0, 1), (0, 0)]);
    assert_eq!(world.conn(B).take_counts(), Counts::default());
}

// smc_tx.c:196
#[test]
fn a_call_that_fails_at_once_is_not_counted() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.shutdown(A, How::Write);
    world.conn(A).count_send(1000);
    assert_eq!(world.conn(A).take_counts(), Counts::default());
}

// smc_rx.c:380, 383
#[test]
fn a_receiver_finds_its_ring_full_or_asks_for_less_than_there_is() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    let counted = |world: &mut World, len| {
        world.conn(B).count_receive(len);
        full_and_small(world.conn(B).take_counts())[2]
    };
    assert_eq!(counted(&mut world, 0), (0, 0));
    world.send(A, &stream(0, 63), PLAIN);
    assert_eq!(counted(&mut world, 62), (0, 1));
    assert_eq!(counted(&mut world, 63), (0, 0));
    // An urgent byte that is kept aside is not to be received.
    world.send(A, b"!", OOB);
    assert_eq!(counted(&mut world, 63), (0, 0));
    world.recv_all(B);
    world.send(A, &stream(0, 64), PLAIN);
    assert_eq!(counted(&mut world, 64), (1, 0));
    assert_eq!(counted(&mut world, 63), (1, 1));
}

// smc_tx.c:49
#[test]
fn a_send_ring_was_full_once_room_comes_for_who_waited() {
    for kind in [Kind::Copied(64), Kind::Mapped, Kind::Rdma(64)] {
        let mut world = World::new([kind; 2], (64, 64));
        world.conn(A).await_room();
        fill(&mut world);
        // Nobody waits.
        world.recv_all(B);
        fill(&mut world);
        assert_eq!(world.conn(A).take_counts().send_full, 0, "{kind:?}");
        world.conn(A).await_room();
        world.conn(A).await_room();
        assert_eq!(world.conn(A).take_counts().send_full, 0, "{kind:?}");
        world.recv_all(B);
        fill(&mut world);
        world.recv_all(B);
        assert_eq!(world.conn(A).take_counts().send_full, 1, "{kind:?}");
    }
}

// smc_tx.c:644
#[test]
fn each_attempt_to_send_into_a_full_ring_is_counted() {
    // A completion is an attempt too (smc_cdc.c:62).
    for (kind, completions) in [(Kind::Copied(64), 0), (Kind::Rdma(64), 1)] {
        let mut world = World::new([kind; 2], (32, 32));
        // What is sent in part finds no ring full.
        world.send(A, &stream(0, 40), PLAIN);
        assert_eq!(world.conn(A).take_counts().peer_full, completions, "{kind:?}");
        world.send(A, &stream(40, 4), PLAIN);
        world.conn(A).flush();
        world.run(A);
        world.run(A);
        assert_eq!(world.conn(A).take_counts().peer_full, 2, "{kind:?}");
        assert_eq!(world.recv_all(B), stream(0, 44));
        assert_eq!(world.conn(A).take_counts().peer_full, 0, "{kind:?}");
    }
    let mut world = World::new([Kind::Mapped; 2], (32, 32));
    fill(&mut world);
    world.conn(A).flush();
    world.run(A);
    assert_eq!(world.conn(A).take_counts().peer_full, 0, "a mapped sender's bytes are there");
}
