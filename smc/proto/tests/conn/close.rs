// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shutdown, close, abort and group termination between two ends.

use std::time::Duration;

use smc_proto::Instant;
use smc_proto::conn::close::State::{
    Active, AppCloseWait1, AppCloseWait2, AppFinCloseWait, Closed, PeerCloseWait1, PeerCloseWait2,
    ProcessAbort,
};
use smc_proto::conn::{Error, Gone, How, LINGER, NotConnected, Ready, SendError};
use smc_wire::cdc::ConnectionState;

use crate::world::{A, B, Kind, PLAIN, World, stream};

const DONE: ConnectionState = ConnectionState::DONE_WRITING;
const CLOSED: ConnectionState = ConnectionState::CLOSED;
const ABORTED: ConnectionState = ConnectionState::ABORTED;

fn kinds() -> [Kind; 3] {
    [Kind::Copied(64), Kind::Mapped, Kind::Rdma(64)]
}

fn worlds() -> impl Iterator<Item = World> {
    kinds().into_iter().map(|kind| World::new([kind; 2], (64, 64)))
}

#[test]
fn both_sides_close() {
    for mut world in worlds() {
        world.send(A, b"bye", PLAIN);
        world.close(A);
        assert_eq!(world.conn(A).state(), PeerCloseWait1);
        assert_eq!(world.last(A).state, CLOSED);
        assert_eq!(world.ends[A].tcp, [How::Both], "closed before the peer can");
        assert_eq!(world.conn(B).state(), AppCloseWait1);
        let ready = world.conn(B).readiness();
        assert!(ready.contains(Ready::READABLE | Ready::READ_CLOSED));
        assert_eq!(world.conn(B).send_room(), Err(SendError::Reset));
        assert_eq!(world.recv_all(B), b"bye");
        assert!(world.conn(B).is_read_shut());
        world.close(B);
        assert_eq!(world.last(B).state, CLOSED);
        assert!(world.ends[A].released && world.ends[B].released);
        assert_eq!((world.conn(A).state(), world.conn(B).state()), (Closed, Closed));
        assert_eq!((world.conn(A).error(), world.conn(B).error()), (None, None));
        assert_eq!(world.conn(A).shutdown(Instant(0), How::Write, LINGER), Err(NotConnected));
    }
}

// row 54
#[test]
fn a_close_with_unread_bytes_aborts() {
    for mut world in worlds() {
        world.send(A, b"never read", PLAIN);
        world.recv(B, 5);
        world.close(B);
        assert_eq!(world.last(B).state, ABORTED);
        assert_eq!(world.conn(A).state(), ProcessAbort);
        assert!(world.conn(A).readiness().contains(Ready::ERROR));
        assert_eq!(world.conn(A).take_error(), Some(Error::Reset));
        assert_eq!(world.conn(A).take_error(), None);
        assert_eq!(world.conn(A).send_room(), Err(SendError::Shutdown));
        world.close(A);
        assert!(world.ends[A].released && world.ends[B].released);
    }
}

// row 54
#[test]
fn an_urgent_byte_aside_is_no_unread_byte() {
    for mut world in worlds() {
        world.send(A, b"!", crate::world::OOB);
        world.close(B);
        assert_eq!(world.last(B).state, CLOSED);
    }
}

#[test]
fn bytes_of_a_peer_that_aborted_can_still_be_read() {
    for mut world in worlds() {
        world.send(A, b"last words", PLAIN);
        world.send(B, b"unread", PLAIN);
        world.close(A);
        assert_eq!(world.conn(B).state(), ProcessAbort);
        assert_eq!(world.recv_all(B), b"last words");
    }
}

#[test]
fn a_peer_that_aborted_gets_no_more_bytes() {
    let mut world = World::new([Kind::Rdma(64); 2], (64, 64));
    world.conn(A).handle_slots(false);
    world.send(A, b"x", PLAIN);
    world.conn(B).abort();
    world.settle();
    world.conn(A).handle_slots(true);
    world.settle();
    assert_eq!((world.conn(A).unsent(), world.ends[A].cdcs.len()), (1, 0));
}

