// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes, windows and thresholds.

use smc_proto::conn::{Connection, Ready};
use smc_wire::cdc::{Cursor, ProducerFlags};

use crate::world::{A, B, Kind, MORE, PLAIN, World, stream};

/// All ways in which two ends can be paired.
pub(crate) const PAIRS: [[Kind; 2]; 5] = [
    [Kind::Copied(64), Kind::Copied(48)],
    [Kind::Mapped, Kind::Mapped],
    [Kind::Copied(64), Kind::Mapped],
    [Kind::Mapped, Kind::Copied(100)],
    [Kind::Rdma(64), Kind::Rdma(32)],
];

#[test]
fn a_connection_fits_in_256_bytes() {
    let size = size_of::<Connection>();
    assert!(size <= 256, "{size} bytes");
}

// rows 44, 45
#[test]
fn bytes_arrive_in_order_through_any_pair_of_senders() {
    for kinds in PAIRS {
        for (a, b) in [(A, B), (B, A)] {
            let mut world = World::new(kinds, (96, 80));
            let bytes = stream(0, 5000);
            let (mut sent, mut got) = (0, Vec::new());
            while got.len() < bytes.len() {
                sent += world.send(a, &bytes[sent..bytes.len().min(sent + 37)], PLAIN);
                got.extend(world.recv(b, 23));
            }
            assert!(got == bytes, "{kinds:?}");
            assert!(world.conn(a).error().is_none() && world.conn(b).error().is_none());
        }
    }
}

// row 38
#[test]
fn the_wrap_rolls_over_in_use() {
    for kinds in [[Kind::Copied(3), Kind::Mapped], [Kind::Rdma(3); 2]] {
        let mut world = World::new(kinds, (2, 2));
        world.prompt = false;
        for round in 0..140_000u32 {
            let byte = [round as u8];
            assert_eq!(world.send(A, &byte, PLAIN), 1, "round {round}");
            world.look_or_deliver(A);
            assert_eq!(world.recv(B, 9), byte);
            world.look_or_deliver(B);
        }
        assert_eq!(
            world.conn(A).info().tx_prod,
            Cursor { wrap: (70_000 % 65_536) as u16, count: 0 }
        );
        assert_eq!(world.conn(A).peer_free(), 2);
    }
}

// row 42
#[test]
fn write_blocked_is_set_when_the_bytes_just_fit() {
    for kind in [Kind::Copied(200), Kind::Mapped, Kind::Rdma(200)] {
        let mut world = World::new([kind; 2], (100, 100));
        world.send(A, &stream(0, 99), PLAIN);
        assert_eq!(world.last(A).flags, ProducerFlags::EMPTY, "{kind:?}");
        world.send(A, &stream(99, 1), PLAIN);
        assert_eq!(world.last(A).flags, ProducerFlags::WRITE_BLOCKED, "{kind:?}");
        assert_eq!(world.recv(B, 100).len(), 100);
        world.send(A, &stream(100, 1), PLAIN);
        assert_eq!(world.last(A).flags, ProducerFlags::EMPTY, "{kind:?}");
    }
}

// row 41
#[test]
fn an_update_waits_for_its_threshold_and_a_half_full_ring() {
    let ring = 65_536 - 32;
    let mut world = World::new([Kind::Copied(1 << 17); 2], (ring, ring));
    // Below a tenth of the ring there is none; above it, none while the ring is not half full.
    world.send(A, &stream(0, 20_000), PLAIN);
    world.recv(B, 20_000);
    assert_eq!(world.ends[B].cdcs.len(), 0);
    // 20000 consumed + 12752 unread: half of the ring is exactly used, as the sender knows it.
    world.send(A, &stream(0, 12_751), PLAIN);
    world.recv(B, 1);
    assert_eq!(world.ends[B].cdcs.len(), 0);
    world.send(A, &stream(0, 1), PLAIN);
    world.recv(B, 1);
    assert_eq!(world.ends[B].cdcs.len(), 1);
    assert_eq!(world.last(B).cons, Cursor { wrap: 0, count: 20_002 });
}

