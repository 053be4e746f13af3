// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A peer that lies.

use proptest::prelude::*;
use smc_proto::conn::close::State;
use smc_proto::conn::{
    AUTOCORK, Connection, Error, Lie, Params, Ring, SendError, SendFlags, Sender, Wish,
};
use smc_wire::cdc::{ConnectionState, Cursor, ProducerFlags, Smcd, Smcr};
use smc_wire::id::AlertToken;

use crate::world::{A, B, Kind, PLAIN, World, stream};

fn at(wrap: u16, count: u32) -> Cursor {
    Cursor { wrap, count }
}

fn area(prod: Cursor, cons: Cursor) -> Smcd {
    Smcd { prod, cons, ..Smcd::default() }
}

/// A has sent 30 bytes of which B consumed 10 and said so; B has sent 30 of which A consumed 10.
fn running() -> World {
    let mut world = World::new([Kind::Copied(64), Kind::Mapped], (48, 48));
    for (from, to) in [(A, B), (B, A)] {
        world.send(from, &stream(0, 30), PLAIN);
        world.recv(to, 10);
    }
    for i in [A, B] {
        world.send(i, &stream(30, 1), PLAIN);
    }
    assert_eq!(world.last(B).cons, at(0, 10));
    world
}

// row 40
#[test]
fn a_lie_aborts_the_connection() {
    for (lie, what) in [
        (area(at(0, 48), at(0, 10)), "a count that is not in the ring"),
        (area(at(0, u32::MAX), at(0, 10)), "a count that is not in the ring"),
        (area(at(0, 30), at(0, 10)), "a producer that goes back"),
        (area(at(1, 11), at(0, 10)), "a producer that overtakes us"),
        (area(at(2, 0), at(0, 10)), "a wrap that is skipped"),
        (area(at(0xFFFF, 47), at(0, 10)), "a wrap that goes back"),
        (area(at(0, 31), at(0, 32)), "a consumer of what was not sent"),
        (area(at(0, 31), at(0, 9)), "a consumer that goes back"),
        (area(at(0, 31), at(0, 48)), "a count that is not in the ring"),
        (area(at(0, 31), at(1, 10)), "a whole ring at once"),
    ] {
        for world_of in [A, B] {
            let mut world = running();
            world.ends[world_of].area = lie;
            let before = world.conn(world_of).unread();
            world.look(world_of);
            let error = world.conn(world_of).error();
            assert!(matches!(error, Some(Error::Protocol(_))), "{what}: {error:?}");
            assert_eq!(before, 21);
            assert_eq!(world.conn(world_of).state(), State::Closed, "{what}");
            assert!(world.conn(world_of).readable(0).is_empty());
            assert_eq!(world.last(world_of).state, ConnectionState::ABORTED, "{what}");
            assert!(world.ends[world_of].released && world.ends[world_of].tcp_aborted);
        }
    }
}

// row 40
#[test]
fn the_whole_truth_is_no_lie() {
    for truth in [
        area(at(0, 31), at(0, 10)),
        area(at(1, 10), at(0, 10)),
        area(at(0, 31), at(0, 31)),
        area(at(1, 10), at(0, 31)),
    ] {
        let mut world = running();
        world.ends[A].area = truth;
        world.look(A);
        world.look(A);
        assert_eq!(world.conn(A).error(), None, "{truth:?}");
    }
}

// row 40
#[test]
fn nothing_that_was_said_is_taken_back() {
    let mut world = running();
    world.ends[A].area.state = ConnectionState::CLOSED | ConnectionState(0x01);
    world.look(A);
    world.ends[A].area.state = ConnectionState::EMPTY;
    world.look(A);
    assert_eq!(world.conn(A).state(), State::AppCloseWait1);
    assert_eq!(world.conn(A).send_room(), Err(SendError::Reset));
    assert_eq!(world.conn(A).info().rx_state, ConnectionState::CLOSED | ConnectionState(0x01));
}

// row 46
#[test]
fn a_credit_before_anything_was_sent_is_a_lie() {
    for kind in [Kind::Copied(64), Kind::Mapped] {
        let mut world = World::new([kind; 2], (48, 48));
        // The client's bytes may be there before its Confirm was read, but nothing to consume was.
        world.ends[A].area = area(at(0, 20), at(0, 1));
        world.look(A);
        let lie = Lie::Consumer { was: at(0, 0), is: at(0, 1), ring: 48, allowed: 0 };
        assert_eq!(world.conn(A).error(), Some(Error::Protocol(lie)));
        assert_eq!(
            Error::Protocol(lie).to_string(),
            "the connection was aborted: consumer cursor 0:1 after 0:0 in a ring of 48 bytes, \
             allowed: 0 bytes ahead"
        );

        let mut world = World::new([kind; 2], (48, 48));
        world.ends[A].area = area(at(0, 20), at(0, 0));
        world.look(A);
        assert_eq!((world.conn(A).error(), world.conn(A).unread()), (None, 20));
    }
}

// row 40
#[test]
fn space_that_was_not_given_yet_is_not_the_peers() {
    let ring = 16_352;
    let mut world = World::new([Kind::Copied(32_768); 2], (ring, ring));
    world.send(A, &stream(0, 10_000), PLAIN);
    // B has consumed 1000, below the threshold: A was not told.
    world.recv(B, 1_000);
    world.ends[B].area.prod = at(1, 1);
    world.look(B);
    assert!(world.conn(B).error().is_some());
}

