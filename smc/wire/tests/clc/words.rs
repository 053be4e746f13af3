// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Codes, sizes and names, and what an error says.
//!
//! Invariant: numbers are those of `net/smc/smc_clc.h`.

use smc_wire::clc::{Diagnosis, Modes, Os, Proposal, Version, hostname};
use smc_wire::size::{BufferSize, PathMtu};

use crate::samples::*;

#[test]
fn each_diagnosis_has_a_name_and_words() {
    let known = Diagnosis::ALL;
    assert_eq!(known.len(), 36);
    assert!(known.windows(2).all(|pair| pair[0] < pair[1]));
    for code in known {
        let words = code.to_string();
        assert!(words.ends_with(&format!(" ({:#010x})", code.0)));
        assert!(!words.starts_with("unknown") && code.name().is_some());
    }
    for (code, number, name) in [
        (Diagnosis::MEM, 0x0101_0000, "MEM"),
        (Diagnosis::NOSMCDEV, 0x0303_0000, "NOSMCDEV"),
        (Diagnosis::MAXLINKERR, 0x0303_000B, "MAXLINKERR"),
        (Diagnosis::NOINDIRECT, 0x030F_0000, "NOINDIRECT"),
        (Diagnosis::SYNCERR, 0x0400_0000, "SYNCERR"),
        (Diagnosis::ERR_REGBUF, 0x0999_0003, "ERR_REGBUF"),
    ] {
        assert_eq!((code.0, code.name()), (number, Some(name)));
    }
    assert_eq!(Diagnosis(7).to_string(), "unknown diagnosis (0x00000007)");
    assert_eq!(
        Diagnosis::DIFFPREFIX.to_string(),
        "the peers are in different IP subnets (0x03070000)"
    );
    assert_eq!(Diagnosis::NONE.name(), None);
}

#[test]
fn names_and_numbers() {
    assert_eq!(Os::LINUX.to_string(), "Linux");
    assert_eq!(Os::from_bits(0xF9).to_string(), "OS 9");
    assert_eq!(
        hostname("a-name-of-more-than-thirty-two-characters"),
        *b"a-name-of-more-than-thirty-two-c"
    );
    assert_eq!((Version::new(0), Version::new(16)), (None, None));
    assert_eq!(Version::new(2), Some(Version::V2));
    assert_eq!(Modes::of(false, false), None);
    for modes in [Modes::R, Modes::D, Modes::Both] {
        assert_eq!(Modes::of(modes.smcr(), modes.smcd()), Some(modes));
    }
}

#[test]
fn sizes_are_powers_of_two() {
    let all: Vec<_> = (0..16).map(BufferSize::from_bits).collect();
    assert!(all.iter().enumerate().all(|(n, size)| size.bytes() == 16384 << n));
    assert_eq!(BufferSize::MAX_SMCD.bytes(), 1 << 20);
    assert_eq!(BufferSize::covering(1, BufferSize::MAX), BufferSize::MIN);
    assert_eq!(BufferSize::covering(16385, BufferSize::MAX).bytes(), 32768);
    assert_eq!(BufferSize::covering(u32::MAX, BufferSize::MAX_SMCD), BufferSize::MAX_SMCD);
    assert_eq!(BufferSize::from_bits(0x13).bits(), 3);
    assert_eq!(BufferSize::MIN.smaller(), None);
    assert_eq!(all[3].smaller(), Some(all[2]));
    assert_eq!([PathMtu::MIN, PathMtu::M1024, PathMtu::MAX].map(PathMtu::bytes), [256, 1024, 4096]);
}

#[test]
fn an_error_says_what_where_and_what_is_allowed() {
    let bytes = bytes(|to| v2_only().emit(to));
    let text = |bytes: &[u8]| Proposal::parse(bytes).unwrap_err().to_string();
    assert_eq!(text(&with(&bytes, 80, 9)), "proposal.eid_cnt is 0x9, allowed: 0 to 8");
    assert_eq!(text(&bytes[..100]), "proposal: 224 bytes needed, 100 there");
    let trailer = "clc.trailer is 0x0, allowed: the eyecatcher of the header";
    assert_eq!(text(&[&bytes[..220], &[0; 4]].concat()), trailer);
}
