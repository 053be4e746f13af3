// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a peer may not do to connections that are not its own.
//!
//! Invariant: each test's victim is an established connection of another link group or another peer.

use smc_proto::endpoint::Path;
use smc_proto::smcr::Received;
use smc_wire::cdc;

use smc_wire::id::AlertToken;

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