// row 55
#[test]
fn a_close_waits_for_its_bytes_but_not_for_ever() {
    for kind in [Kind::Copied(64), Kind::Rdma(64)] {
        let mut world = World::new([kind; 2], (32, 32));
        world.send(A, &stream(0, 40), PLAIN);
        world.close(A);
        assert_eq!((world.conn(A).state(), world.conn(A).unsent()), (Active, 8));
        assert_eq!(world.conn(A).poll_timeout(), Some(Instant(2_000_000_000)));
        assert_eq!(world.conn(A).send_room(), Err(SendError::Shutdown));
        world.conn(A).handle_timeout(Instant(1_999_999_999));
        assert_eq!(world.conn(A).state(), Active);
        world.conn(A).handle_timeout(Instant(2_000_000_000));
        world.settle();
        assert_eq!(world.conn(A).state(), PeerCloseWait1);
        assert_eq!(world.conn(A).poll_timeout(), None);
        // As in Linux, the rest still goes if the peer reads.
        assert_eq!(world.recv_all(B), stream(0, 40));
    }
}

// row 55
#[test]
fn a_close_goes_on_when_the_peer_reads() {
    for kind in [Kind::Copied(64), Kind::Rdma(64)] {
        let mut world = World::new([kind; 2], (32, 32));
        world.send(A, &stream(0, 40), PLAIN);
        world.close(A);
        assert_eq!(world.last(A).state, ConnectionState::EMPTY);
        assert_eq!(world.recv_all(B), stream(0, 40));
        assert_eq!(world.conn(A).state(), PeerCloseWait1);
        assert_eq!(world.last(A).state, CLOSED);
        assert_eq!(world.conn(A).poll_timeout(), None);
    }
}

// row 55
#[test]
fn an_exiting_process_does_not_wait() {
    let mut world = World::new([Kind::Copied(64); 2], (32, 32));
    world.send(A, &stream(0, 40), PLAIN);
    world.conn(A).close(Instant(5), Duration::ZERO);
    world.settle();
    assert_eq!((world.conn(A).state(), world.conn(A).poll_timeout()), (PeerCloseWait1, None));
}

// row 55
#[test]
fn a_process_that_exits_while_a_shutdown_waits_closes_at_once() {
    let mut world = World::new([Kind::Copied(64); 2], (32, 32));
    world.send(A, &stream(0, 40), PLAIN);
    world.shutdown(A, How::Write);
    assert_eq!(world.conn(A).state(), Active);
    world.conn(A).close(Instant(5), Duration::ZERO);
    world.settle();
    assert_eq!(world.last(A).state, CLOSED);
}

// row 55
#[test]
fn nobody_waits_for_a_peer_that_closed() {
    for kind in [Kind::Copied(128), Kind::Rdma(128)] {
        let mut world = World::new([kind; 2], (32, 32));
        world.prompt = false;
        assert_eq!(world.send(A, &stream(0, 128), PLAIN), 128);
        world.look_or_deliver(A);
        assert_eq!(world.recv(B, 32).len(), 32);
        world.close(B);
        world.look_or_deliver(B);
        assert_eq!((world.conn(A).state(), world.conn(A).unsent()), (AppCloseWait1, 64));
        world.close(A);
        assert_eq!(world.conn(A).state(), Closed);
    }
}

// row 54
#[test]
fn crossing_aborts_are_both_said() {
    let mut world = World::new([Kind::Copied(64); 2], (32, 32));
    world.prompt = false;
    world.send(B, b"unread", PLAIN);
    world.send(A, &stream(0, 40), PLAIN);
    world.look(A);
    world.look(B);
    world.close(A);
    assert_eq!(world.conn(A).state(), Active);
    // B reads, so that A's bytes fit, and aborts, all in one area.
    world.recv(B, 31);
    world.close(B);
    world.look(A);
    assert_eq!((world.conn(A).state(), world.conn(A).error()), (Closed, Some(Error::Reset)));
    assert_eq!(world.last(A).state, ABORTED);
    world.look(B);
    assert!(world.ends[A].released && world.ends[B].released);
}

// row 57
#[test]
fn a_last_word_that_waits_for_its_link_outlives_the_group() {
    let mut world = World::new([Kind::Rdma(64); 2], (64, 64));
    world.close(A);
    world.conn(B).handle_slots(false);
    world.close(B);
    assert_eq!(world.conn(B).state(), Closed);
    world.conn(B).handle_gone(Gone::Group);
    assert!(!world.ends[B].released);
    world.conn(B).handle_slots(true);
    world.settle();
    assert!(world.ends[A].released && world.ends[B].released);
}

