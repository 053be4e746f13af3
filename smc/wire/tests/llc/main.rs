// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! LLC messages against their layouts in `net/smc/smc_llc.c`.
//!
//! Invariant: expected bytes are written out, not computed with the code under test.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod bounds;
mod layout;
mod random;

use smc_wire::id::{Mac, Psn, Qpn, RoceGid};
use smc_wire::llc::{AddLink, Body, MAX_LEN, Message, Version};

/// The bytes of `message`.
fn emitted(message: &Message) -> Vec<u8> {
    // What was in the buffer must not show.
    let mut bytes = [0xAA; MAX_LEN];
    let len = message.emit(&mut bytes).unwrap();
    assert_eq!(len, message.buffer_len());
    bytes[..len].to_vec()
}

fn request(version: Version, body: Body) -> Message {
    Message { version, response: false, body }
}

fn response(version: Version, body: Body) -> Message {
    Message { version, response: true, body }
}

/// A version 1 client's request to the server to add a link, for which it has this port.
fn invitation(mac: Mac, gid: RoceGid) -> AddLink<'static> {
    let (qpn, psn) = (Qpn(0), Psn(0));
    AddLink { mac, gid, qpn, link: 0, mtu: None, psn, rejected: None, tail: None }
}

/// Bytes from pairs of hex digits, blanks between them ignored, then zeros up to `len`.
fn hex(digits: &str, len: usize) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let mut bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    assert!(bytes.len() <= len);
    bytes.resize(len, 0);
    bytes
}

/// Checks that `message` is emitted as `bytes` and `bytes` are parsed as `message`.
fn assert_bytes(message: &Message, bytes: &[u8]) {
    assert_eq!(emitted(message), bytes);
    assert_eq!(Message::parse(bytes).unwrap(), *message);
}
