// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-R: the move to another link.

use smc_proto::conn::close::State;
use smc_proto::conn::{Error, Lie};
use smc_wire::cdc::{ConnectionState, Cursor, ProducerFlags, Smcr};
use smc_wire::id::AlertToken;

use crate::world::{A, B, Kind, OOB, PLAIN, World, stream};

fn world() -> World {
    let mut world = World::new([Kind::Rdma(64); 2], (48, 48));
    world.prompt = false;
    world
}

// row 68
#[test]
fn bytes_that_were_not_completed_are_sent_again() {
    // Nothing, the first write, and so on until all got through before the link broke.
    for delivered in 0..6 {
        let mut world = world();
        world.send(A, &stream(0, 40), PLAIN);
        world.deliver(A, 9);
        world.complete(A, 9);
        assert_eq!(world.recv(B, 40), stream(0, 40));
        world.deliver(B, 9);
        world.complete(B, 9);
        // This wraps both rings: three writes and a message.
        world.send(A, &stream(40, 30), PLAIN);
        world.break_link([delivered, 0]);
        world.settle();
        assert_eq!(world.recv_all(B), stream(40, 30), "{delivered} delivered");
        world.settle();
        assert_eq!((world.conn(A).unsent(), world.conn(A).unfinished()), (0, 0));
        assert_eq!((world.conn(A).error(), world.conn(B).error()), (None, None));
    }
}

// row 68
#[test]
fn the_validation_names_the_last_completed_message() {
    let mut world = world();
    for at in 0..3 {
        world.send(A, &stream(at * 33, 33), PLAIN);
        world.deliver(A, 9);
        world.recv(B, 33);
        world.deliver(B, 9);
        if at < 2 {
            world.complete(A, 9);
            world.complete(B, 9);
        }
    }
    world.conn(A).switch_link();
    world.run(A);
    // 2 was completed, 3 not; the numbers go on behind 3.
    assert_eq!(world.ends[A].seqnos, [1, 2, 3, 2, 4]);
    let [.., validation, again] = world.ends[A].cdcs[..] else { panic!() };
    assert_eq!(validation.flags, ProducerFlags::FAILOVER_VALIDATION);
    assert_eq!((validation.prod, validation.state), (Cursor::START, ConnectionState::EMPTY));
    assert_eq!(again.prod, Cursor { wrap: 2, count: 3 });
}

// row 68
#[test]
fn a_completed_validation_completes_nothing_else() {
    let mut world = world();
    world.send(A, &stream(0, 20), PLAIN);
    world.break_link([0, 0]);
    world.deliver(A, 1);
    world.complete(A, 1);
    assert_eq!(world.conn(A).unfinished(), 20);
    world.break_link([0, 0]);
    // Linux would claim here that message 1 was completed.
    assert_eq!(world.ends[A].seqnos, [1, 0, 2, 0, 3]);
    world.settle();
    assert_eq!(world.recv_all(B), stream(0, 20));
}

// row 68
#[test]
fn a_receiver_that_misses_a_completed_message_aborts() {
    let mut world = world();
    world.send(A, &stream(0, 20), PLAIN);
    world.deliver(A, 9);
    world.conn(B).handle_cdc_smcr(&Smcr::validation(1, AlertToken(7)));
    assert_eq!(world.conn(B).error(), None);
    world.conn(B).handle_cdc_smcr(&Smcr::validation(2, AlertToken(7)));
    let lie = Lie::Validation { claimed: 2, received: 1 };
    assert_eq!(world.conn(B).error(), Some(Error::Protocol(lie)));
    world.settle();
    assert_eq!(world.conn(B).state(), State::Closed);
    assert_eq!(world.conn(A).take_error(), Some(Error::Reset));
}

// row 68
#[test]
fn what_the_peer_has_consumed_is_not_sent_again() {
    let mut world = world();
    world.send(A, &stream(0, 48), PLAIN);
    world.deliver(A, 9);
    world.recv(B, 30);
    // B's update comes before the link breaks, A's completion does not.
    world.deliver(B, 9);
    world.conn(A).switch_link();
    assert_eq!((world.conn(A).unsent(), world.conn(A).unfinished()), (18, 18));
    assert_eq!(world.conn(A).info().tx_prod, Cursor { wrap: 0, count: 30 });
    world.run(A);
    world.settle();
    assert_eq!(world.recv_all(B), stream(30, 18));
}

// row 68
#[test]
fn what_the_peer_consumes_between_rewind_and_repetition_is_no_lie() {
    let mut world = world();
    world.send(A, &stream(0, 48), PLAIN);
    world.deliver(A, 9);
    world.conn(A).handle_slots(false);
    world.conn(A).switch_link();
    world.conn(A).handle_slots(false);
    world.run(A);
    assert_eq!(world.conn(A).unsent(), 48);
    world.recv(B, 47);
    world.deliver(B, 9);
    assert_eq!(world.conn(A).error(), None);
    assert!((1..48).contains(&world.conn(A).unsent()));
    world.conn(A).handle_slots(true);
    world.settle();
    assert_eq!(world.recv_all(B), stream(47, 1));
    assert_eq!(world.send(A, &stream(48, 47), PLAIN), 47);
    world.settle();
    assert_eq!(world.recv_all(B), stream(48, 47));
}

