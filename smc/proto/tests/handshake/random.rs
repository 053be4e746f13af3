// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes and orders that nobody thought of.
//!
//! Invariant: whatever comes, each handshake ends once, and when all connections are released and
//! time has passed, nothing is left.

use std::time::Duration;

use proptest::prelude::*;
use smc_proto::endpoint::Wish;
use smc_proto::group::RegisterError;
use smc_proto::id::{BufferId, ConnId, DeviceId, GroupId};
use smc_proto::smcr::{LinkId, Received};
use smc_wire::cdc;
use smc_wire::clc::Message;
use smc_wire::id::AlertToken;

use crate::craft::{accept, proposal, smcr_accept};
use crate::fabric::port;
use crate::pair::{Outcome, Pair};

/// Everything ends: handshakes by their timers, groups by their idle time.
fn drain(pair: &mut Pair) {
    for _ in 0..8 {
        pair.pass(Duration::from_secs(2));
    }
    for n in [0, 1] {
        assert_eq!(pair.ends[n].endpoint.handshakes(), 0);
        let outcomes = pair.ends[n].outcomes.clone();
        for (conn, outcome) in outcomes {
            if matches!(outcome, Outcome::Smc(_)) {
                pair.release(n, conn);
            }
        }
    }
    pair.pass(Duration::from_secs(620));
    // SMC-R tells a peer that does not answer over each link for two seconds.
    for _ in 0..4 {
        pair.pass(Duration::from_secs(2));
    }
    for end in &pair.ends {
        assert_eq!(end.endpoint.groups().infos().collect::<Vec<_>>(), []);
        assert_eq!(end.endpoint.poll_timeout(), None);
        let stats = end.endpoint.stats();
        let bytes = [stats.smcd.rx.buffer_bytes, stats.smcr.tx.buffer_bytes];
        assert_eq!(bytes, [0, 0]);
    }
}

fn both() -> Pair {
    let mut pair = Pair::ism();
    for n in [0, 1] {
        pair.ends[n].endpoint.set_port(pair.now, port(n as u8 + 1, 1));
    }
    pair
}

