// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where a message ends in a stream.
//!
//! Invariant: the stream is looked at byte by byte, as it may arrive.

use smc_wire::clc::{
    Accept, Body, Confirm, Decline, Diagnosis, Frame, MAX_MESSAGE, Message, frame,
};
use smc_wire::id::PeerId;

use crate::samples::*;

fn messages() -> Vec<Message> {
    let smcr = v2(Some(first(true, 1)), Body::Smcr(smcr()));
    let gids = Some([<_>::default(); 8].into());
    vec![
        Message::Proposal(largest()),
        Message::Proposal(v1_smcr()),
        Message::Accept(Accept(v1(true, Body::Smcd(smcd_v1())))),
        Message::Accept(Accept(smcr)),
        Message::Confirm(Confirm { common: v1(true, Body::Smcd(smcd_v1())), gids: None }),
        Message::Confirm(Confirm { common: smcr, gids }),
        Message::Decline(Decline::new(false, PeerId::default(), Diagnosis::MEM)),
        Message::Decline(Decline::new(true, PeerId::default(), Diagnosis::MEM)),
    ]
}

// row 20
#[test]
fn payload_behind_a_message_is_not_eaten() {
    for message in messages() {
        let bytes = bytes(|to| message.emit(to));
        let stream = [&bytes[..], b"payload that follows at once"].concat();
        for arrived in 0..stream.len() {
            let expected = match arrived {
                0..8 => Frame::More { need: 8 },
                _ if arrived < bytes.len() => Frame::More { need: bytes.len() },
                _ => Frame::Message { len: bytes.len() },
            };
            assert_eq!(frame(&stream[..arrived]), Ok(expected));
        }
        assert_eq!(Message::parse(&stream[..bytes.len()]), Ok(message));
    }
}

// row 20
#[test]
fn another_protocol_is_known_by_its_first_wrong_byte() {
    let eyecatcher = [0xE2, 0xD4, 0xC3];
    for right in 0..=3 {
        let stream = [&eyecatcher[..right], b"GET / HTTP/1.1"].concat();
        for arrived in 0..stream.len() {
            assert_eq!(frame(&stream[..arrived]).is_ok(), arrived <= right, "{right} {arrived}");
        }
    }
}

#[test]
fn lengths_are_bounded_by_type() {
    for (kind, min, max) in [(1, 52, MAX_MESSAGE), (2, 48, 160), (3, 48, 292), (4, 28, 44)] {
        let header = |len: usize| {
            let [high, low] = (len as u16).to_be_bytes();
            frame(&[0xE2, 0xD4, 0xC3, 0xD9, kind, high, low, 0x20])
        };
        assert_eq!(header(min), Ok(Frame::More { need: min }));
        assert_eq!(header(max), Ok(Frame::More { need: max }));
        for wrong in [0, 8, min - 1, max + 1, 0xFFFF] {
            assert_eq!(field(header(wrong)), "clc.length");
        }
    }
    let first = |kind, last| frame(&[0xE2, 0xD4, 0xC3, 0xD9, kind, 0, 52, last]);
    assert_eq!(field(first(0, 0x10)), "clc.type");
    assert_eq!(field(first(5, 0x10)), "clc.type");
    assert_eq!(field(first(1, 0x0F)), "clc.version");
}