// row 55
#[test]
fn corked_bytes_go_out_before_a_close() {
    for mut world in worlds() {
        world.conn(A).set_cork(true);
        world.send(A, b"corked", PLAIN);
        world.close(A);
        assert_eq!(world.recv_all(B), b"corked");
        assert_eq!(world.conn(B).state(), AppCloseWait1);
    }
}

// row 56
#[test]
fn half_close_both_ways() {
    for mut world in worlds() {
        world.send(A, b"question", PLAIN);
        world.shutdown(A, How::Write);
        assert_eq!(world.last(A).state, DONE);
        assert_eq!(world.ends[A].tcp, [How::Write]);
        assert_eq!((world.conn(A).state(), world.conn(B).state()), (PeerCloseWait1, AppCloseWait1));
        assert_eq!(world.conn(A).send_room(), Err(SendError::Shutdown));
        assert_eq!(world.recv_all(B), b"question");
        assert!(world.conn(B).is_read_shut());
        for part in [&b"a long"[..], b" answer"] {
            assert_eq!(world.send(B, part, PLAIN), part.len());
        }
        assert_eq!(world.recv_all(A), b"a long answer");
        assert!(!world.conn(A).is_read_shut());
        world.shutdown(B, How::Write);
        assert_eq!((world.conn(A).state(), world.conn(B).state()), (PeerCloseWait2, AppCloseWait2));
        assert!(world.conn(A).readiness().contains(Ready::HANG_UP));
        world.close(A);
        assert_eq!(world.last(A).state, DONE | CLOSED);
        assert_eq!((world.conn(A).state(), world.conn(B).state()), (PeerCloseWait2, AppCloseWait2));
        world.close(B);
        assert!(world.ends[A].released && world.ends[B].released);
    }
}

#[test]
fn shut_rd_is_local() {
    for mut world in worlds() {
        world.shutdown(A, How::Read);
        assert_eq!((world.conn(A).state(), world.conn(B).state()), (Active, Active));
        assert_eq!(world.ends[A].tcp, [How::Read]);
        assert!(world.conn(A).is_read_shut());
        assert_eq!(world.send(B, b"x", PLAIN), 1);
        assert_eq!(world.send(A, b"y", PLAIN), 1);
    }
}

#[test]
fn a_closed_application_waits_for_the_peer_in_app_fin_close_wait() {
    for mut world in worlds() {
        world.shutdown(A, How::Both);
        world.close(B);
        assert_eq!((world.conn(A).state(), world.conn(B).state()), (AppFinCloseWait, Closed));
        assert!(!world.ends[A].released && world.ends[B].released);
        world.close(A);
        assert!(world.ends[A].released);
    }
}

// row 54
#[test]
fn an_abort_after_two_half_closes_leaves_nobody_waiting() {
    for mut world in worlds() {
        world.shutdown(A, How::Write);
        world.send(B, b"unread", PLAIN);
        world.shutdown(B, How::Write);
        assert_eq!((world.conn(A).state(), world.conn(B).state()), (PeerCloseWait2, AppCloseWait2));
        world.close(A);
        assert_eq!(world.last(A).state, DONE | ABORTED);
        assert_eq!(world.last(B).state, DONE | ABORTED);
        assert_eq!((world.conn(A).state(), world.conn(B).state()), (Closed, Closed));
        assert!(world.ends[A].released && !world.ends[B].released);
        assert_eq!(world.conn(B).error(), Some(Error::Reset));
    }
}

// row 57
#[test]
fn a_terminated_group_aborts_its_connections() {
    for mut world in worlds() {
        world.send(B, b"unread", PLAIN);
        world.conn(A).handle_gone(Gone::Group);
        world.settle();
        assert_eq!(world.conn(A).take_error(), Some(Error::Aborted), "ECONNABORTED");
        assert_eq!(world.conn(A).state(), Closed);
        assert!(world.ends[A].tcp_aborted && world.ends[A].released);
        assert!(world.conn(A).readable(0).is_empty(), "the rings are gone");
        assert!(world.ends[A].woken.contains(Ready::ERROR | Ready::HANG_UP));
        assert_eq!(world.last(A).state, ABORTED);
        assert_eq!(world.conn(B).take_error(), Some(Error::Reset));
    }
}