/// Which bits of a message are changed: position and mask.
fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0..300usize, any::<u8>()), 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_bytes_end_a_handshake_or_wait(
        bytes in prop::collection::vec(any::<u8>(), 0..700),
        head in any::<bool>(),
        kind in 1..5u8,
    ) {
        let mut bytes = bytes;
        if head && bytes.len() >= 8 {
            bytes[..5].copy_from_slice(&[0xE2, 0xD4, 0xC3, 0xD9, kind]);
            let len = bytes.len() as u16;
            bytes[5..7].copy_from_slice(&len.to_be_bytes());
        }
        let mut pair = both();
        let (client, _) = pair.offer();
        let waiting = pair.propose(&proposal());
        let conn = pair.ends[1].endpoint.accept(pair.now, &pair.ends[1].route.clone());
        pair.streams.push(crate::pair::Stream { conns: [None, Some(conn)], ..Default::default() });
        let listening = pair.streams.len() - 1;
        for (n, stream) in [(0, client), (1, waiting), (1, listening)] {
            pair.streams[stream].bytes[n].extend(&bytes);
        }
        pair.run();
        drain(&mut pair);
    }

    #[test]
    fn a_handshake_with_changed_bits_ends_well_or_not(
        client in changes(),
        server in changes(),
        smcr in any::<bool>(),
        mapped in any::<[bool; 2]>(),
    ) {
        let mut pair = if smcr { Pair::roce() } else { Pair::mapped(mapped) };
        let changes = [client, server];
        pair.tamper = Some(Box::new(move |n, message| {
            for (at, mask) in &changes[n] {
                let len = message.len();
                message[at % len] ^= mask;
            }
        }));
        let stream = pair.begin();
        pair.run();
        for _ in 0..8 {
            pair.pass(Duration::from_secs(2));
        }
        for n in [0, 1] {
            prop_assert!(pair.outcome(n, stream).is_some());
        }
        pair.tamper = None;
        drain(&mut pair);
    }

    #[test]
    fn messages_in_any_order(order in prop::collection::vec((0..2usize, 0..6usize), 0..12)) {
        let mut pair = both();
        let stream = pair.begin();
        let messages = [
            Message::Proposal(proposal()),
            Message::Accept(smc_wire::clc::Accept(accept())),
            Message::Accept(smc_wire::clc::Accept(smcr_accept())),
            Message::Confirm(smc_wire::clc::Confirm { common: accept(), gids: None }),
            Message::Confirm(smc_wire::clc::Confirm { common: smcr_accept(), gids: None }),
            Message::Decline(smc_wire::clc::Decline::new(
                true,
                Default::default(),
                smc_wire::clc::Diagnosis::SYNCERR,
            )),
        ];
        for (n, which) in order {
            pair.inject(n, stream, messages[which].clone());
        }
        drain(&mut pair);
    }

    #[test]
    fn outcomes_for_what_was_not_asked_change_nothing(
        calls in prop::collection::vec((0..10u8, 0..4u32, any::<bool>()), 0..30),
        begun in 0..3usize,
        established in any::<bool>(),
    ) {
        let mut pair = if established { Pair::roce() } else { both() };
        if established {
            pair.establish();
        }
        let streams: Vec<_> = (0..begun).map(|_| pair.begin()).collect();
        let held = wishes(&mut pair);
        let before = state(&pair);
        let mut undone = Vec::new();
        for (call, id, yes) in calls {
            let now = pair.now;
            let end = &mut pair.ends[usize::from(yes)].endpoint;
            let (conn, group, link) = (ConnId(id), GroupId(STRANGE + id), LinkId(STRANGE + id));
            match call {
                0 => end.handle_remote_gid(now, conn, yes),
                1 => end.handle_next_hop(now, conn, None),
                2 => {
                    let (device, token) = (DeviceId(id), Default::default());
                    end.handle_attached(now, conn, device, token, yes.then_some(64));
                    // What is attached after all is only detached again.
                    undone.extend(yes.then_some((1, Wish::Detach { device, token })));
                }
                3 => end.handle_registered(now, BufferId(id), Err(RegisterError::Refused)),
                4 => end.handle_zeroed(now, BufferId(id), yes),
                5 => end.handle_vlan(now, DeviceId(1), id as u16, yes),
                6 => end.handle_qp_created(now, group, link, None),
                7 => end.handle_link_failed(now, group, link),
                8 => end.handle_mr_registered(now, group, link, BufferId(id), None),
                _ => {
                    let message = cdc::Smcr {
                        seqno: id as u16,
                        token: AlertToken(STRANGE + id),
                        prod: cdc::Cursor { wrap: 0, count: id },
                        ..cdc::Smcr::default()
                    };
                    let mut bytes = [0; cdc::Smcr::LEN];
                    message.emit(&mut bytes).unwrap();
                    let received = match established {
                        true => pair.inject_rdma(usize::from(yes), &bytes),
                        false => end.handle_recv(now, group, link, &bytes),
                    };
                    prop_assert_ne!(received, Received::Control, "a handshake kept it");
                }
            }
        }
        prop_assert_eq!(wishes(&mut pair), undone);
        prop_assert_eq!(state(&pair), before);
        for (n, wish) in held {
            pair.carry_out(n, wish);
        }
        pair.run();
        for stream in streams {
            for n in [0, 1] {
                let outcome = pair.outcome(n, stream);
                prop_assert!(matches!(outcome, Some(Outcome::Smc(_))), "{outcome:?}");
            }
        }
        drain(&mut pair);
    }
}

/// From here on no number was given out.
const STRANGE: u32 = 1 << 24;

/// What both ends want, not carried out.
fn wishes(pair: &mut Pair) -> Vec<(usize, Wish)> {
    let mut all = Vec::new();
    for n in [0, 1] {
        all.extend(std::iter::from_fn(|| pair.ends[n].endpoint.poll_wish()).map(|it| (n, it)));
    }
    all
}

/// All that shows from outside, in words.
fn state(pair: &Pair) -> [String; 2] {
    [0, 1].map(|n| {
        let end = &pair.ends[n];
        let endpoint = &end.endpoint;
        let groups: Vec<_> = endpoint.groups().infos().collect();
        let counts = (endpoint.handshakes(), endpoint.poll_timeout(), endpoint.stats());
        format!("{groups:?} {counts:?} {:?}", end.outcomes)
    })
}

/// A detached DMB was attached, and each one that was attached in vain is detached.
#[test]
fn wishes_of_a_tampered_handshake_are_undone() {
    let mut pair = Pair::mapped([true, true]);
    pair.tamper = Some(Box::new(|n, message| {
        if n == 0 && matches!(Message::parse(message), Ok(Message::Confirm(_))) {
            let last = message.len() - 1;
            message[last] ^= 0xFF;
        }
    }));
    let [client, server] = pair.connect();
    assert!(matches!(client, Outcome::Smc(_)));
    assert!(matches!(server, Outcome::Dead(_)));
    assert!(!pair.ends[1].log.iter().any(|wish| matches!(wish, Wish::Attach { .. })));
}
