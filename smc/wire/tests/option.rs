// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The TCP option against `smc_options_write` and `tcp_parse_options`.
//!
//! Invariant: every accepted and every refused form is a row of a table.

use proptest::prelude::*;
use smc_wire::tcp_option::{MAGIC, OPTION, is_offered};

// RFC 7609, A.1
#[test]
fn linux_writes_eight_bytes() {
    assert_eq!(OPTION, [1, 1, 254, 6, 0xE2, 0xD4, 0xC3, 0xD9]);
    assert!(is_offered(&OPTION));
}

// RFC 7609, A.1
#[test]
fn the_option_is_found_where_linux_finds_it() {
    let cases: [(&[u8], bool, &str); 15] = [
        (&[], false, "no options"),
        (&[2, 4, 5, 0xB4, 254, 6, 0xE2, 0xD4, 0xC3, 0xD9], true, "behind an MSS"),
        (&[254, 8, 0xE2, 0xD4, 0xC3, 0xD9, 0, 0], true, "longer, even"),
        (&[254, 7, 0xE2, 0xD4, 0xC3, 0xD9, 0], false, "odd"),
        (&[254, 4, 0xE2, 0xD4, 0xC3, 0xD9], false, "the magic is outside the option"),
        (&[254, 6, 0xE2, 0xD4, 0xC3], false, "truncated"),
        (&[254, 6, 0xE2, 0xD4, 0xC3, 0xC4], false, "SMCD"),
        (&[253, 6, 0xE2, 0xD4, 0xC3, 0xD9], false, "another kind"),
        (&[0, 254, 6, 0xE2, 0xD4, 0xC3, 0xD9], false, "behind the end of the list"),
        (&[254, 4, 0xF9, 0x89, 254, 6, 0xE2, 0xD4, 0xC3, 0xD9], true, "behind a fast open"),
        (&[254, 1, 254, 6, 0xE2, 0xD4, 0xC3, 0xD9], false, "behind a length below 2"),
        (&[254, 0], false, "a length of 0"),
        (&[254], false, "no length"),
        (&[254, 2, 254, 6, 0xE2, 0xD4, 0xC3, 0xD9], true, "behind an empty option"),
        (&[8, 10, 0xFE, 6, 0xE2, 0xD4, 0xC3, 0xD9, 0, 0], false, "inside a time stamp"),
    ];
    for (options, expected, what) in cases {
        assert_eq!(is_offered(options), expected, "{what}");
    }
}

/// An option that is not SMC's and does not end the list.
fn other_option() -> impl Strategy<Value = Vec<u8>> {
    let with_length = (2u8..=253, proptest::collection::vec(any::<u8>(), 0..12));
    prop_oneof![
        Just(vec![1]),
        with_length.prop_map(|(kind, data)| {
            let len = u8::try_from(2 + data.len()).unwrap_or(u8::MAX);
            [&[kind, len], &data[..]].concat()
        }),
    ]
}

proptest! {
    // RFC 7609, A.1
    #[test]
    fn it_is_found_among_other_options(
        before in proptest::collection::vec(other_option(), 0..8),
        after in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let before = before.concat();
        prop_assert!(!is_offered(&before));
        prop_assert!(is_offered(&[&before[..], &OPTION, &after].concat()));
    }

    #[test]
    fn any_options_are_searched(options in proptest::collection::vec(any::<u8>(), 0..40)) {
        let found = is_offered(&options);
        prop_assert!(!found || options.windows(4).any(|bytes| bytes == MAGIC));
    }
}
