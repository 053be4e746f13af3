// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-R: versions 1, 2 and 2.1, what they negotiate, what can fail.

use std::time::Duration;

use smc_proto::endpoint::{Path, Wish};
use smc_proto::group::Version;
use smc_proto::handshake::inventory::Address;
use smc_proto::smcr::{self};
use smc_wire::clc::{Body, Contact, Diagnosis, Message};
use smc_wire::id::AlertToken;

use crate::craft::{gid_of, proposal, smcr_accept, smcr_offer};
use crate::fabric::port;
use crate::pair::{Outcome, Pair, interface};

const SECOND: Duration = Duration::from_secs(1);

/// A pair that speaks version 1 alone.
pub(crate) fn version_1() -> Pair {
    let mut pair = Pair::roce();
    pair.speak(0, true, false, 1);
    pair.speak(1, true, false, 1);
    pair
}

/// A pair that speaks version 2 of a release.
pub(crate) fn version_2(release: u8) -> Pair {
    let mut pair = Pair::roce();
    pair.speak(0, false, true, release);
    pair.speak(1, false, true, release);
    pair
}

pub(crate) fn last_accept(pair: &Pair) -> smc_wire::clc::AcceptConfirm {
    let sent = pair.sent(1);
    let accept = sent.into_iter().rev().find_map(|message| match message {
        Message::Accept(accept) => Some(accept.0),
        _ => None,
    });
    accept.unwrap()
}

#[test]
fn first_contact_and_later_connections_in_each_version() {
    let cases = [
        (version_1(), Version::V1, 1),
        (version_2(0), Version::V2, 0),
        (version_2(1), Version::V2, 1),
    ];
    for (mut pair, version, release) in cases {
        let first = pair.establish();
        assert!(first.iter().all(|it| it.first_contact && it.version == version));
        assert!(first.iter().all(|it| version == Version::V1 || it.terms.release == release));
        let second = pair.establish();
        for (first, second) in first.iter().zip(&second) {
            assert_eq!(first.group, second.group);
            assert!(!second.first_contact);
            assert_ne!(first.receive.id, second.receive.id);
        }
        for [client, server] in [&first, &second] {
            for (ours, theirs) in [(client, server), (server, client)] {
                let Path::Rdma { route, token, size, offset: 0, .. } = &ours.path else {
                    panic!("{:?}", ours.path)
                };
                assert_eq!(*token, AlertToken(theirs.conn.0));
                assert_eq!(*size, theirs.receive.size);
                assert_eq!(ours.params.peer_ring.len(), size.bytes());
                // The fabric gives each buffer an address of its own.
                assert_eq!(route.rtoken.vaddr, u64::from(theirs.receive.id.0) << 20);
            }
        }
    }
}

// row 16
#[test]
fn a_first_confirm_of_version_2_lists_the_ports() {
    let mut pair = version_2(1);
    pair.ends[0].endpoint.set_port(pair.now, port(1, 2));
    pair.establish();
    pair.establish();
    let lists = pair.sent(0).into_iter().filter_map(|message| match message {
        Message::Confirm(confirm) => Some(confirm.gids.map(|gids| gids.len())),
        _ => None,
    });
    assert_eq!(lists.collect::<Vec<_>>(), [Some(2), None]);
}

// row 34
#[test]
fn limits_are_the_smaller_ones_of_both() {
    let mut pair = version_2(1);
    for (n, (conns, links)) in [(0, (100, 1)), (1, (32, 2))] {
        let mut config = pair.ends[n].endpoint.config().clone();
        (config.max_conns, config.max_links) = (conns, links);
        pair.ends[n].endpoint.configure(config).unwrap();
    }
    for end in pair.establish() {
        assert_eq!((end.terms.max_conns, end.terms.max_links), (32, 1));
    }
}

