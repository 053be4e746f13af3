// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The syntax of user-defined enterprise ids.
//!
//! Invariant: what is taken here Linux takes too (`smc_clc_ueid_valid`).

use smc_wire::id::{Eid, Ueid};

/// `smc_clc_ueid_valid`, for ASCII.
fn linux_takes(eid: &[u8; 32]) -> bool {
    let text = eid.trim_ascii_end();
    let alnum = |c: &u8| c.is_ascii_uppercase() || c.is_ascii_digit();
    text.first().is_some_and(alnum) && text.iter().all(|c| alnum(c) || matches!(c, b'.' | b'-'))
}

// row 26
#[test]
fn a_table_of_strings() {
    let longest = "A234567890123456789012345678901Z";
    for good in ["A", "0", "Z9", "A.B-C", "9..", "X-", longest, "TRAILING  "] {
        let eid = Ueid::new(good).unwrap().eid();
        assert!(linux_takes(&eid.0));
        assert_eq!(eid.0.trim_ascii_end(), good.trim_end().as_bytes());
        assert_eq!(eid.to_string(), good.trim_end());
    }
    let too_long = [longest, "X"].concat();
    for bad in
        ["", " ", " A", "A B", "a", "Ab", ".A", "-A", "A_B", "A\0", "A\t", "A/", "É", &too_long]
    {
        assert!(Ueid::new(bad).is_err(), "{bad:?}");
    }
}

// row 26
#[test]
fn each_character_alone_and_second() {
    for c in 0..=127u8 {
        for prefix in ["", "A", "A "] {
            let mut padded = [b' '; 32];
            padded[..prefix.len()].copy_from_slice(prefix.as_bytes());
            padded[prefix.len()] = c;
            let taken = Ueid::from_eid(Eid(padded)).is_ok();
            // Linux takes any white space as padding; only blanks are.
            let blank = c.is_ascii_whitespace() && c != b' ';
            assert_eq!(taken, linux_takes(&padded) && !blank, "{prefix:?} {c:#x}");
        }
    }
}
