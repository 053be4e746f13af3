// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! LLC messages that Linux sent come back byte for byte.
//!
//! Invariant: every captured message is looked at, and no type that was captured is unknown.

// The captures are a little-endian host's.
#![cfg(target_endian = "little")]
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use smc_golden::Golden;
use smc_wire::cdc;
use smc_wire::llc::{Body, MAX_LEN, Message, Type};

/// What RoCE carried and is not CDC.
fn captured() -> Vec<Golden> {
    let is_llc = |golden: &Golden| {
        golden.note("carried by").is_some_and(|by| by.starts_with("RoCE"))
            && golden.bytes.first() != Some(&cdc::TYPE)
    };
    smc_golden::all().into_iter().filter(is_llc).collect()
}

fn parsed(golden: &Golden) -> Message<'_> {
    let message = Message::parse(&golden.bytes);
    message.unwrap_or_else(|error| panic!("{}: {error}", golden.name))
}

// rows 59, 62, 63, 64, 65, 66, 67, 70, 73
#[test]
fn what_linux_sent_comes_back() {
    for golden in captured() {
        let message = parsed(&golden);
        assert!(!matches!(message.body, Body::Unknown(_)), "{}: {message:?}", golden.name);
        let mut bytes = [0xAA; MAX_LEN];
        let len = message.emit(&mut bytes).unwrap();
        assert_eq!(bytes.get(..len), Some(&*golden.bytes), "{}: {message:?}", golden.name);
    }
}

#[test]
fn every_type_of_both_versions_was_captured() {
    let kinds: BTreeSet<u8> =
        captured().iter().map(|golden| parsed(golden).kind().unwrap().0).collect();
    let known = (0..=255).map(Type).filter(|kind| kind.is_known());
    // Linux never sends the continuation of CONFIRM RKEY.
    for kind in known.filter(|kind| *kind != Type::CONFIRM_RKEY_CONT) {
        assert!(kinds.contains(&kind.0), "{kind}: {kinds:x?}");
    }
}