// rows 18, 34
#[test]
fn a_server_declines_limits_that_are_too_small() {
    let cases = [
        (15, 2, Some(Diagnosis::MAXCONNERR)),
        (0, 2, Some(Diagnosis::MAXCONNERR)),
        (16, 0, Some(Diagnosis::MAXLINKERR)),
        (16, 3, None),
    ];
    for (max_conns, max_links, expected) in cases {
        for release in [0, 1] {
            let mut pair = version_2(1);
            let mut proposal = proposal();
            let v2 = proposal.v2.as_mut().unwrap();
            let offer = smcr_offer([10, 0, 0, 1]);
            v2.smcr = Some(smc_wire::clc::SmcrOffer { max_conns, max_links, ..offer });
            (v2.smcd, v2.release) = (None, release);
            let stream = pair.propose(&proposal);
            match expected.filter(|_| release > 0) {
                Some(diagnosis) => assert_eq!(pair.declined(1, stream), diagnosis),
                None => assert_eq!(pair.outcome(1, stream), None),
            }
        }
    }
}

// rows 18, 34, 35
#[test]
fn a_client_declines_limits_and_releases_that_it_did_not_offer() {
    let cases = [
        (1, 15, 2, Diagnosis::MAXCONNERR),
        (1, 16, 0, Diagnosis::MAXLINKERR),
        (1, 16, 3, Diagnosis::MAXLINKERR),
        (2, 16, 2, Diagnosis::RELEASEERR),
    ];
    for (release, max_conns, max_links, expected) in cases {
        let mut pair = version_2(1);
        let (stream, _) = pair.offer();
        let mut accept = smcr_accept();
        let Contact::V2 { first: Some(first), .. } = &mut accept.contact else { panic!() };
        let features = smc_wire::clc::Features { max_conns, max_links, ..Default::default() };
        (first.release, first.features) = (release, Some(features));
        pair.inject_accept(stream, accept);
        assert_eq!(pair.declined(0, stream), expected);
    }
}

// rows 18, 34
#[test]
fn a_confirm_must_repeat_the_limits() {
    let cases = [(254, 2, Diagnosis::MAXCONNERR), (255, 1, Diagnosis::MAXLINKERR)];
    for (max_conns, max_links, expected) in cases {
        let mut pair = version_2(1);
        let mut proposal = proposal();
        let v2 = proposal.v2.as_mut().unwrap();
        (v2.smcd, v2.smcr) = (None, Some(smcr_offer([10, 0, 0, 1])));
        let stream = pair.propose(&proposal);
        let mut confirm = smcr_accept();
        let Contact::V2 { first: Some(first), .. } = &mut confirm.contact else { panic!() };
        first.features =
            Some(smc_wire::clc::Features { max_conns, max_links, ..Default::default() });
        let Body::Smcr(body) = &mut confirm.body else { panic!() };
        body.gid = gid_of([10, 0, 0, 1]);
        pair.inject_confirm(stream, confirm);
        assert_eq!(pair.declined(1, stream), expected);
    }
}

// row 72
#[test]
fn a_gateway_is_said_and_found_or_the_client_declines() {
    let gateway = [(true, true, None), (true, false, Some(Diagnosis::NOINDIRECT))];
    for (server, client, expected) in gateway {
        let mut pair = version_2(1);
        pair.ends[0].faults.gateway = client;
        pair.ends[1].faults.gateway = server;
        match expected {
            Some(diagnosis) => {
                assert_eq!(pair.fall_back(), [diagnosis, Diagnosis::PEERDECL]);
            }
            None => {
                pair.establish();
                let hops = |wish: &Wish| match wish {
                    Wish::Links { wish: smcr::Wish::ModifyRtr { attributes, .. }, .. } => {
                        Some(attributes.hop_limit)
                    }
                    _ => None,
                };
                for end in &pair.ends {
                    assert_eq!(end.log.iter().find_map(hops), Some(64));
                }
            }
        }
    }
}

