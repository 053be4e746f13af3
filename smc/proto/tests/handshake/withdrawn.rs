// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Proposals that are withdrawn, because nobody has answered them in time.
//!
//! Invariant: both ends come to the same way, and what is left in the streams is the data.

use std::time::Duration;

use proptest::prelude::*;
use smc_proto::config::Config;
use smc_proto::endpoint::{Late, Wish};
use smc_proto::handshake::reason::Reason;
use smc_wire::clc::{Diagnosis, Message};

use crate::pair::{Outcome, Pair, Stream, config, ism};

const PATIENCE: Duration = Duration::from_millis(250);
const DATA: [&[u8]; 2] = [b"to the client", b"to the server"];

fn impatient() -> Pair {
    let mut pair = Pair::of([Config { patience: Some(PATIENCE), ..config() }, config()]);
    for n in [0, 1] {
        pair.ends[n].endpoint.add_ism(ism(n as u64 + 1));
    }
    pair
}

/// A client's connection to a server that has not accepted yet: TCP keeps what it sends.
fn knock(pair: &mut Pair) -> usize {
    let conn = pair.ends[0].endpoint.connect(pair.now, &pair.ends[0].route.clone());
    pair.streams.push(Stream { conns: [Some(conn), None], ..Stream::default() });
    pair.run();
    pair.streams.len() - 1
}

fn accept(pair: &mut Pair, stream: usize) {
    let conn = pair.ends[1].endpoint.accept(pair.now, &pair.ends[1].route.clone());
    pair.streams[stream].conns[1] = Some(conn);
    pair.run();
}

/// What may come late at an end that has gone on as TCP.
fn late(pair: &Pair, n: usize) -> Option<Late> {
    pair.ends[n].log.iter().find_map(|wish| match wish {
        Wish::Fallback { late, .. } => Some(*late),
        _ => None,
    })
}

fn fallback(diagnosis: Diagnosis, peer: Option<Diagnosis>) -> Option<Outcome> {
    Some(Outcome::Tcp(Reason { diagnosis, peer }))
}

#[test]
fn a_server_that_comes_later_finds_the_data_and_answers_nothing() {
    let mut pair = impatient();
    let stream = knock(&mut pair);
    assert_eq!(pair.ends[0].endpoint.poll_timeout(), Some(pair.now.after(PATIENCE)));
    pair.pass(PATIENCE - Duration::from_nanos(1));
    assert_eq!(pair.outcome(0, stream), None);
    pair.pass(Duration::from_nanos(1));
    assert_eq!(pair.outcome(0, stream), fallback(Diagnosis::TIMEOUT_CL, None));
    assert_eq!(late(&pair, 0), Some(Late::Answer));
    pair.streams[stream].bytes[1].extend(DATA[1]);
    accept(&mut pair, stream);
    let declined = fallback(Diagnosis::PEERDECL, Some(Diagnosis::TIMEOUT_CL));
    assert_eq!(pair.outcome(1, stream), declined);
    assert_eq!((pair.streams[stream].bytes[1].as_slice(), pair.sent(1)), (DATA[1], vec![]));
    assert_eq!(late(&pair, 1), Some(Late::Nothing));
    assert_eq!(pair.ends[1].endpoint.groups().infos().count(), 0);
}

#[test]
fn an_accept_that_crosses_the_withdrawal_is_no_data() {
    let mut pair = impatient();
    let stream = knock(&mut pair);
    pair.streams[stream].conns[0] = None;
    accept(&mut pair, stream);
    let answer = std::mem::take(&mut pair.streams[stream].bytes[0]);
    assert!(matches!(Message::parse(&answer), Ok(Message::Accept(_))));
    pair.streams[stream].conns[0] = pair.ends[0].log.iter().find_map(|wish| match wish {
        Wish::SendClc { conn, .. } => Some(*conn),
        _ => None,
    });
    pair.pass(PATIENCE);
    assert_eq!(pair.outcome(0, stream), fallback(Diagnosis::TIMEOUT_CL, None));
    let declined = fallback(Diagnosis::PEERDECL, Some(Diagnosis::TIMEOUT_CL));
    assert_eq!(pair.outcome(1, stream), declined);
    let mut bytes = answer.clone();
    assert!((1..bytes.len()).all(|some| Late::Answer.len_in(&bytes[..some]).is_none()));
    bytes.extend(DATA[0]);
    assert_eq!(Late::Answer.len_in(&bytes), Some(answer.len()));
    assert_eq!(Late::Answer.len_in(DATA[0]), Some(0));
    // Where only a Decline can come, an Accept is data as any other.
    assert_eq!(Late::Decline.len_in(&bytes), Some(0));
    assert_eq!(pair.ends[1].endpoint.groups().infos().count(), 0);
}

