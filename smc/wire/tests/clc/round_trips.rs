// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Round trips of any message, and of bytes that may be one.
//!
//! Invariant: whatever is parsed is emitted with the bytes that it came from, but for reserved bits.

use proptest::collection::vec;
use proptest::prelude::*;
use smc_wire::Error;
use smc_wire::clc::{Frame, MAX_MESSAGE, Message, Proposal, frame};

use crate::reserved::cleared;
use crate::strategies::messages;

fn emitted(message: &Message) -> Vec<u8> {
    let mut bytes = [0xAA; MAX_MESSAGE];
    let len = message.emit(&mut bytes).unwrap();
    bytes[..len].to_vec()
}

/// Parses bytes and, if they are a message, goes back. Returns whether they are one.
fn there_and_back(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(message) = Message::parse(bytes) else {
        return Ok(false);
    };
    let again = emitted(&message);
    prop_assert_eq!(cleared(&again), cleared(bytes));
    prop_assert_eq!(Message::parse(&again), Ok(message));
    prop_assert_eq!(frame(bytes), Ok(Frame::Message { len: bytes.len() }));
    Ok(true)
}

/// A change of one byte, somewhere or at one of the places that decide about the rest.
fn edits() -> impl Strategy<Value = (usize, u8)> {
    (prop_oneof![0..8usize, 0..110usize, 0..MAX_MESSAGE], prop_oneof![any::<u8>(), 0..10u8])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_message(message in messages()) {
        let bytes = emitted(&message);
        prop_assert_eq!(Message::parse(&bytes), Ok(message.clone()));
        prop_assert_eq!(frame(&bytes), Ok(Frame::Message { len: bytes.len() }));
        let mut zeroed = bytes.clone();
        if matches!(&message, Message::Proposal(Proposal { v1: None, .. })) {
            // The offset that points nowhere may not be 0, for Linux's sake (row 7).
            zeroed[39] = 0;
        }
        prop_assert_eq!(&cleared(&bytes), &zeroed, "reserved bits are 0");
        let short = message.emit(&mut vec![0; bytes.len() - 1]);
        prop_assert!(matches!(short, Err(Error::Short { .. })), "{:?}", short);
    }

    #[test]
    fn messages_with_bytes_changed(message in messages(), edits in vec(edits(), 1..4)) {
        let mut bytes = emitted(&message);
        for (at, byte) in edits {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        there_and_back(&bytes)?;
    }

    #[test]
    fn messages_with_bits_flipped(message in messages(), at in 0..MAX_MESSAGE, bit in 0..8u8) {
        let mut bytes = emitted(&message);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        there_and_back(&bytes)?;
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..700)) {
        prop_assert!(!there_and_back(&bytes)?);
        let whole = matches!(frame(&bytes), Ok(Frame::Message { .. }));
        prop_assert!(!whole);
    }

    /// A header and a trailer around any bytes, with the length that this gives.
    #[test]
    fn any_body(
        kind in 1..=4u8, last in 0x10..0x40u8, smcd: bool, body in vec(any::<u8>(), 0..300),
    ) {
        let eyecatcher = [0xE2, 0xD4, 0xC3, if smcd { 0xC4 } else { 0xD9 }];
        let len = (body.len() as u16 + 12).to_be_bytes();
        let bytes = [&eyecatcher[..], &[kind], &len, &[last], &body, &eyecatcher].concat();
        there_and_back(&bytes)?;
    }
}

/// So that the tests above test something: of any ten messages with a bit flipped, some are messages.
#[test]
fn changed_messages_are_often_messages() {
    let message = Message::Proposal(crate::samples::largest());
    let bytes = emitted(&message);
    let taken = |at: &usize| {
        let mut bytes = bytes.clone();
        bytes[*at] ^= 1;
        there_and_back(&bytes).unwrap()
    };
    assert!((0..bytes.len()).filter(taken).count() > 600);
}
