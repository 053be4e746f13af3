// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CDC against its layouts in `net/smc/smc_cdc.h`.
//!
//! Invariant: expected bytes are written out, not computed with the code under test.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use smc_wire::Error;
use smc_wire::cdc::{ConnectionState, Cursor, ProducerFlags, Smcd, Smcr};
use smc_wire::id::AlertToken;

const SMCR: Smcr = Smcr {
    seqno: 0x0102,
    token: AlertToken(0x0304_0506),
    prod: Cursor { wrap: 0x0708, count: 0x090A_0B0C },
    cons: Cursor { wrap: 0x0D0E, count: 0x0F10_1112 },
    flags: ProducerFlags::WRITE_BLOCKED,
    state: ConnectionState::ABORTED,
};

const SMCR_BYTES: [u8; 44] = [
    0xFE, 44, 1, 2, 3, 4, 5, 6, // type, length, sequence number, token
    0, 0, 7, 8, 9, 0xA, 0xB, 0xC, // producer cursor
    0, 0, 0xD, 0xE, 0xF, 0x10, 0x11, 0x12, // consumer cursor
    0x80, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // flags, reserved
];

// row 60
// RFC 7609, A.4
#[test]
fn smcr_is_44_bytes() {
    let mut bytes = [0xAA; 50];
    assert_eq!(SMCR.emit(&mut bytes), Ok(44));
    assert_eq!(bytes[..44], SMCR_BYTES);
    assert_eq!(Smcr::parse(&SMCR_BYTES), Ok(SMCR));
}

// row 60
#[test]
fn smcr_needs_26_bytes_and_a_length_of_44() {
    for len in 0..44 {
        let parsed = Smcr::parse(&SMCR_BYTES[..len]);
        let short = Error::Short { what: "CDC message", need: 26, have: len };
        assert_eq!(parsed, if len < 26 { Err(short) } else { Ok(SMCR) });
    }
    for (at, byte, name) in [(0, 0xFD, "cdc.type"), (1, 43, "cdc.len"), (1, 45, "cdc.len")] {
        let mut bytes = SMCR_BYTES;
        bytes[at] = byte;
        let error = Smcr::parse(&bytes).unwrap_err();
        assert!(matches!(error, Error::Field { field, .. } if field == name), "{error}");
    }
}

#[test]
fn reserved_bytes_say_nothing() {
    let mut bytes = SMCR_BYTES;
    for at in [8, 9, 16, 17].into_iter().chain(26..44) {
        bytes[at] = 0xFF;
    }
    assert_eq!(Smcr::parse(&bytes), Ok(SMCR));
}

#[test]
fn a_validation_has_number_token_and_flag_only() {
    let mut bytes = [0; 44];
    Smcr::validation(0x0102, AlertToken(0x0304_0506)).emit(&mut bytes).unwrap();
    let mut expected = [0; 44];
    expected[..8].copy_from_slice(&SMCR_BYTES[..8]);
    expected[24] = 0x08;
    assert_eq!(bytes, expected);
}

const SMCD: Smcd = Smcd {
    prod: Cursor { wrap: 0x0708, count: 0x090A_0B0C },
    cons: Cursor { wrap: 0x0D0E, count: 0x0F10_1112 },
    flags: ProducerFlags(0x60),
    state: ConnectionState::DONE_WRITING,
};

/// The area on this host: little-endian numbers on a little-endian one.
fn smcd_bytes() -> [u8; 32] {
    let mut bytes = [
        0xFE, 0, 0, 0, 0, 0, 0, 0, // type, reserved
        7, 8, 9, 0xA, 0xB, 0xC, 0, 0, // producer wrap, count, no flags
        0xD, 0xE, 0xF, 0x10, 0x11, 0x12, 0x60, 0x80, // consumer wrap, count, flags
        0, 0, 0, 0, 0, 0, 0, 0, // reserved
    ];
    if cfg!(target_endian = "little") {
        for number in [8..10, 10..14, 16..18, 18..22] {
            bytes[number].reverse();
        }
    }
    bytes
}

// row 36
#[test]
fn smcd_is_32_bytes_in_the_hosts_order() {
    let mut bytes = [0xAA; 40];
    assert_eq!(SMCD.emit(&mut bytes), Ok(32));
    assert_eq!(bytes[..32], smcd_bytes());
    assert_eq!(bytes[32..], [0xAA; 8], "the ring begins behind the area");
    assert_eq!(Smcd::parse(&bytes), Ok(SMCD));
    assert!(matches!(SMCD.emit(&mut bytes[..31]), Err(Error::Short { .. })));
}

// row 36
#[test]
fn the_halves_are_the_areas_words() {
    let bytes = smcd_bytes();
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(SMCD.to_halves(), (word(Smcd::PROD_AT), word(Smcd::CONS_AT)));
    assert_eq!(Smcd::parse_halves(word(Smcd::PROD_AT), word(Smcd::CONS_AT)), SMCD);
    assert_eq!(Smcd::parse_halves(0, 0), Smcd::default(), "a new DMB");
}

// row 39
#[test]
fn flags_are_read_from_the_consumer_half() {
    let mut bytes = smcd_bytes();
    assert_eq!((bytes[14], bytes[15], bytes[22], bytes[23]), (0, 0, 0x60, 0x80));
    (bytes[14], bytes[15]) = (0xFF, 0xFF);
    assert_eq!(Smcd::parse(&bytes), Ok(SMCD));
}

#[test]
fn an_area_that_was_never_written_does_not_parse() {
    let error = Smcd::parse(&[0; 32]).unwrap_err();
    assert_eq!(error.to_string(), "cdc.type is 0x0, allowed: 0xfe");
    for len in 0..32 {
        assert!(matches!(Smcd::parse(&smcd_bytes()[..len]), Err(Error::Short { .. })));
    }
}

fn cursor() -> impl Strategy<Value = Cursor> {
    any::<(u16, u32)>().prop_map(|(wrap, count)| Cursor { wrap, count })
}

proptest! {
    // row 60
    #[test]
    fn smcr_comes_back(
        seqno: u16, token: u32, prod in cursor(), cons in cursor(), flags: u8, state: u8,
    ) {
        let (flags, state) = (ProducerFlags(flags), ConnectionState(state));
        let message = Smcr { seqno, token: AlertToken(token), prod, cons, flags, state };
        let mut bytes = [0; 44];
        message.emit(&mut bytes).unwrap();
        prop_assert_eq!(Smcr::parse(&bytes), Ok(message));
    }

    // rows 36, 39
    #[test]
    fn smcd_comes_back(prod in cursor(), cons in cursor(), flags: u8, state: u8) {
        let (flags, state) = (ProducerFlags(flags), ConnectionState(state));
        let area = Smcd { prod, cons, flags, state };
        let (first, second) = area.to_halves();
        prop_assert_eq!(Smcd::parse_halves(first, second), area);
        let mut bytes = [0; 32];
        area.emit(&mut bytes).unwrap();
        prop_assert_eq!(Smcd::parse(&bytes), Ok(area));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
        let _ = (Smcr::parse(&bytes), Smcd::parse(&bytes));
        if let [kind, len, ..] = &mut bytes[..] {
            (*kind, *len) = (0xFE, 44);
        }
        prop_assert_eq!(Smcr::parse(&bytes).is_ok(), bytes.len() >= 26);
        prop_assert_eq!(Smcd::parse(&bytes).is_ok(), bytes.len() >= 32);
    }
}
