// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes of a TCP stream as a peer's CLC messages.
//!
//! Invariant: what is parsed can be emitted, with the same length, and says the same again; where a
//! message ends does not depend on how much of the stream has arrived.

use smc_wire::clc::{Frame, MAX_MESSAGE, Message, frame};

/// Where the length stands, and the bytes of header and trailer.
const LENGTH: std::ops::Range<usize> = 5..7;
const HEADER: usize = 8;
const TRAILER: usize = 4;

/// The target: the bytes as they are, and once more with the length and the trailer put right, so
/// that a change in the middle reaches the message's areas.
pub fn run(data: &[u8]) {
    stream(data);
    parse(data);
    if let Some(mended) = mended(data) {
        parse(&mended);
    }
}

/// Takes the messages out of a stream, which arrives byte by byte.
fn stream(data: &[u8]) {
    let mut rest = data;
    while let Ok(Frame::Message { len }) = frame(rest) {
        assert!(len <= rest.len() && len <= MAX_MESSAGE, "more than there is");
        for arrived in 0..len {
            let Ok(Frame::More { need }) = frame(&rest[..arrived]) else {
                panic!("no message any more after {arrived} bytes");
            };
            assert!(arrived < need && need <= len, "would wait for payload");
        }
        parse(&rest[..len]);
        rest = &rest[len..];
    }
}

/// A message goes there and back.
fn parse(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    assert_eq!(frame(bytes), Ok(Frame::Message { len: bytes.len() }));
    let mut again = [0xAA; MAX_MESSAGE];
    let len = message.emit(&mut again).expect("what was parsed can be emitted");
    assert_eq!(len, bytes.len());
    assert_eq!(Message::parse(&again[..len]).as_ref(), Ok(&message));
    if let Message::Proposal(proposal) = &message
        && let Some(smcd) = proposal.v2.as_ref().and_then(|v2| v2.smcd.as_ref())
    {
        assert!(smcd.devices().count() <= smcd.entries.len());
    }
}

fn mended(data: &[u8]) -> Option<Vec<u8>> {
    if data.len() < HEADER + TRAILER {
        return None;
    }
    let mut bytes = data.to_vec();
    bytes[LENGTH].copy_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
    let (head, trailer) = bytes.split_at_mut(data.len() - TRAILER);
    trailer.copy_from_slice(&head[..TRAILER]);
    Some(bytes)
}