// rows 18, 72
#[test]
fn without_a_route_the_server_has_no_device_and_the_client_declines() {
    let mut pair = version_2(1);
    pair.ends[1].faults.no_hop = true;
    assert_eq!(pair.fall_back(), [Diagnosis::PEERDECL, Diagnosis::NOSMCRDEV]);
    let mut pair = version_2(1);
    pair.ends[1].faults.gateway = true;
    pair.ends[0].faults.no_hop = true;
    assert_eq!(pair.fall_back(), [Diagnosis::NOROUTE, Diagnosis::PEERDECL]);
}

// row 18
#[test]
fn faults_of_the_fabric_decline_with_their_reasons() {
    // The server's queue pair or memory region fails before its Accept, the client's after it.
    let mut pair = version_2(1);
    pair.fabric.faults[1].no_qp = true;
    assert_eq!(pair.fall_back(), [Diagnosis::PEERDECL, Diagnosis::INTERR]);
    let mut pair = version_2(1);
    pair.fabric.faults[0].no_qp = true;
    assert_eq!(pair.fall_back(), [Diagnosis::INTERR, Diagnosis::PEERDECL]);
    let mut pair = version_2(1);
    pair.fabric.faults[1].no_mr = true;
    assert_eq!(pair.fall_back(), [Diagnosis::PEERDECL, Diagnosis::ERR_REGBUF]);
    let mut pair = version_2(1);
    pair.fabric.faults[0].no_mr = true;
    assert_eq!(pair.fall_back(), [Diagnosis::ERR_REGBUF, Diagnosis::PEERDECL]);
}

// row 18
#[test]
fn a_link_that_is_not_confirmed_declines_after_a_last_word() {
    for mute in [0, 1] {
        let mut pair = version_2(1);
        pair.fabric.faults[mute].mute = true;
        let stream = pair.begin();
        pair.run();
        assert_eq!([0, 1].map(|n| pair.outcome(n, stream)), [None, None]);
        for _ in 0..8 {
            pair.pass(SECOND);
        }
        let diagnoses = [0, 1].map(|n| match pair.outcome(n, stream) {
            Some(Outcome::Tcp(reason)) => reason.diagnosis,
            other => panic!("{other:?}"),
        });
        // The server's wait is the shorter one; its Decline is the client's last word.
        assert_eq!(diagnoses, [Diagnosis::PEERDECL, Diagnosis::TIMEOUT_CL]);
        for end in &pair.ends {
            assert_eq!(end.endpoint.groups().infos().count(), 0);
        }
    }
}

// rows 18, 19
#[test]
fn a_client_that_does_not_know_the_group_or_the_link_declines() {
    let mut pair = version_2(1);
    let (stream, _) = pair.offer();
    let mut accept = smcr_accept();
    let Contact::V2 { first, .. } = &mut accept.contact else { panic!() };
    *first = None;
    pair.inject_accept(stream, accept);
    assert_eq!(pair.declined(0, stream), Diagnosis::SYNCERR);
}

/// A client that has a group with the server gets an Accept for a later connection: why it
/// declines, if it does.
fn later_accept(lie: fn(&mut smc_wire::clc::Smcr)) -> Option<Diagnosis> {
    let mut pair = version_2(1);
    pair.establish();
    let mut accept = last_accept(&pair);
    let Contact::V2 { first, .. } = &mut accept.contact else { panic!() };
    *first = None;
    let Body::Smcr(body) = &mut accept.body else { panic!() };
    body.rkey.0 += 1000;
    lie(body);
    let (stream, _) = pair.offer();
    pair.inject_accept(stream, accept);
    match pair.outcome(0, stream) {
        Some(Outcome::Smc(_)) => None,
        _ => Some(pair.declined(0, stream)),
    }
}

// rows 18, 19
#[test]
fn a_later_accept_must_name_a_link_of_the_group() {
    assert_eq!(later_accept(|_| {}), None);
    assert_eq!(later_accept(|it| it.qpn.0 += 1), Some(Diagnosis::SYNCERR));
    assert_eq!(later_accept(|it| it.gid.0[15] += 1), Some(Diagnosis::SYNCERR));
    assert_eq!(later_accept(|it| it.peer.0[0] += 1), Some(Diagnosis::SYNCERR));
}

