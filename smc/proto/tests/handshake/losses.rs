// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-R: links that are lost, and messages that come early, while handshakes are under way.
//!
//! Invariant: whatever is lost, each handshake comes to an end that both sides can agree on.

use std::time::Duration;

use smc_proto::conn::Connection;
use smc_proto::endpoint::{Path, Wish};
use smc_proto::handshake::inventory::RocePort;
use smc_proto::handshake::reason::Failure;
use smc_proto::smcr::{self, Received};
use smc_wire::cdc::{self, ConnectionState, ProducerFlags};
use smc_wire::clc::{Diagnosis, Message};
use smc_wire::id::AlertToken;

use crate::fabric::port;
use crate::pair::{Outcome, Pair};
use crate::smcr::version_2;

const SECOND: Duration = Duration::from_secs(1);

/// Two hosts with two ports each and an established connection.
fn two_ports() -> Pair {
    let mut pair = version_2(1);
    for n in [0, 1] {
        pair.ends[n].endpoint.set_port(pair.now, port(n as u8 + 1, 2));
    }
    pair.establish();
    pair
}

/// Sets one of the server's ports up or down.
fn set_port(pair: &mut Pair, id: u32, active: bool) {
    pair.ends[1].endpoint.set_port(pair.now, RocePort { active, ..port(2, id) });
    pair.run();
}

/// Begins a handshake whose Confirm is held back; the server's connection, and the Confirm.
fn hold_confirm(pair: &mut Pair) -> (usize, smc_proto::id::ConnId, Message) {
    pair.tamper = Some(Box::new(|from, message| {
        if from == 0 && matches!(Message::parse(message), Ok(Message::Confirm(_))) {
            message.clear();
        }
    }));
    let stream = pair.begin();
    pair.run();
    pair.tamper = None;
    assert_eq!(pair.outcome(1, stream), None);
    let server = pair.streams[stream].conns[1].unwrap();
    (stream, server, pair.sent(0).pop().unwrap())
}

/// The wishes of the server's that move a connection, from the `from`th wish on.
fn moves(pair: &Pair, from: usize) -> Vec<smc_proto::id::ConnId> {
    let moved = |wish: &Wish| match wish {
        Wish::Links { wish: smcr::Wish::MoveConnection { conn, .. }, .. } => Some(*conn),
        _ => None,
    };
    pair.ends[1].log[from..].iter().filter_map(moved).collect()
}

fn early(pair: &mut Pair, message: &cdc::Smcr) {
    let mut bytes = [0; cdc::Smcr::LEN];
    message.emit(&mut bytes).unwrap();
    assert_eq!(pair.inject_rdma(1, &bytes), Received::Control);
}

/// Feeds a new connection what was kept for it.
fn fed(pair: &Pair, stream: usize) -> Connection {
    let Some(Outcome::Smc(established)) = pair.outcome(1, stream) else { panic!() };
    let mut conn = Connection::new(&established.params);
    let Path::Rdma { early: kept, .. } = established.path else { panic!() };
    assert!(kept.len() <= 16, "{} messages", kept.len());
    for message in &kept {
        conn.handle_cdc_smcr(message);
        while conn.poll_wish().is_some() {}
    }
    conn
}

// row 46
#[test]
fn the_newest_of_many_early_messages_is_kept() {
    let mut pair = version_2(1);
    pair.establish();
    let (stream, server, confirm) = hold_confirm(&mut pair);
    for n in 1..=40u16 {
        let prod = cdc::Cursor { wrap: 0, count: u32::from(n) * 10 };
        let state = if n == 40 { ConnectionState::DONE_WRITING } else { ConnectionState::EMPTY };
        let message =
            cdc::Smcr { seqno: n, token: AlertToken(server.0), prod, state, ..Default::default() };
        early(&mut pair, &message);
    }
    pair.inject(1, stream, confirm);
    assert_eq!(fed(&pair, stream).unread(), 400);
}

