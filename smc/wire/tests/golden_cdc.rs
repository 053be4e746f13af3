// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CDC that Linux sent comes back byte for byte.
//!
//! Invariant: every captured message and area is looked at.

// The captures are a little-endian host's.
#![cfg(target_endian = "little")]
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use smc_golden::Golden;
use smc_wire::cdc::{self, ConnectionState, ProducerFlags, Smcd, Smcr};

fn captured(carried_by: &str) -> Vec<Golden> {
    let is_cdc = |golden: &Golden| {
        golden.note("carried by").is_some_and(|by| by.starts_with(carried_by))
            && golden.bytes.first() == Some(&cdc::TYPE)
    };
    let captured: Vec<_> = smc_golden::all().into_iter().filter(is_cdc).collect();
    assert!(!captured.is_empty(), "no captures of {carried_by}");
    captured
}

// row 60
#[test]
fn smcr_messages_come_back() {
    for golden in captured("RoCE") {
        let message = Smcr::parse(&golden.bytes);
        let message = message.unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        let mut bytes = [0xAA; Smcr::LEN];
        message.emit(&mut bytes).unwrap();
        assert_eq!(bytes[..], golden.bytes, "{}: {message:?}", golden.name);
    }
}

// rows 36, 39
#[test]
fn smcd_areas_come_back() {
    for golden in captured("move_data") {
        let area = Smcd::parse(&golden.bytes);
        let area = area.unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        let mut bytes = [0xAA; Smcd::LEN];
        area.emit(&mut bytes).unwrap();
        assert_eq!(bytes[..], golden.bytes, "{}: {area:?}", golden.name);
    }
}

// row 39
#[test]
fn linux_sent_flags_and_closed() {
    let areas: Vec<Smcd> =
        captured("move_data").iter().map(|golden| Smcd::parse(&golden.bytes).unwrap()).collect();
    assert!(areas.iter().any(|area| area.state.contains(ConnectionState::CLOSED)));
    assert!(areas.iter().any(|area| area.flags.contains(ProducerFlags::URGENT_PRESENT)));
}
