// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The TCP option as Linux sent it.
//!
//! Invariant: every captured SYN and SYN-ACK is looked at.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use smc_wire::tcp_option::{OPTION, is_offered};

/// The name's end, and whether such a segment has the option.
const KINDS: [(&str, bool); 4] = [
    ("syn-option", true),
    ("syn-ack-option", true),
    ("syn-without-option", false),
    ("syn-ack-without-option", false),
];

// row 1
// RFC 7609, A.1
#[test]
fn linux_sends_the_option_as_it_is_here_and_it_is_found() {
    for (kind, expected) in KINDS {
        let mut seen = 0;
        for golden in smc_golden::all() {
            if !golden.name.ends_with(&format!("-{kind}")) {
                continue;
            }
            // The file has the option alone if there is one, the note has all options.
            assert_eq!(golden.bytes == OPTION, expected, "{}", golden.name);
            let all: Vec<u8> = golden
                .note("all options")
                .unwrap()
                .split(' ')
                .map(|byte| u8::from_str_radix(byte, 16).unwrap())
                .collect();
            assert_eq!(is_offered(&all), expected, "{}: {all:x?}", golden.name);
            seen += 1;
        }
        assert!(seen > 0, "no {kind} was captured");
    }
}