// row 46
#[test]
fn an_early_urgent_byte_stays_where_it_is() {
    for at in [1, 15, 16, 17, 18, 30, 39, 40] {
        let mut pair = version_2(1);
        pair.establish();
        let (stream, server, confirm) = hold_confirm(&mut pair);
        for n in 1..=40u16 {
            let prod = cdc::Cursor { wrap: 0, count: u32::from(n) * 10 };
            let urgent = n == at;
            let flags = if urgent { ProducerFlags::URGENT_PRESENT } else { ProducerFlags::EMPTY };
            let message = cdc::Smcr {
                seqno: n,
                token: AlertToken(server.0),
                prod,
                flags,
                ..Default::default()
            };
            early(&mut pair, &message);
        }
        pair.inject(1, stream, confirm);
        let Some(Outcome::Smc(established)) = pair.outcome(1, stream) else { panic!() };
        let Path::Rdma { early, .. } = established.path else { panic!() };
        let urgent = early.iter().filter(|it| it.flags.contains(ProducerFlags::URGENT_PRESENT));
        let marks: Vec<u16> = urgent.map(|it| it.seqno).collect();
        assert_eq!(marks, [at]);
        assert_eq!(early.last().map(|it| it.seqno), Some(40));
        assert!(early.is_sorted_by_key(|it| it.seqno) && early.len() <= 16);
    }
}

#[test]
fn a_handshake_that_waits_for_its_key_goes_on_when_its_link_goes() {
    for gone in [1, 2] {
        let mut pair = two_ports();
        // The client is mute: CONFIRM RKEY of a first handshake holds up that of the second.
        pair.fabric.faults[0].mute = true;
        let streams = [(); 2].map(|()| {
            let stream = pair.begin();
            pair.run();
            stream
        });
        set_port(&mut pair, gone, false);
        pair.fabric.faults[0].mute = false;
        // The client is patient: its end of TCP does not help.
        for _ in 0..10 {
            pair.now = pair.now.after(SECOND);
            pair.ends[1].endpoint.handle_timeout(pair.now);
            pair.run();
        }
        let waiting = streams.iter().filter(|it| pair.outcome(1, **it).is_none());
        assert_eq!(waiting.count(), 0, "port {gone}");
    }
}

#[test]
fn a_handshake_takes_its_new_link_without_telling_anybody() {
    let mut moved = 0;
    for gone in [1, 2] {
        let mut pair = two_ports();
        let (stream, server, confirm) = hold_confirm(&mut pair);
        let before = pair.ends[1].log.len();
        let Path::Rdma { route, .. } = (match pair.outcome(0, stream) {
            Some(Outcome::Smc(established)) => established.path,
            other => panic!("{other:?}"),
        }) else {
            panic!()
        };
        set_port(&mut pair, gone, false);
        assert!(!moves(&pair, before).contains(&server), "nobody knows the connection yet");
        pair.inject(1, stream, confirm);
        pair.pass(SECOND);
        match pair.outcome(1, stream) {
            Some(Outcome::Smc(_)) => {}
            // Its key was told for the link that is gone: the client has moved and is established.
            Some(Outcome::Dead(failure)) => {
                assert_eq!(failure, Failure::Late(Diagnosis::ERR_RTOK));
                moved += 1;
            }
            other => panic!("link {:?}, port {gone}: {other:?}", route.link),
        }
    }
    assert_eq!(moved, 1);
}

#[test]
fn a_link_that_comes_after_256_others_is_found() {
    let mut pair = two_ports();
    for round in 0..300u32 {
        // One more number for the server, without a link.
        pair.fabric.faults[1].no_qp = round % 2 == 0;
        for active in [false, true] {
            set_port(&mut pair, 1, active);
            pair.pass(SECOND);
        }
        pair.fabric.faults[1].no_qp = false;
        let ends = pair.establish();
        assert!(ends.iter().all(|end| !end.first_contact), "round {round}");
        for (n, end) in ends.iter().enumerate() {
            pair.release(n, end.conn);
            pair.ends[n].outcomes.clear();
            pair.ends[n].log.clear();
        }
        pair.streams.clear();
    }
}

#[test]
fn nobody_is_told_when_no_link_is_left() {
    let mut pair = version_2(1);
    let [client, _] = pair.establish();
    pair.ends[0].endpoint.remove_port(pair.now, port(1, 1).id);
    pair.run();
    for _ in 0..10 {
        pair.pass(SECOND);
    }
    assert_eq!(pair.ends[0].outcomes[&client.conn], Outcome::Aborted { tell_peer: false });
}
