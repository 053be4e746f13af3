// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes as a peer's CDC, of SMC-R and of SMC-D, and as the options of its SYN.
//!
//! Invariant: what is parsed says the same again once it was emitted.

use smc_wire::cdc::{Smcd, Smcr};
use smc_wire::tcp_option::{OPTION, is_offered};

use crate::bytes::Bytes;

/// The target: the first byte says what the rest is.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.byte() % 3 {
        0 => smcr(bytes.rest()),
        1 => smcd(bytes.rest()),
        _ => options(bytes.rest()),
    }
}

fn smcr(bytes: &[u8]) {
    let Ok(message) = Smcr::parse(bytes) else { return };
    let mut again = [0xAA; Smcr::LEN];
    assert_eq!(message.emit(&mut again), Ok(Smcr::LEN));
    assert_eq!(Smcr::parse(&again), Ok(message));
}

fn smcd(bytes: &[u8]) {
    let Ok(area) = Smcd::parse(bytes) else { return };
    let mut again = [0xAA; Smcd::LEN];
    assert_eq!(area.emit(&mut again), Ok(Smcd::LEN));
    assert_eq!(Smcd::parse(&again), Ok(area));
    let (prod, cons) = area.to_halves();
    assert_eq!(Smcd::parse_halves(prod, cons), area);
}

fn options(bytes: &[u8]) {
    // Behind any options that are whole the option is found; nothing behind it matters.
    let before = is_offered(bytes);
    assert!(is_offered(&[&OPTION, bytes].concat()));
    assert!(is_offered(&[bytes, &OPTION].concat()) || !before);
}
