// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-R's links and buffers behind a handshake: what comes, goes and fails under it.

use std::time::Duration;

use smc_proto::conn::{Connection, Error, Lie};
use smc_proto::endpoint::{Path, Wish};
use smc_proto::group::Fate;
use smc_proto::handshake::reason::Failure;
use smc_proto::smcr::{self, Received};
use smc_wire::cdc;
use smc_wire::clc::{Body, Contact, Diagnosis, Message};
use smc_wire::id::{AlertToken, Qpn};

use crate::fabric::port;
use crate::pair::{Outcome, Pair};
use crate::smcr::{last_accept, version_2};

const SECOND: Duration = Duration::from_secs(1);

// row 46
#[test]
fn a_cdc_message_before_the_confirm_is_kept() {
    let mut pair = version_2(1);
    pair.establish();
    let server = pair.ends[1].endpoint.accept(pair.now, &pair.ends[1].route.clone());
    let client = pair.ends[0].endpoint.connect(pair.now, &pair.ends[0].route.clone());
    pair.streams.push(crate::pair::Stream {
        conns: [Some(client), Some(server)],
        bytes: Default::default(),
    });
    pair.tamper = Some(Box::new(|from, message| {
        if from == 0 && matches!(Message::parse(message), Ok(Message::Confirm(_))) {
            message.clear();
        }
    }));
    pair.run();
    assert_eq!(pair.outcome(1, 1), None);
    let cons = cdc::Cursor { wrap: 0, count: 1 };
    let early = cdc::Smcr { seqno: 1, token: AlertToken(server.0), cons, ..cdc::Smcr::default() };
    let mut bytes = [0; cdc::Smcr::LEN];
    early.emit(&mut bytes).unwrap();
    assert_eq!(pair.inject_rdma(1, &bytes), Received::Control);
    let confirm = pair.sent(0).pop().unwrap();
    pair.inject(1, 1, confirm);
    let Some(Outcome::Smc(established)) = pair.outcome(1, 1) else { panic!() };
    let params = established.params;
    let Path::Rdma { early: kept, .. } = established.path else { panic!() };
    assert_eq!(kept, [early]);
    // Nothing was sent that the client could have consumed.
    let mut connection = Connection::new(&params);
    connection.handle_cdc_smcr(&kept[0]);
    let error = connection.error();
    assert!(matches!(error, Some(Error::Protocol(Lie::Consumer { .. }))), "{error:?}");
    // Later ones are the connection's.
    assert!(matches!(pair.inject_rdma(1, &bytes), Received::Cdc(_)));
}

// row 62
#[test]
fn a_buffer_is_zeroed_when_the_peer_has_forgotten_its_key() {
    let mut pair = version_2(1);
    let [client, server] = pair.establish();
    pair.establish();
    pair.release(0, client.conn);
    pair.release(1, server.conn);
    for n in [0, 1] {
        let zeroed = |wish: &Wish| {
            matches!(wish, Wish::Group(smc_proto::group::Wish::Zero { buffer, .. })
                if *buffer == [client.receive.id, server.receive.id][n])
        };
        assert!(pair.ends[n].log.iter().any(zeroed));
    }
    let third = pair.establish();
    assert_eq!(third[0].receive.id, client.receive.id);
    assert_eq!(third[1].receive.id, server.receive.id);
}

// row 62
#[test]
fn a_buffer_is_not_zeroed_while_the_peer_has_its_key() {
    let mut pair = version_2(1);
    let [client, _] = pair.establish();
    pair.establish();
    pair.fabric.faults[0].mute = true;
    pair.release(0, client.conn);
    let zeroed = |wish: &Wish| {
        matches!(wish, Wish::Group(smc_proto::group::Wish::Zero { buffer, .. })
            if *buffer == client.receive.id)
    };
    assert!(!pair.ends[0].log.iter().any(zeroed));
    for _ in 0..3 {
        pair.pass(SECOND);
    }
    // A peer that does not answer is not waited for longer than LLC's time.
    assert!(pair.ends[0].log.iter().any(zeroed));
}

// row 18
#[test]
fn a_group_that_ends_during_its_first_contact_declines() {
    for n in [0, 1] {
        let mut pair = version_2(1);
        pair.fabric.faults[1].mute = true;
        let stream = pair.begin();
        pair.run();
        let group = pair.ends[n].endpoint.groups().infos().next().unwrap().id;
        pair.ends[n].endpoint.terminate(pair.now, group);
        pair.run();
        assert_eq!(pair.outcome(n, stream), None);
        for _ in 0..5 {
            pair.pass(SECOND);
        }
        let Some(Outcome::Tcp(reason)) = pair.outcome(n, stream) else {
            panic!("{:?}", pair.outcome(n, stream))
        };
        let own = n == 1 || reason.diagnosis == Diagnosis::PEERDECL;
        assert!(own || reason.diagnosis == Diagnosis::TIMEOUT_CL, "{reason}");
    }
}