// row 41
#[test]
fn a_blocked_writer_is_told_after_the_threshold() {
    let ring = 65_536 - 32;
    let mut world = World::new([Kind::Copied(1 << 17); 2], (ring, ring));
    world.send(A, &stream(0, ring as usize), PLAIN);
    world.recv(B, 6_550);
    assert_eq!(world.ends[B].cdcs.len(), 0);
    world.recv(B, 1);
    assert_eq!(world.ends[B].cdcs.len(), 1);
    assert_eq!(world.conn(A).peer_free(), 6_551);
}

// row 41
#[test]
fn a_writer_is_blocked_no_more_when_the_ring_was_drained() {
    let mut world = World::new([Kind::Mapped; 2], (64, 64));
    world.prompt = false;
    world.send(A, &stream(0, 64), PLAIN);
    world.look(B);
    world.recv(B, 63);
    assert_eq!(world.conn(B).info().rx_flags, ProducerFlags::WRITE_BLOCKED);
    world.recv(B, 1);
    assert_eq!(world.conn(B).info().rx_flags, ProducerFlags::EMPTY);
}

// row 41
#[test]
fn a_requested_update_comes_at_once() {
    let mut world = World::new([Kind::Copied(4096); 2], (4096, 4096));
    world.send(A, &stream(0, 10), PLAIN);
    world.recv(B, 10);
    assert_eq!(world.ends[B].cdcs.len(), 0);
    world.ends[B].area.flags = ProducerFlags::CONSUMER_UPDATE_REQUESTED;
    world.look(B);
    assert_eq!(world.last(B).cons, Cursor { wrap: 0, count: 10 });
    // Nothing new to say: the same area again asks for nothing.
    world.look(B);
    assert_eq!(world.ends[B].cdcs.len(), 1);
}

const BIG: u32 = 2 << 20;
const LIMIT: usize = 64 << 10;

/// A mapped sender that has filled its limit, far below what the reader's end tells unasked.
fn limited() -> World {
    let mut world = World::new([Kind::Mapped; 2], (BIG, BIG));
    world.conn(A).limit_sending(LIMIT as u32, true);
    assert_eq!(world.send(A, &stream(0, LIMIT + 1), PLAIN), LIMIT);
    world.ends[A].woken = Ready::NOTHING;
    world
}

fn goes_on(world: &mut World) {
    assert!(world.ends[A].woken.contains(Ready::WRITABLE));
    assert_eq!(world.send(A, &stream(LIMIT, LIMIT), PLAIN), LIMIT);
}

#[test]
fn a_limited_writer_goes_on_once_all_is_read() {
    let mut world = limited();
    for _ in 0..5 {
        assert_eq!(world.recv(B, BIG as usize).len(), LIMIT);
        goes_on(&mut world);
        world.ends[A].woken = Ready::NOTHING;
    }
}

#[test]
fn a_limited_writer_goes_on_though_a_cdc_came_before_the_reading() {
    let mut world = limited();
    // An area that has not changed is not looked at again.
    world.prompt = false;
    world.send(B, b"back", PLAIN);
    assert_eq!(world.recv(B, BIG as usize).len(), LIMIT);
    world.look(A);
    goes_on(&mut world);
}

#[test]
fn a_limited_writer_goes_on_though_all_was_read_before_it_said_so() {
    let mut world = World::new([Kind::Mapped; 2], (BIG, BIG));
    world.send(A, &stream(0, LIMIT), PLAIN);
    assert_eq!(world.recv(B, BIG as usize).len(), LIMIT);
    assert_eq!(world.ends[B].cdcs.len(), 0);
    world.conn(A).limit_sending(LIMIT as u32, true);
    world.run(A);
    world.settle();
    goes_on(&mut world);
}

