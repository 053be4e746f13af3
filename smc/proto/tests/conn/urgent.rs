// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The urgent byte, aside and in the stream.

use smc_proto::conn::{NoUrgent, Ready, Wish};
use smc_wire::cdc::ProducerFlags;

use crate::world::{A, B, Kind, OOB, PLAIN, World};

const PENDING: ProducerFlags = ProducerFlags::URGENT_PENDING;
const PRESENT: ProducerFlags = ProducerFlags::URGENT_PRESENT;

fn worlds() -> impl Iterator<Item = World> {
    [Kind::Copied(64), Kind::Mapped, Kind::Rdma(64)]
        .into_iter()
        .map(|kind| World::new([kind; 2], (64, 64)))
}

// row 43
#[test]
fn an_urgent_byte_is_kept_aside() {
    for mut world in worlds() {
        assert_eq!(world.conn(B).take_urgent(false), Err(NoUrgent::Absent));
        world.send(A, b"before!", OOB);
        assert_eq!(world.last(A).flags, PENDING | PRESENT);
        assert!(world.ends[B].woken.contains(Ready::URGENT), "SIGURG");
        assert!(world.conn(B).readiness().contains(Ready::URGENT), "EPOLLPRI");
        assert_eq!(world.conn(B).unread(), 6);
        assert_eq!(world.conn(B).take_urgent(true), Ok(b'!'));
        assert_eq!(world.conn(B).take_urgent(false), Ok(b'!'));
        assert_eq!(world.conn(B).take_urgent(false), Err(NoUrgent::Absent));
        assert!(!world.conn(B).is_at_mark());
        assert_eq!(world.recv(B, 4), b"befo");
        assert_eq!(world.recv(B, 9), b"re");
        assert!(world.conn(B).is_at_mark(), "SIOCATMARK");
        // The peer was told, so it goes on.
        world.send(A, b"after", PLAIN);
        assert!(world.conn(B).is_at_mark());
        assert_eq!(world.recv(B, 9), b"after");
        assert!(!world.conn(B).is_at_mark());
    }
}

// row 43
#[test]
fn an_urgent_byte_inline_ends_a_read_before_and_behind_it() {
    for mut world in worlds() {
        world.conn(B).set_oob_inline(true);
        world.send(A, b"before!", OOB);
        assert!(world.ends[B].woken.contains(Ready::URGENT));
        assert!(world.conn(B).readiness().contains(Ready::URGENT));
        assert_eq!(world.conn(B).unread(), 7);
        assert_eq!(world.conn(B).take_urgent(false), Err(NoUrgent::Absent));
        assert_eq!(world.recv(B, 99), b"before");
        assert!(world.conn(B).is_at_mark());
        assert_eq!(world.send(A, b"x", PLAIN), 0, "the mark is not passed yet");
        assert_eq!(world.recv(B, 99), b"!");
        assert!(!world.conn(B).is_at_mark() && !world.conn(B).readiness().contains(Ready::URGENT));
        assert_eq!(world.send(A, b"x", PLAIN), 1);
        assert_eq!(world.recv(B, 99), b"x");
    }
}

// row 43
#[test]
fn nothing_follows_an_urgent_byte_before_it_is_consumed() {
    for mut world in worlds() {
        world.send(A, b"ab!", OOB);
        assert!(world.conn(A).send_room().unwrap().is_empty());
        assert!(!world.conn(A).readiness().contains(Ready::WRITABLE));
        world.recv(B, 1);
        assert_eq!(world.send(A, b"x", PLAIN), 0);
        world.ends[A].woken = Ready::NOTHING;
        // The byte before the mark: the mark is passed with it, and told at once.
        world.recv(B, 1);
        assert!(world.ends[A].woken.contains(Ready::WRITABLE));
        assert_eq!(world.send(A, b"x", PLAIN), 1);
        assert_eq!(world.last(A).flags, ProducerFlags::EMPTY);
    }
}

// row 43
#[test]
fn an_urgent_byte_alone_holds_nobody_up() {
    for mut world in worlds() {
        for byte in *b"123" {
            assert_eq!(world.send(A, &[byte], OOB), 1);
            assert_eq!(world.conn(B).unread(), 0);
            assert!(world.conn(B).is_at_mark());
        }
        // As in TCP, the last one counts.
        assert_eq!(world.conn(B).take_urgent(false), Ok(b'3'));
    }
}

// row 43
#[test]
fn urgent_data_is_announced_while_it_waits_for_space() {
    for kind in [Kind::Copied(64), Kind::Rdma(64)] {
        let mut world = World::new([kind; 2], (32, 32));
        world.send(A, &[b'.'; 39], PLAIN);
        assert_eq!(world.send(A, b"!", OOB), 1);
        assert_eq!(world.conn(A).unsent(), 8);
        // Any CDC carries the news.
        world.send(B, b"x", PLAIN);
        world.recv(A, 1);
        world.conn(A).flush();
        world.recv(B, 17);
        assert_eq!(world.last(A).flags, PENDING | PRESENT);
        assert_eq!(world.recv_all(B), [b'.'; 22]);
        assert_eq!(world.conn(B).take_urgent(false), Ok(b'!'));
    }
}

// row 43
#[test]
fn an_announced_byte_is_not_there_yet() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.ends[B].area.flags = PENDING;
    world.look(B);
    assert_eq!(world.conn(B).take_urgent(false), Err(NoUrgent::NotYet));
}