#[test]
fn a_port_that_comes_later_gives_the_group_a_second_link() {
    let mut pair = version_2(1);
    pair.establish();
    let created = |pair: &Pair, n: usize| {
        let create = |wish: &&Wish| {
            matches!(wish, Wish::Links { wish: smcr::Wish::CreateQp { port, .. }, .. }
                if port.device == self::port(1, 2).id)
        };
        pair.ends[n].log.iter().filter(create).count()
    };
    assert_eq!([0, 1].map(|n| created(&pair, n)), [0, 0]);
    for n in [1, 0] {
        pair.ends[n].endpoint.set_port(pair.now, port(n as u8 + 1, 2));
        pair.run();
    }
    assert!([0, 1].map(|n| created(&pair, n)).iter().all(|it| *it > 0));
}

#[test]
fn a_second_port_gives_a_second_link_and_its_loss_moves_connections() {
    let mut pair = version_2(1);
    for n in [0, 1] {
        pair.ends[n].endpoint.set_port(pair.now, port(n as u8 + 1, 2));
    }
    let [client, _] = pair.establish();
    let created =
        |wish: &Wish| matches!(wish, Wish::Links { wish: smcr::Wish::CreateQp { .. }, .. });
    for end in &pair.ends {
        assert_eq!(end.log.iter().filter(|it| created(it)).count(), 2);
    }
    let Path::Rdma { route, .. } = &client.path else { panic!() };
    // Both ports are the interface, so the one that was added last was taken.
    let gone = smc_proto::handshake::inventory::RocePort { active: false, ..port(1, 2) };
    pair.ends[0].endpoint.set_port(pair.now, gone);
    pair.run();
    let moved = |wish: &Wish| match wish {
        Wish::Links { wish: smcr::Wish::MoveConnection { conn, from, .. }, .. } => {
            Some((*conn, *from))
        }
        _ => None,
    };
    assert_eq!(pair.ends[0].log.iter().find_map(moved), Some((client.conn, route.link)));
    assert!(pair.establish().iter().all(|end| !end.first_contact));
}

#[test]
fn the_last_ports_end_aborts_the_connections() {
    let mut pair = version_2(1);
    let [client, _] = pair.establish();
    pair.ends[0].endpoint.remove_port(pair.now, port(1, 1).id);
    pair.run();
    for _ in 0..10 {
        pair.pass(SECOND);
    }
    assert!(matches!(pair.ends[0].outcomes[&client.conn], Outcome::Aborted { .. }));
    assert_eq!(pair.ends[0].endpoint.groups().infos().count(), 0);
}

// row 71
#[test]
fn a_full_group_is_followed_by_another() {
    let mut pair = version_2(1);
    let mut config = pair.ends[1].endpoint.config().clone();
    config.max_conns = 16;
    pair.ends[1].endpoint.configure(config).unwrap();
    let first: Vec<_> = (0..16).map(|_| pair.establish()).collect();
    assert!(first.iter().all(|ends| ends[0].group == first[0][0].group));
    let [client, server] = pair.establish();
    assert!(client.first_contact && server.first_contact);
    assert_ne!(client.group, first[0][0].group);
}

#[test]
fn an_end_of_tcp_during_the_first_contact_ends_the_group() {
    let mut pair = version_2(1);
    pair.fabric.faults[0].mute = true;
    let stream = pair.begin();
    pair.run();
    let server = pair.streams[stream].conns[1].unwrap();
    pair.ends[1].endpoint.handle_tcp_end(pair.now, server);
    pair.run();
    assert_eq!(pair.outcome(1, stream), Some(Outcome::Dead(Failure::Reset)));
    let accept = last_accept(&pair);
    let Body::Smcr(body) = accept.body else { panic!() };
    assert_ne!(body.qpn, Qpn(0));
}

// row 18
#[test]
fn a_later_connections_buffer_that_cannot_be_shared_is_given_back() {
    let mut pair = version_2(1);
    pair.establish();
    pair.fabric.faults[1].no_mr = true;
    assert_eq!(pair.fall_back(), [Diagnosis::PEERDECL, Diagnosis::ERR_REGBUF]);
    let freed = |wish: &Wish| matches!(wish, Wish::Group(smc_proto::group::Wish::Free { .. }));
    assert!(pair.ends[1].log.iter().any(freed));
    pair.fabric.faults[1].no_mr = false;
    assert!(pair.establish().iter().all(|end| !end.first_contact));
}