#[test]
fn a_writer_that_is_still_limited_asks_again() {
    let mut world = limited();
    world.conn(A).limit_sending(LIMIT as u32 / 4, true);
    world.run(A);
    world.prompt = false;
    let said = world.ends[A].cdcs.len();
    world.recv(B, 100);
    world.look(A);
    assert_eq!(world.conn(A).peer_free(), BIG - LIMIT as u32 + 100);
    assert_eq!(world.ends[A].woken, Ready::NOTHING);
    assert_eq!(world.ends[A].cdcs.len(), said + 1);
    world.look(B);
    world.recv(B, BIG as usize);
    world.look(A);
    assert!(world.ends[A].woken.contains(Ready::WRITABLE));
    assert_eq!(world.conn(A).peer_free(), BIG);
}

#[test]
fn a_lower_limit_sends_what_a_cork_held_back() {
    let mut world = World::new([Kind::Mapped; 2], (BIG, BIG));
    world.send(A, &stream(0, LIMIT), MORE);
    assert_eq!(world.ends[A].cdcs.len(), 0);
    world.conn(A).limit_sending(LIMIT as u32, true);
    world.run(A);
    world.settle();
    assert_eq!(world.recv(B, BIG as usize).len(), LIMIT);
    goes_on(&mut world);
}

// row 41
#[test]
fn each_cdc_carries_the_consumer_cursor() {
    let mut world = World::new([Kind::Mapped; 2], (4096, 4096));
    world.send(A, &stream(0, 10), PLAIN);
    world.recv(B, 4);
    world.send(B, &stream(0, 1), PLAIN);
    assert_eq!(world.last(B).cons, Cursor { wrap: 0, count: 4 });
    assert_eq!(world.conn(A).peer_free(), 4096 - 6);
}

// row 39
#[test]
fn flags_are_in_the_consumer_half() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.send(A, &stream(0, 64), PLAIN);
    let (prod, cons) = world.last(A).to_halves();
    assert_eq!(prod.to_ne_bytes()[6..], [0, 0]);
    assert_eq!(cons.to_ne_bytes()[6..], [0x80, 0]);
}

// row 44
#[test]
fn a_mapped_senders_room_returns_with_the_consumer_cursor() {
    let mut world = World::new([Kind::Mapped; 2], (100, 100));
    world.send(A, &stream(0, 60), PLAIN);
    assert_eq!(world.conn(A).unfinished(), 60);
    assert_eq!(world.recv(B, 60).len(), 60);
    assert_eq!(world.conn(A).unfinished(), 0);
    let room = world.conn(A).send_room().unwrap();
    assert_eq!(room.ranges(), [60..100, 0..60]);

    let mut world = World::new([Kind::Copied(100); 2], (100, 100));
    world.send(A, &stream(0, 60), PLAIN);
    assert_eq!(world.conn(A).unfinished(), 0, "a copied sender's returns with the CDC");
}

#[test]
fn an_rdma_senders_room_returns_with_the_completion() {
    let mut world = World::new([Kind::Rdma(100); 2], (100, 100));
    world.prompt = false;
    world.send(A, &stream(0, 60), PLAIN);
    world.deliver(A, 9);
    assert_eq!(world.conn(A).unfinished(), 60);
    world.complete(A, 1);
    assert_eq!(world.conn(A).unfinished(), 0);
}

#[test]
fn writers_are_woken_when_room_returns() {
    for kind in [Kind::Copied(64), Kind::Mapped, Kind::Rdma(64)] {
        let mut world = World::new([kind; 2], (64, 64));
        let mut sent = 0;
        while world.send(A, &stream(sent, 64), PLAIN) > 0 {
            sent += 64;
        }
        world.ends[A].woken = Ready::NOTHING;
        assert!(!world.conn(A).readiness().contains(Ready::WRITABLE));
        assert!(world.ends[B].woken.contains(Ready::READABLE));
        world.recv(B, 64);
        assert!(world.ends[A].woken.contains(Ready::WRITABLE), "{kind:?}");
        assert!(world.conn(A).readiness().contains(Ready::WRITABLE));
    }
}