// row 43
#[test]
fn an_urgent_byte_survives_cdcs_that_were_not_looked_at() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.send(B, b"data", PLAIN);
    world.prompt = false;
    world.send(A, b"ab!", OOB);
    // A credit overwrites the area before B has looked; Linux would drop the flag with it.
    world.ends[B].area.flags = ProducerFlags::CONSUMER_UPDATE_REQUESTED;
    let requested = world.ends[B].area;
    world.ends[A].area.flags = ProducerFlags::CONSUMER_UPDATE_REQUESTED;
    world.recv(A, 4);
    world.look(A);
    assert_ne!(world.ends[B].area, requested);
    assert_eq!(world.last(A).flags, PRESENT);
    world.look(B);
    assert_eq!(world.conn(B).take_urgent(false), Ok(b'!'));
    assert_eq!(world.recv(B, 9), b"ab");
}

// row 43
#[test]
fn the_byte_is_fetched_from_its_place_though_others_came_behind_it() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.prompt = false;
    world.ends[B].ring[..6].copy_from_slice(b"ab!cd.");
    for (count, flags) in [(3, PRESENT), (5, ProducerFlags::EMPTY)] {
        world.ends[B].area.prod.count = count;
        world.ends[B].area.flags = flags;
        let (prod, cons) = world.ends[B].area.to_halves();
        // Two words are handed in before a wish is asked for.
        world.conn(B).handle_cdc_smcd(prod, cons);
    }
    assert_eq!(world.conn(B).poll_wish(), Some(Wish::FetchUrgent { at: 2 }));
    world.conn(B).handle_urgent_byte(b'!');
    assert_eq!(world.conn(B).take_urgent(false), Ok(b'!'));
    assert_eq!(world.recv_all(B), b"abcd");
}

// row 43
#[test]
fn a_flag_that_is_seen_after_its_byte_still_counts() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.prompt = false;
    world.send(A, b"ab!", OOB);
    let area = world.ends[B].area;
    world.ends[B].area.flags = ProducerFlags::EMPTY;
    world.look(B);
    assert_eq!(world.conn(B).unread(), 3);
    world.ends[B].area = area;
    world.look(B);
    world.look(B);
    assert_eq!((world.conn(B).unread(), world.conn(B).take_urgent(false)), (2, Ok(b'!')));
}

// row 43
#[test]
fn a_flag_that_is_seen_after_its_byte_was_read_is_too_late() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.prompt = false;
    world.send(A, b"ab!", OOB);
    let area = world.ends[B].area;
    world.ends[B].area.flags = ProducerFlags::EMPTY;
    world.look(B);
    assert_eq!(world.recv(B, 9), b"ab!");
    world.ends[B].area = area;
    world.look(B);
    assert_eq!(world.conn(B).take_urgent(false), Err(NoUrgent::Absent));
}

// rows 38, 43
#[test]
fn a_mark_at_the_same_cursor_65536_wraps_later_is_a_new_one() {
    let mut world = World::new([Kind::Copied(1); 2], (1, 1));
    world.prompt = false;
    for round in 0..=65_536u32 {
        let (byte, flags) = if round % 65_536 == 0 { (b'!', OOB) } else { (b'.', PLAIN) };
        assert_eq!(world.send(A, &[byte], flags), 1);
        world.look(B);
        if flags == OOB {
            assert_eq!(world.conn(B).take_urgent(false), Ok(b'!'), "round {round}");
        }
        world.recv(B, 1);
        world.look(A);
    }
}

// row 43
#[test]
fn a_second_mark_leaves_the_first_byte_in_the_stream() {
    // Linux never sends two; another peer may.
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.send(A, b"a!b", PLAIN);
    world.ends[B].ring[3] = b'?';
    let mut area = world.ends[B].area;
    area.prod.count = 4;
    area.flags = PRESENT;
    world.ends[B].area = area;
    world.look(B);
    world.ends[B].ring[4..6].copy_from_slice(b"c#");
    world.ends[B].area.prod.count = 6;
    world.look(B);
    assert_eq!(world.recv(B, 99), b"a!b?c");
    assert_eq!(world.conn(B).take_urgent(false), Ok(b'#'));
}

// row 43
#[test]
fn the_mark_and_the_kept_byte_wrap_with_the_ring() {
    for mut world in worlds() {
        world.send(A, &[b'.'; 60], PLAIN);
        assert_eq!(world.recv(B, 60).len(), 60);
        world.send(A, b"abc!", OOB);
        assert_eq!(world.conn(B).take_urgent(false), Ok(b'!'), "the last byte of the ring");
        assert_eq!(world.recv(B, 9), b"abc");
        world.send(A, b"?", OOB);
        assert_eq!(world.conn(B).take_urgent(false), Ok(b'?'), "the first byte of the ring");
    }
}

#[test]
fn reading_past_the_mark_forgets_the_byte() {
    let mut world = World::new([Kind::Copied(64); 2], (64, 64));
    world.send(A, b"a!", OOB);
    assert_eq!(world.recv(B, 9), b"a");
    world.send(A, b"b", PLAIN);
    assert_eq!(world.conn(B).take_urgent(true), Ok(b'!'));
    assert_eq!(world.recv(B, 9), b"b");
    assert_eq!(world.conn(B).take_urgent(true), Err(NoUrgent::Absent));
}