// row 62
#[test]
fn a_handshake_that_ends_while_its_key_is_told_zeroes_the_buffer_afterwards() {
    let mut pair = version_2(1);
    pair.establish();
    pair.fabric.faults[1].mute = true;
    let stream = pair.begin();
    pair.run();
    let server = pair.streams[stream].conns[1].unwrap();
    pair.ends[1].endpoint.handle_tcp_end(pair.now, server);
    pair.run();
    let zeroed = |pair: &Pair| {
        let zero = |wish: &&Wish| matches!(wish, Wish::Group(smc_proto::group::Wish::Zero { .. }));
        pair.ends[1].log.iter().filter(zero).count()
    };
    // The send buffer at once; the RMB not while CONFIRM_RKEY is under way.
    assert_eq!(zeroed(&pair), 1);
    for _ in 0..3 {
        pair.pass(SECOND);
    }
    let spoiled = |wish: &Wish| matches!(wish, Wish::Group(smc_proto::group::Wish::Free { .. }));
    assert!(zeroed(&pair) == 2 || pair.ends[1].log.iter().any(spoiled));
}

#[test]
fn links_that_come_and_go_leave_the_group_to_be_found() {
    let mut pair = version_2(1);
    for n in [0, 1] {
        pair.ends[n].endpoint.set_port(pair.now, port(n as u8 + 1, 2));
    }
    pair.establish();
    for _ in 0..4 {
        for id in [1, 2] {
            for active in [false, true] {
                for n in [0, 1] {
                    let port = port(n as u8 + 1, id);
                    let port = smc_proto::handshake::inventory::RocePort { active, ..port };
                    pair.ends[n].endpoint.set_port(pair.now, port);
                    pair.run();
                    pair.pass(SECOND);
                }
            }
            assert!(pair.establish().iter().all(|end| !end.first_contact));
        }
    }
}

// row 18
#[test]
fn a_256th_rmb_of_the_peer_has_no_room() {
    let mut pair = version_2(1);
    pair.establish();
    let mut accept = last_accept(&pair);
    let Contact::V2 { first, .. } = &mut accept.contact else { panic!() };
    *first = None;
    // The server never deletes a key, and has told one already.
    for key in 0..255 {
        let Body::Smcr(body) = &mut accept.body else { panic!() };
        body.rkey.0 = 2000 + key;
        let (stream, _) = pair.offer();
        pair.inject_accept(stream, accept);
        match pair.outcome(0, stream) {
            Some(Outcome::Smc(established)) if key < 254 => pair.release(0, established.conn),
            outcome => {
                assert_eq!(key, 254, "{outcome:?}");
                assert_eq!(pair.declined(0, stream), Diagnosis::ERR_RTOK);
            }
        }
    }
}

// row 62
#[test]
fn a_discarded_buffers_memory_regions_go_after_the_peer_was_told() {
    let mut pair = version_2(1);
    let [client, _] = pair.establish();
    pair.establish();
    let before = pair.ends[0].log.len();
    pair.ends[0].endpoint.release(pair.now, client.conn, Fate::Discard);
    pair.run();
    let buffer = client.receive.id;
    let at = |which: fn(&Wish) -> bool| pair.ends[0].log[before..].iter().position(which);
    // The peer's queue pair reaches it until the peer knows that its key is no more.
    let told = at(|wish| matches!(wish, Wish::Links { wish: smcr::Wish::PostSend { .. }, .. }));
    let mut steps = vec![told.unwrap()];
    for (n, wish) in pair.ends[0].log[before..].iter().enumerate() {
        match wish {
            Wish::Links { wish: smcr::Wish::DeregisterMr { buffer: of, .. }, .. }
            | Wish::Group(smc_proto::group::Wish::Free { buffer: of, .. })
                if *of == buffer =>
            {
                steps.push(n);
            }
            _ => {}
        }
    }
    assert!(steps.len() == 3 && steps.is_sorted(), "{steps:?}");
    let registered = |pair: &Pair| {
        let register =
            |wish: &&Wish| matches!(wish, Wish::Links { wish: smcr::Wish::RegisterMr { .. }, .. });
        pair.ends[0].log.iter().filter(register).count()
    };
    let count = registered(&pair);
    let [third, _] = pair.establish();
    assert!(!third.first_contact);
    assert_eq!(registered(&pair), count + 2, "nothing of the old buffers is used again");
}