// row 61
#[test]
fn writes_come_before_the_cdc_that_publishes_them() {
    use smc_proto::conn::Wish;
    for kind in [Kind::Copied(64), Kind::Rdma(64)] {
        let mut world = World::new([kind; 2], (48, 48));
        // Both rings wrap within the bytes that wait: three pieces, then one CDC.
        world.send(A, &stream(0, 40), PLAIN);
        world.recv(B, 40);
        world.conn(A).commit(30, MORE);
        world.conn(A).flush();
        let mut lens = Vec::new();
        while let Some(wish) = world.conn(A).poll_wish() {
            match wish {
                Wish::Write(write) => lens.push(write.len),
                Wish::PublishSmcd(area) => lens.push(1000 + area.prod.count),
                Wish::PublishSmcr(message, _) => lens.push(1000 + message.prod.count),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(lens, [8, 16, 6, 1022], "{kind:?}");
    }
}

#[test]
fn a_corked_sender_waits_until_it_is_full_or_uncorked() {
    let mut world = World::new([Kind::Copied(64); 2], (96, 96));
    world.send(A, &stream(0, 10), MORE);
    assert_eq!(world.conn(A).unsent(), 10);
    world.send(A, &stream(10, 10), PLAIN);
    assert_eq!(world.conn(A).unsent(), 0);

    world.conn(A).set_cork(true);
    world.send(A, &stream(20, 40), PLAIN);
    assert_eq!(world.conn(A).unsent(), 40);
    world.send(A, &stream(60, 24), PLAIN);
    assert_eq!(world.conn(A).unsent(), 0, "the send ring is full");
    world.send(A, &stream(84, 1), PLAIN);
    world.conn(A).set_cork(false);
    world.settle();
    assert_eq!(world.recv_all(B), stream(0, 85));
}

#[test]
fn few_bytes_wait_for_a_message_under_way() {
    let mut world = World::new([Kind::Rdma(64); 2], (96, 96));
    world.prompt = false;
    world.send(A, &stream(0, 10), PLAIN);
    world.send(A, &stream(10, 32), PLAIN);
    assert_eq!((world.conn(A).unsent(), world.ends[A].cdcs.len()), (32, 1));
    world.send(A, &stream(42, 1), PLAIN);
    assert_eq!((world.conn(A).unsent(), world.ends[A].cdcs.len()), (0, 2), "half of the ring");
    world.deliver(A, 9);
    world.send(A, &stream(43, 5), PLAIN);
    world.complete(A, 1);
    assert_eq!(world.conn(A).unsent(), 5);
    world.complete(A, 1);
    assert_eq!(world.conn(A).unsent(), 0);
    world.settle();
    assert_eq!(world.recv_all(B), stream(0, 48));
}

#[test]
fn a_full_link_holds_back_what_goes_there_and_nothing_else() {
    let mut world = World::new([Kind::Rdma(64); 2], (96, 96));
    world.conn(A).handle_slots(false);
    world.send(A, &stream(0, 10), PLAIN);
    assert_eq!(world.ends[A].cdcs.len(), 0);
    world.send(B, &stream(0, 10), PLAIN);
    assert!(world.ends[A].woken.contains(Ready::READABLE));
    world.conn(A).handle_slots(true);
    world.settle();
    assert_eq!(world.recv(B, 99), stream(0, 10));
}

#[test]
fn a_peek_takes_nothing() {
    let mut world = World::new([Kind::Mapped; 2], (64, 64));
    world.send(A, &stream(0, 50), PLAIN);
    world.recv(B, 50);
    world.send(A, &stream(50, 30), PLAIN);
    assert_eq!(world.peek(B, 0), stream(50, 30));
    assert_eq!(world.peek(B, 20), stream(70, 10));
    assert_eq!(world.peek(B, 31), []);
    assert_eq!(world.conn(B).unread(), 30);
    assert_eq!(world.recv(B, 99), stream(50, 30));
}

#[test]
fn more_than_was_handed_out_is_never_taken() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.conn(A).commit(u32::MAX, PLAIN);
    world.settle();
    assert_eq!(world.conn(B).unread(), 64);
    world.conn(B).consume(u32::MAX);
    assert_eq!(world.conn(B).unread(), 0);
}