// row 68
#[test]
fn flags_and_credits_that_were_lost_with_the_link_are_said_again() {
    let mut world = world();
    world.send(A, b"ab!", OOB);
    world.shutdown_later(A);
    world.break_link([0, 0]);
    world.settle();
    assert_eq!(world.conn(B).state(), State::AppCloseWait1);
    assert_eq!(world.conn(B).take_urgent(false), Ok(b'!'));
    // The update that passing the mark asked for is lost too.
    world.recv(B, 2);
    world.break_link([0, 0]);
    world.settle();
    assert_eq!(world.conn(A).peer_free(), 48);
}

// rows 43, 68
#[test]
fn an_urgent_byte_that_was_lost_is_urgent_again() {
    let mut world = world();
    world.send(A, b"ab", PLAIN);
    world.deliver(A, 9);
    world.send(A, b"!", OOB);
    // The link breaks; B, which got "ab", says that it was read before A can repeat itself.
    world.recv(B, 2);
    world.drop_posted(A);
    world.conn(A).switch_link();
    world.conn(A).handle_slots(false);
    world.send(B, b"y", PLAIN);
    world.deliver(B, 9);
    assert_eq!(world.conn(A).unsent(), 1);
    world.conn(A).handle_slots(true);
    world.settle();
    assert_eq!(world.conn(B).take_urgent(false), Ok(b'!'));
    world.settle();
    assert_eq!(world.send(A, b"x", PLAIN), 1);
}

// rows 43, 68
#[test]
fn an_urgent_byte_that_came_and_was_passed_is_done() {
    let mut world = world();
    world.send(A, b"ab!", OOB);
    world.deliver(A, 9);
    world.conn(A).switch_link();
    world.conn(A).handle_slots(false);
    assert_eq!(world.conn(A).unsent(), 3);
    // The mark is passed and told before A could repeat itself.
    world.recv(B, 2);
    world.deliver(B, 9);
    assert_eq!(world.conn(A).unsent(), 0);
    assert_eq!(world.send(A, b"x", PLAIN), 1);
    world.conn(A).handle_slots(true);
    world.settle();
    assert_eq!(world.recv_all(B), b"x");
}

// row 68
#[test]
fn bytes_are_not_repeated_to_a_peer_that_closed() {
    let mut world = world();
    world.close(B);
    world.send(A, b"bye", PLAIN);
    world.close(A);
    world.deliver(B, 9);
    world.complete(B, 9);
    world.deliver(A, 9);
    assert!(world.ends[B].reused && !world.ends[A].released, "A waits for its completions");
    // World::deliver() watches that nothing is written into B's ring now.
    world.break_link([0, 0]);
    world.settle();
    assert!(world.ends[A].released && !world.ends[A].reused);
    assert_eq!((world.conn(A).unsent(), world.last(A).state), (3, ConnectionState::CLOSED));
}

// row 68
#[test]
fn a_new_link_is_not_full() {
    let mut world = world();
    world.conn(A).handle_slots(false);
    world.send(A, b"x", PLAIN);
    assert_eq!(world.ends[A].cdcs.len(), 0);
    world.break_link([0, 0]);
    world.settle();
    assert_eq!(world.recv(B, 9), b"x");
}

// row 60
#[test]
fn old_messages_are_dropped() {
    let mut world = world();
    world.send(A, &stream(0, 10), PLAIN);
    world.deliver(A, 9);
    let old = Smcr {
        seqno: 0,
        token: AlertToken(7),
        prod: Cursor { wrap: 9, count: 99 },
        cons: Cursor { wrap: 9, count: 99 },
        flags: ProducerFlags::EMPTY,
        state: ConnectionState::ABORTED,
    };
    world.conn(B).handle_cdc_smcr(&old);
    world.conn(B).handle_cdc_smcr(&Smcr { seqno: 0x8001 + 1, ..old });
    assert_eq!((world.conn(B).error(), world.conn(B).state()), (None, State::Active));
    world.conn(B).handle_cdc_smcr(&Smcr { seqno: 2, ..old });
    assert!(matches!(world.conn(B).error(), Some(Error::Protocol(Lie::Consumer { .. }))));
}

// row 60
#[test]
fn sequence_numbers_roll_over() {
    let mut world = world();
    for round in 0..70_000usize {
        assert_eq!(world.send(A, &stream(round, 1), PLAIN), 1);
        world.deliver(A, 9);
        world.complete(A, 9);
        assert_eq!(world.recv(B, 9), stream(round, 1));
        world.deliver(B, 9);
        world.complete(B, 9);
    }
    assert_eq!(world.ends[A].seqnos.last(), Some(&((70_000 % 65_536) as u16)));
}