// row 18
#[test]
fn a_queue_pair_that_cannot_be_made_ready_declines() {
    for n in [0, 1] {
        let mut pair = version_2(1);
        pair.fabric.faults[n].no_rtr = true;
        let stream = pair.begin();
        pair.run();
        for _ in 0..6 {
            pair.pass(SECOND);
        }
        let Some(Outcome::Tcp(reason)) = pair.outcome(n, stream) else {
            panic!("{:?}", pair.outcome(n, stream))
        };
        assert_eq!(reason.diagnosis, Diagnosis::ERR_RDYLNK);
        let Some(Outcome::Tcp(reason)) = pair.outcome(1 - n, stream) else {
            panic!("{:?}", pair.outcome(1 - n, stream))
        };
        assert_eq!(reason.peer, Some(Diagnosis::ERR_RDYLNK));
    }
}

// row 23
#[test]
fn ism_comes_before_rdma() {
    let mut pair = Pair::ism();
    for n in [0, 1] {
        pair.ends[n].endpoint.set_port(pair.now, port(n as u8 + 1, 1));
    }
    assert!(pair.establish().iter().all(|end| matches!(end.path, Path::Copied { .. })));
    // Without a fabric in common SMC-R of version 2 is next, then of version 1.
    pair.ends[1].faults.unreachable = true;
    let ends = pair.establish();
    assert!(ends.iter().all(|end| matches!(end.path, Path::Rdma { .. })));
    assert!(ends.iter().all(|end| end.version == Version::V2));
    pair.ends[1].faults.no_hop = true;
    assert!(pair.establish().iter().all(|end| end.version == Version::V1));
}

// row 25
#[test]
fn version_2_of_smc_r_crosses_subnets_and_version_1_does_not() {
    let elsewhere = |pair: &mut Pair| {
        let mut at = interface(2);
        at.addresses = vec![Address { ip: [192, 168, 0, 2].into(), prefix_len: 16 }];
        pair.ends[1].endpoint.set_interface(at);
        pair.ends[1].route.local = [192, 168, 0, 2].into();
    };
    let mut pair = version_2(1);
    elsewhere(&mut pair);
    pair.establish();
    let mut pair = version_1();
    elsewhere(&mut pair);
    assert_eq!(pair.fall_back(), [Diagnosis::PEERDECL, Diagnosis::DIFFPREFIX]);
}

#[test]
fn the_first_active_port_names_the_host() {
    let mut pair = Pair::bare();
    let down = smc_proto::handshake::inventory::RocePort { active: false, ..port(1, 2) };
    pair.ends[0].endpoint.set_port(pair.now, down);
    assert_eq!(pair.ends[0].endpoint.peer_id().0, [0; 8]);
    pair.ends[0].endpoint.set_port(pair.now, port(1, 1));
    assert_eq!(pair.ends[0].endpoint.peer_id().0, [0x5A, 0xA5, 2, 0, 0, 0, 1, 1]);
}

// row 17
#[test]
fn a_decline_is_of_the_accepts_version() {
    for (mut pair, len) in [(version_1(), 28), (version_2(1), 44)] {
        pair.fabric.faults[0].no_qp = true;
        pair.fall_back();
        let last = pair.ends[0].log.iter().rev().find_map(|wish| match wish {
            Wish::SendClc { message, .. } => Some(message.len()),
            _ => None,
        });
        assert_eq!(last, Some(len));
    }
}

// rows 18, 59
#[test]
fn eyecatchers_in_rmbes_are_declined() {
    for (n, expected) in [
        (0, [Diagnosis::PEERDECL, Diagnosis::RMBE_EC]),
        (1, [Diagnosis::RMBE_EC, Diagnosis::PEERDECL]),
    ] {
        let mut pair = version_2(1);
        pair.fabric.faults[n].eyecatchers = true;
        assert_eq!(pair.fall_back(), expected);
    }
}