fn cursor() -> impl Strategy<Value = Cursor> {
    let wrap = prop_oneof![0..3u16, 0xFFFE..=0xFFFFu16, any::<u16>()];
    let count = prop_oneof![0..50u32, 40..60u32, any::<u32>()];
    (wrap, count).prop_map(|(wrap, count)| at(wrap, count))
}

#[derive(Debug, Clone)]
enum Step {
    Lie(Cursor, Cursor, u8, u8, u16),
    /// The cursors go ahead by that much of what is allowed, in 1/256.
    Truth(u8, u8, u8, u8),
    Send(u32, bool),
    Consume(u32),
    Inline(bool),
    Poll,
    Switch,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (cursor(), cursor(), any::<u8>(), any::<u8>(), any::<u16>())
            .prop_map(|(p, c, f, s, n)| Step::Lie(p, c, f, s, n)),
        9 => (any::<u8>(), any::<u8>(), any::<u8>(), 0..0x20u8)
            .prop_map(|(p, c, f, s)| Step::Truth(p, c, f & !0x08, s)),
        4 => (0..60u32, any::<bool>()).prop_map(|(n, oob)| Step::Send(n, oob)),
        4 => (0..60u32).prop_map(Step::Consume),
        1 => any::<bool>().prop_map(Step::Inline),
        4 => Just(Step::Poll),
        1 => Just(Step::Switch),
    ]
}

const RING: u32 = 48;
const PEER: u32 = 40;

/// `wrap * len + count`, to move a cursor by.
fn ahead(len: u32, from: Cursor, n: u32) -> Cursor {
    let count = from.count + n;
    at(from.wrap.wrapping_add((count / len) as u16), count % len)
}

/// Nothing that is handed out may lie outside of the rings.
fn check(conn: &Connection, send_ring: u32) {
    for (chunks, len) in [
        (conn.readable(0), RING),
        (conn.readable(7), RING),
        (conn.send_room().unwrap_or_default(), send_ring),
    ] {
        let [first, second] = chunks.ranges();
        assert!(first.end <= len as usize && second.end <= first.start.max(len as usize));
        assert!(chunks.total() <= len);
        assert!(second.is_empty() || first.end == len as usize);
    }
    assert!(conn.unread() <= RING && conn.peer_free() <= PEER);
    assert!(conn.unfinished() <= send_ring);
}

fn poll(conn: &mut Connection, send_ring: u32, receipts: &mut Vec<smc_proto::conn::Receipt>) {
    while let Some(wish) = conn.poll_wish() {
        match wish {
            Wish::Write(write) => {
                assert!(write.len > 0 && write.from + write.len <= send_ring);
                assert!(write.to + write.len <= PEER);
            }
            Wish::FetchUrgent { at } => {
                assert!(at < RING);
                conn.handle_urgent_byte(0);
            }
            Wish::PublishSmcr(_, receipt) => receipts.push(receipt),
            _ => {}
        }
        check(conn, send_ring);
    }
}

fn run(sender: Sender, send_ring: u32, steps: &[Step]) {
    let ring = |len| Ring::new(len).unwrap();
    let mut conn = Connection::new(&Params { ring: ring(RING), peer_ring: ring(PEER), sender });
    let smcr = matches!(sender, Sender::Rdma { .. });
    let (mut seqno, mut receipts) = (0u16, Vec::new());
    for step in steps {
        let mut say = |conn: &mut Connection, prod, cons, flags, state, skip: u16| {
            seqno = seqno.wrapping_add(skip);
            let (flags, state) = (ProducerFlags(flags), ConnectionState(state));
            if smcr {
                let token = AlertToken(0);
                conn.handle_cdc_smcr(&Smcr { seqno, token, prod, cons, flags, state });
            } else {
                let (prod, cons) = Smcd { prod, cons, flags, state }.to_halves();
                conn.handle_cdc_smcd(prod, cons);
            }
        };
        match *step {
            Step::Lie(prod, cons, flags, state, skip) => {
                say(&mut conn, prod, cons, flags, state, skip);
            }
            Step::Truth(news, credit, flags, state) => {
                let info = conn.info();
                let used = RING.min(conn.unread() + 1);
                let news = u32::from(news) * (RING - used) / 256;
                let credit = u32::from(credit) * (PEER - conn.peer_free() + 1) / 256;
                let prod = ahead(RING, info.rx_prod, news);
                say(&mut conn, prod, ahead(PEER, info.rx_cons, credit), flags, state, 1);
            }
            Step::Send(n, oob) => conn.commit(n, SendFlags { more: false, oob }),
            Step::Consume(n) => conn.consume(n),
            Step::Inline(on) => conn.set_oob_inline(on),
            Step::Poll => {
                poll(&mut conn, send_ring, &mut receipts);
                for receipt in receipts.drain(..) {
                    conn.handle_completion(receipt);
                }
            }
            Step::Switch => conn.switch_link(),
        }
        check(&conn, send_ring);
    }
    poll(&mut conn, send_ring, &mut receipts);
}

proptest! {
    // row 40
    #[test]
    fn no_word_of_a_peer_leads_out_of_the_rings(
        steps in proptest::collection::vec(step(), 1..80),
        kind in 0..3usize,
    ) {
        let ring = Ring::new(32).unwrap();
        let token = AlertToken(0);
        match kind {
            0 => run(Sender::Copied { ring }, 32, &steps),
            1 => run(Sender::Mapped, PEER, &steps),
            _ => run(Sender::Rdma { ring, token, autocork: AUTOCORK }, 32, &steps),
        }
    }
}
