// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes received on a queue pair as a peer's LLC message.
//!
//! Invariant: what is parsed can be emitted and says the same again; a list has no more items than
//! were received.

use smc_wire::llc::{Body, MAX_LEN, MAX_RKEYS, Message};

/// The target.
pub fn run(data: &[u8]) {
    let Ok(message) = Message::parse(data) else { return };
    let mut again = [0xAA; MAX_LEN];
    let len = message.emit(&mut again).expect("what was parsed can be emitted");
    assert_eq!(Message::parse(&again[..len]), Ok(message));
    let items = match &message.body {
        Body::AddLink(add) => add.tail.map_or(0, |tail| tail.rkeys.iter().count() * 16),
        Body::AddLinkCont(more) => more.updates().count() * 16,
        Body::ReqAddLink(request) => request.gids.iter().count() * 16,
        Body::ConfirmRkey(confirm) => confirm.others().map_or(0, |others| others.count() * 13),
        Body::DeleteRkey(delete) => {
            assert!(delete.rkeys.iter().count() <= MAX_RKEYS);
            delete.rkeys.iter().count() * 4
        }
        _ => 0,
    };
    assert!(items <= data.len(), "{items} bytes of items in {}", data.len());
}
