// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a peer may not do to connections that are not its own.
//!
//! Invariant: each test's victim is an established connection of another link group or another peer.

use smc_proto::endpoint::Path;
use smc_proto::handshake::route::Route;
use smc_proto::smcr::Received;
use smc_wire::cdc;
use smc_wire::clc::{Decline, Diagnosis, Message};

use smc_wire::id::AlertToken;

use crate::pair::{Outcome, Pair, Stream, address};
use crate::smcr::version_2;

// row 46
#[test]
fn a_cdc_message_reaches_only_connections_of_its_links_group() {
    let mut pair = version_2(1);
    let mut config = pair.ends[1].endpoint.config().clone();
    config.max_conns = 16;
    pair.ends[1].endpoint.configure(config).unwrap();
    let first: Vec<_> = (0..16).map(|_| pair.establish()).collect();
    let [_, server] = pair.establish();
    let victim = &first[0][1];
    assert_ne!(server.group, victim.group);
    let Path::Rdma { route, .. } = &server.path else { panic!() };
    let cons = cdc::Cursor { wrap: 9, count: 9 };
    let token = |conn: smc_proto::id::ConnId| AlertToken(conn.0);
    for (conn, expected) in [(victim.conn, false), (server.conn, true)] {
        let message = cdc::Smcr { seqno: 1, token: token(conn), cons, ..Default::default() };
        let mut bytes = [0; cdc::Smcr::LEN];
        message.emit(&mut bytes).unwrap();
        let endpoint = &mut pair.ends[1].endpoint;
        let received = endpoint.handle_recv(pair.now, server.group, route.link, &bytes);
        let expected = if expected { Received::Cdc(message) } else { Received::Dropped };
        assert_eq!(received, expected, "{conn:?}");
    }
}

/// A Decline with the out-of-sync bit from a TCP client at `from` that repeats a Proposal of the
/// peer's; whether the established connection outlives it.
fn outlives_syncerr(mut pair: Pair, from: u8) -> bool {
    let [_, server] = pair.establish();
    let route = Route { peer: address(from), ..pair.ends[1].route };
    let other = pair.ends[1].endpoint.accept(pair.now, &route);
    let sent = pair.sent(0).into_iter();
    let proposal = sent.into_iter().find(|it| matches!(it, Message::Proposal(_))).unwrap();
    pair.streams.push(Stream { conns: [None, Some(other)], bytes: Default::default() });
    pair.inject(1, 1, proposal);
    assert_eq!(pair.sent(1).len(), 2, "it is accepted into the group");
    let decline = Decline::new(true, Default::default(), Diagnosis::SYNCERR);
    pair.inject(1, 1, Message::Decline(decline));
    assert!(matches!(pair.outcome(1, 1), Some(Outcome::Tcp(_))));
    matches!(pair.ends[1].outcomes[&server.conn], Outcome::Smc(_))
}

// row 19
#[test]
fn a_group_is_not_ended_by_an_address_that_it_did_not_begin_with() {
    assert!(outlives_syncerr(version_2(1), 99));
    assert!(outlives_syncerr(Pair::ism(), 99));
    assert!(!outlives_syncerr(version_2(1), 1));
    assert!(!outlives_syncerr(Pair::ism(), 1));
}
