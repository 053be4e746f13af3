// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a peer must not say.

use smc_proto::endpoint::Wish;
use smc_proto::handshake::reason::{Failure, Kind};
use smc_wire::clc::{AcceptConfirm, Body, Contact, Decline, Diagnosis, Message, Os};
use smc_wire::id::{Chid, Eid};

use crate::craft::{accept, first, proposal, smcd, smcr_accept};
use crate::pair::{Outcome, Pair};

/// A change of an Accept or Confirm, and what comes of it.
type Lie = (fn(&mut AcceptConfirm), Result<Diagnosis, &'static str>);

fn body(message: &mut AcceptConfirm) -> &mut smc_wire::clc::Smcd {
    let Body::Smcd(body) = &mut message.body else { panic!() };
    body
}

fn release(message: &mut AcceptConfirm) -> &mut u8 {
    let Contact::V2 { first: Some(first), .. } = &mut message.contact else { panic!() };
    first.features = Some(Default::default());
    &mut first.release
}

fn set_eid(message: &mut AcceptConfirm, new: Eid) {
    let Contact::V2 { eid, .. } = &mut message.contact else { panic!() };
    *eid = new;
}

/// What end `n` makes of the message; a bystander in the same group is not touched.
fn check(pair: &Pair, n: usize, stream: usize, expected: Result<Diagnosis, &'static str>) {
    match (expected, pair.outcome(n, stream)) {
        (Ok(diagnosis), _) => assert_eq!(pair.declined(n, stream), diagnosis),
        (Err(field), Some(Outcome::Dead(Failure::Lie(found)))) => assert_eq!(field, found),
        (expected, outcome) => panic!("{expected:?}: {outcome:?}"),
    }
    let bystander = pair.outcome(n, 0);
    assert!(matches!(bystander, Some(Outcome::Smc(_))), "{bystander:?}");
    assert_eq!(pair.ends[n].endpoint.handshakes(), 0);
    assert_eq!(pair.ends[n].endpoint.groups().infos().count(), 1);
}

// row 35
#[test]
fn a_lie_in_an_accept_ends_that_handshake_alone() {
    let lies: [Lie; 6] = [
        (|it| body(it).chid = Chid(0xFF02), Err("Accept.chid")),
        (|it| (body(it).chid, body(it).gid.ext) = (Chid(1), 0), Err("Accept.chid")),
        (|it| set_eid(it, Eid([b'X'; 32])), Err("Accept.eid")),
        (|it| *release(it) = 2, Ok(Diagnosis::RELEASEERR)),
        (|it| *release(it) = 15, Ok(Diagnosis::RELEASEERR)),
        (version_1, Ok(Diagnosis::MODEUNSUPP)),
    ];
    for (lie, expected) in lies {
        let mut pair = Pair::ism();
        pair.establish();
        let (stream, _) = pair.offer();
        let mut message = accept();
        lie(&mut message);
        pair.inject_accept(stream, message);
        check(&pair, 0, stream, expected);
    }
}

// row 18
#[test]
fn an_accept_in_a_mode_that_was_not_offered_is_declined() {
    let mut pair = Pair::ism();
    let (stream, _) = pair.offer();
    pair.inject_accept(stream, smcr_accept());
    assert_eq!(pair.declined(0, stream), Diagnosis::MODEUNSUPP);
}

/// The client's Confirm to the server of a pair.
fn confirm() -> AcceptConfirm {
    AcceptConfirm { body: Body::Smcd(smcd(1)), ..accept() }
}

/// Makes it a message of version 1.
fn version_1(message: &mut AcceptConfirm) {
    message.contact = Contact::V1 { first: false };
    let body = body(message);
    (body.chid, body.gid.ext) = (Chid(0), 0);
}

#[test]
fn a_lie_in_a_confirm_ends_that_handshake_alone() {
    let lies: [Lie; 8] = [
        (|it| (body(it).chid, body(it).gid.ext) = (Chid(1), 0), Err("Confirm.gid")),
        (|it| body(it).chid = Chid(0xFF02), Err("Confirm.gid")),
        (|it| body(it).gid.gid += 1, Err("Confirm.gid")),
        (|it| body(it).gid.ext += 1, Err("Confirm.gid")),
        (|it| set_eid(it, Eid([b'X'; 32])), Err("Confirm.eid")),
        (|it| *it = smcr_accept(), Err("Confirm.type")),
        (version_1, Err("Confirm.version")),
        (|it| set_first(it, true), Err("Confirm.first contact")),
    ];
    for (lie, expected) in lies {
        let mut pair = Pair::ism();
        pair.establish();
        let stream = pair.propose(&proposal());
        let mut message = confirm();
        set_first(&mut message, false);
        lie(&mut message);
        pair.inject_confirm(stream, message);
        check(&pair, 1, stream, expected);
    }
}

fn set_first(message: &mut AcceptConfirm, is_first: bool) {
    let Contact::V2 { first: it, .. } = &mut message.contact else { panic!() };
    *it = is_first.then(|| first(1));
}

// row 35
#[test]
fn a_confirm_must_repeat_the_release() {
    for (theirs, good) in [(1, true), (0, false), (2, false)] {
        let mut pair = Pair::ism();
        let stream = pair.propose(&proposal());
        let mut message = confirm();
        *release(&mut message) = theirs;
        pair.inject_confirm(stream, message);
        if good {
            assert!(matches!(pair.outcome(1, stream), Some(Outcome::Smc(_))));
        } else {
            // The client is established already: SMC-D's needs nothing after its Confirm.
            let failure = Failure::Late(Diagnosis::RELEASEERR);
            assert_eq!(pair.outcome(1, stream), Some(Outcome::Dead(failure)));
        }
    }
}

// row 35
#[test]
fn the_lower_release_is_spoken() {
    for (ours, theirs, spoken) in [(1, 15, 1), (1, 0, 0), (0, 1, 0), (1, 1, 1)] {
        let mut pair = Pair::ism();
        let mut config = pair.ends[1].endpoint.config().clone();
        config.release = ours;
        pair.ends[1].endpoint.configure(config).unwrap();
        let mut offered = proposal();
        offered.v2.as_mut().unwrap().release = theirs;
        pair.propose(&offered);
        let Some(Message::Accept(accept)) = pair.sent(1).pop() else { panic!() };
        let Contact::V2 { first: Some(first), .. } = accept.0.contact else { panic!() };
        assert_eq!((first.release, first.os), (spoken, Os::LINUX));
        assert_eq!(first.features.map(|it| it.feature_mask), (spoken > 0).then_some(1));
    }
}

// row 14
#[test]
fn the_first_contact_extension_is_longer_from_release_1_on() {
    for (release, len) in [(0, 78 + 36), (1, 78 + 52)] {
        let mut pair = Pair::ism();
        for end in &mut pair.ends {
            let mut config = end.endpoint.config().clone();
            config.release = release;
            end.endpoint.configure(config).unwrap();
        }
        pair.establish();
        for n in [0, 1] {
            let last = pair.ends[n].log.iter().rev().find_map(|wish| match wish {
                Wish::SendClc { message, .. } => Some(message.len()),
                _ => None,
            });
            assert_eq!(last, Some(len));
        }
    }
}

#[test]
fn an_element_that_is_not_in_the_peers_dmb_is_a_lie() {
    for mapped in [[true, false], [false, true]] {
        let mut pair = Pair::mapped(mapped);
        let liar = usize::from(mapped[0]);
        pair.ends[1 - liar].faults.attached_len = Some(16384);
        let outcomes = pair.connect();
        let failure = Outcome::Dead(Failure::Lie("DMB element"));
        assert_eq!(outcomes[1 - liar], failure);
        let detached = |wish: &Wish| matches!(wish, Wish::Detach { .. });
        assert!(pair.ends[1 - liar].log.iter().any(detached));
    }
}

// row 22
#[test]
fn messages_out_of_turn_end_the_connection() {
    let mut pair = Pair::ism();
    let (stream, _) = pair.offer();
    pair.inject(0, stream, Message::Proposal(proposal()));
    let due = Kind::Accept;
    let failure = Failure::OutOfTurn { came: Kind::Proposal, due };
    assert_eq!(pair.outcome(0, stream), Some(Outcome::Dead(failure)));
    let mut pair = Pair::ism();
    let stream = pair.propose(&proposal());
    pair.inject(1, stream, Message::Proposal(proposal()));
    let failure = Failure::OutOfTurn { came: Kind::Proposal, due: Kind::Confirm };
    assert_eq!(pair.outcome(1, stream), Some(Outcome::Dead(failure)));
}

// row 19
#[test]
fn a_client_without_the_group_says_so_and_the_server_ends_it() {
    let mut pair = Pair::ism();
    let [client, server] = pair.establish();
    // The client forgets its group and does not tell.
    pair.ends[0].endpoint.terminate(pair.now, client.group);
    pair.run();
    let diagnoses = pair.fall_back();
    assert_eq!(diagnoses, [Diagnosis::SYNCERR, Diagnosis::PEERDECL]);
    let declines: Vec<_> = pair
        .sent(0)
        .into_iter()
        .filter_map(|message| match message {
            Message::Decline(decline) => Some((decline.out_of_sync, decline.diagnosis)),
            _ => None,
        })
        .collect();
    assert_eq!(declines, [(true, Diagnosis::SYNCERR)]);
    let killed = pair.ends[1].outcomes.get(&server.conn);
    assert!(matches!(killed, Some(Outcome::Aborted { tell_peer: true })), "{killed:?}");
    assert!(pair.establish().iter().all(|end| end.first_contact));
}

#[test]
fn a_decline_without_the_bit_leaves_the_group_alone() {
    let mut pair = Pair::ism();
    let [_, server] = pair.establish();
    let stream = pair.propose(&proposal());
    let decline = Decline::new(true, Default::default(), Diagnosis::MEM);
    pair.inject(1, stream, Message::Decline(decline));
    let Some(Outcome::Tcp(reason)) = pair.outcome(1, stream) else { panic!() };
    assert_eq!((reason.diagnosis, reason.peer), (Diagnosis::PEERDECL, Some(Diagnosis::MEM)));
    assert!(matches!(pair.ends[1].outcomes[&server.conn], Outcome::Smc(_)));
}