// row 57
#[test]
fn nobody_is_told_when_the_peer_is_gone() {
    for mut world in worlds() {
        world.prompt = false;
        world.send(A, b"lost", PLAIN);
        let cdcs = world.ends[A].cdcs.len();
        world.conn(A).handle_gone(Gone::Unreachable);
        world.run(A);
        assert_eq!(world.conn(A).state(), Closed);
        assert!(world.ends[A].released && world.ends[A].tcp_aborted);
        assert_eq!(world.ends[A].cdcs.len(), cdcs);
        world.conn(A).close(Instant(0), LINGER);
        assert_eq!(world.conn(A).poll_wish(), None);
    }
}

#[test]
fn the_release_waits_for_messages_under_way() {
    let mut world = World::new([Kind::Rdma(64); 2], (64, 64));
    world.prompt = false;
    world.send(A, b"x", PLAIN);
    world.conn(A).handle_gone(Gone::Group);
    world.run(A);
    world.deliver(A, 9);
    world.complete(A, 1);
    assert!(!world.ends[A].released);
    world.complete(A, 1);
    assert!(world.ends[A].released);
}

#[test]
fn an_abort_resets_the_peer() {
    for mut world in worlds() {
        world.conn(A).abort();
        world.settle();
        assert_eq!(world.conn(B).take_error(), Some(Error::Reset));
        assert_eq!(world.conn(A).take_error(), Some(Error::Aborted));
        assert!(world.ends[A].released);
    }
}

#[test]
fn after_the_last_word_nothing_is_written_into_the_peers_ring() {
    for mut world in worlds() {
        world.send(B, &stream(0, 64), PLAIN);
        // SHUT_RDWR, and then the rest is read: no update, the peer may be gone.
        world.recv(A, 1);
        world.shutdown(A, How::Both);
        assert_eq!(world.last(A).state, ABORTED, "there were unread bytes");
        let cdcs = world.ends[A].cdcs.len();
        assert_eq!(world.recv(A, 99).len(), 63);
        world.conn(A).handle_gone(Gone::Group);
        world.settle();
        assert_eq!(world.ends[A].cdcs.len(), cdcs);
        assert!(world.ends[A].released && world.ends[A].tcp_aborted);
    }
}

#[test]
fn a_peer_that_misses_bytes_is_told_of_an_abort_behind_the_close() {
    let mut world = World::new([Kind::Copied(64); 2], (32, 32));
    world.send(A, &stream(0, 40), PLAIN);
    world.conn(A).close(Instant(0), Duration::ZERO);
    world.settle();
    assert_eq!((world.last(A).state, world.conn(A).unsent()), (CLOSED, 8));
    world.conn(A).handle_gone(Gone::Group);
    world.settle();
    assert_eq!(world.last(A).state, CLOSED | ABORTED);
    assert_eq!(world.conn(B).error(), Some(Error::Reset));
}

#[test]
fn a_ring_is_reusable_when_its_writer_has_said_its_last_word() {
    for mut world in worlds() {
        assert!(!world.conn(A).is_ring_reusable());
        world.shutdown(B, How::Write);
        assert!(!world.conn(A).is_ring_reusable(), "done writing, but not with updates");
        world.close(B);
        world.close(A);
        assert!(world.ends[A].reused && world.ends[B].reused);
    }
    // The writer was blocked when it closed: it may go on.
    let mut world = World::new([Kind::Copied(64); 2], (32, 32));
    world.send(A, &stream(0, 40), PLAIN);
    world.conn(A).close(Instant(0), Duration::ZERO);
    world.settle();
    assert!(!world.conn(B).is_ring_reusable());
    // We aborted: it may not know yet.
    let mut world = World::new([Kind::Copied(64); 2], (32, 32));
    world.conn(A).abort();
    world.settle();
    assert!(world.ends[A].released && !world.ends[A].reused);
    // The link was switched: it may repeat itself.
    let mut world = World::new([Kind::Rdma(64); 2], (32, 32));
    world.conn(A).switch_link();
    world.settle();
    world.close(B);
    world.close(A);
    assert!(world.ends[A].released && !world.ends[A].reused);
}
