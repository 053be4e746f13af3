// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A message's name for its file, from its bytes.
//!
//! Invariant: the same kind of message has the same name, whatever addresses and keys it carries.

use std::fmt::Write as _;

/// A CLC message (net/smc/smc_clc.h).
pub(crate) fn clc(bytes: &[u8]) -> String {
    let flags = bytes.get(7).copied().unwrap_or_default();
    let version = flags >> 4;
    let path = if bytes.get(3) == Some(&0xc4) { "d" } else { "r" };
    let first = if flags & 0x08 != 0 { "-first-contact" } else { "" };
    match bytes.get(4) {
        Some(1) => {
            let types = ["r", "d", "n", "b"];
            let of = |bits: u8| types.get(usize::from(bits & 3)).copied().unwrap_or_default();
            format!("proposal-v1{}-v2{}", of(flags), of(flags >> 2))
        }
        Some(2) => format!("accept-{path}-v{version}{first}"),
        Some(3) => format!("confirm-{path}-v{version}{first}"),
        Some(4) => {
            let mut name = format!("decline-v{version}-");
            for byte in bytes.get(16..20).unwrap_or_default() {
                let _ = write!(name, "{byte:02x}");
            }
            if flags & 0x08 != 0 {
                name.push_str("-out-of-sync");
            }
            name
        }
        _ => "clc-unknown".to_owned(),
    }
}

/// What a SEND carries: CDC or LLC.
pub(crate) fn rdma(bytes: &[u8]) -> String {
    match bytes.first() {
        Some(0xfe) => {
            let flag = |at: usize| bytes.get(at).copied().unwrap_or_default();
            format!("cdc{}", cdc_flags(flag(24), flag(25)))
        }
        Some(&kind) => llc(kind, bytes),
        None => "empty".to_owned(),
    }
}

/// An LLC message (net/smc/smc_llc.c).
fn llc(kind: u8, bytes: &[u8]) -> String {
    let flags = bytes.get(3).copied().unwrap_or_default();
    let name = match kind & 0xf {
        1 => "confirm-link",
        2 => "add-link",
        3 => "add-link-cont",
        4 => "delete-link",
        5 => "req-add-link",
        6 => "confirm-rkey",
        7 => "test-link",
        8 => "confirm-rkey-cont",
        9 => "delete-rkey",
        _ => "llc-unknown",
    };
    let version = if kind >> 4 == 0 { 1 } else { kind >> 4 };
    let mut text = format!("{name}-v{version}");
    text.push_str(if flags & 0x80 != 0 { "-response" } else { "-request" });
    for (known, flag, meaning) in [
        (2, 0x40, "-reject"),
        (4, 0x40, "-all"),
        (4, 0x20, "-orderly"),
        (6, 0x20, "-negative"),
        (6, 0x10, "-retry"),
        (9, 0x20, "-negative"),
    ] {
        if kind & 0xf == known && flags & flag != 0 {
            text.push_str(meaning);
        }
    }
    text
}

/// Producer and connection state flags, as every CDC has them (net/smc/smc_cdc.h).
pub(crate) fn cdc_flags(producer: u8, state: u8) -> String {
    let mut text = String::new();
    for (flags, flag, name) in [
        (producer, 0x80, "-write-blocked"),
        (producer, 0x40, "-urgent-pending"),
        (producer, 0x20, "-urgent-present"),
        (producer, 0x10, "-update-requested"),
        (producer, 0x08, "-failover"),
        (state, 0x80, "-done-writing"),
        (state, 0x40, "-closed"),
        (state, 0x20, "-abort"),
    ] {
        if flags & flag != 0 {
            text.push_str(name);
        }
    }
    text
}