#[test]
fn a_caller_that_knows_that_nobody_accepts_need_not_wait() {
    let mut pair = Pair::ism();
    let stream = knock(&mut pair);
    let conn = pair.streams[stream].conns[0].unwrap();
    pair.ends[0].endpoint.withdraw(pair.now, conn);
    pair.run();
    assert_eq!(pair.outcome(0, stream), fallback(Diagnosis::TIMEOUT_CL, None));
    // It ends once, and another handshake is not its business.
    let other = pair.connect();
    assert!(other.iter().all(|outcome| matches!(outcome, Outcome::Smc(_))));
    pair.ends[0].endpoint.withdraw(pair.now, conn);
    pair.ends[0].endpoint.withdraw(pair.now, pair.streams[1].conns[0].unwrap());
    assert_eq!(pair.ends[0].endpoint.poll_wish(), None);
}

/// What an end finds in its stream after its handshake.
fn found(pair: &Pair, n: usize, stream: usize) -> Vec<u8> {
    let bytes = &pair.streams[stream].bytes[n];
    let skip = late(pair, n).and_then(|late| late.len_in(bytes)).unwrap_or(0);
    bytes[skip..].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whichever_is_first_both_ends_go_the_same_way(
        steps in prop::collection::vec((0..2usize, 1..400usize, 0..3u32), 0..24),
        accepted_at in 0..24usize,
        declines in any::<bool>(),
    ) {
        let mut pair = impatient();
        pair.ends[1].faults.unreachable = declines;
        let stream = pair.begin();
        let conns = pair.streams[stream].conns;
        // The bytes under way, which come in pieces of any length.
        pair.streams[stream].conns[1] = None;
        let mut under_way = [Vec::new(), Vec::new()];
        let mut sent = [false; 2];
        let all = [(0, 4096, 0), (1, 4096, 0)].repeat(6);
        let accepted_at = accepted_at.min(steps.len());
        for (step, (n, len, tenths)) in steps.into_iter().chain(all).enumerate() {
            if step >= accepted_at {
                pair.streams[stream].conns[1] = conns[1];
            }
            pair.streams[stream].conns[0] = conns[0];
            pair.now = pair.now.after(PATIENCE * tenths / 4);
            pair.ends[0].endpoint.handle_timeout(pair.now);
            for end in [0, 1] {
                // As long as bytes are under way nobody may take them.
                let there = std::mem::take(&mut pair.streams[stream].bytes);
                let conns_now = pair.streams[stream].conns;
                pair.streams[stream].conns = conns;
                while let Some(wish) = pair.ends[end].endpoint.poll_wish() {
                    pair.ends[end].log.push(wish.clone());
                    pair.carry_out(end, wish);
                }
                pair.streams[stream].conns = conns_now;
                let new = std::mem::replace(&mut pair.streams[stream].bytes, there);
                for (under_way, new) in under_way.iter_mut().zip(new) {
                    under_way.extend(new);
                }
                let tcp = matches!(pair.outcome_of(end, conns[end].unwrap()), Some(Outcome::Tcp(_)));
                if tcp && !std::mem::replace(&mut sent[end], true) {
                    under_way[1 - end].extend(DATA[1 - end]);
                }
            }
            let len = len.min(under_way[n].len());
            pair.streams[stream].bytes[n].extend(under_way[n].drain(..len));
            if let Some(conn) = pair.streams[stream].conns[n] {
                let bytes = &mut pair.streams[stream].bytes[n];
                let taken = pair.ends[n].endpoint.handle_clc(pair.now, conn, bytes);
                bytes.drain(..taken);
            }
        }
        pair.streams[stream].conns = conns;
        let outcomes = [0, 1].map(|n| pair.outcome(n, stream).expect("an end"));
        match outcomes {
            [Outcome::Smc(_), Outcome::Smc(_)] => prop_assert!(!declines),
            [Outcome::Tcp(_), Outcome::Tcp(_)] => {
                prop_assert_eq!([0, 1].map(|n| found(&pair, n, stream)), DATA.map(<[u8]>::to_vec));
                prop_assert_eq!(pair.ends[1].endpoint.groups().infos().count(), 0);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
