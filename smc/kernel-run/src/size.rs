// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sizes as smc-tools take them: bytes, or with a K or M.
//!
//! Invariant: what parses is positive and fits a socket option.

use std::ffi::c_int;

/// What [`parse`] takes, for messages.
pub(crate) const EXPECTED: &str = "a size is a number of bytes from 1, or one with a K or M";

/// The size in bytes.
pub(crate) fn parse(text: &str) -> Result<c_int, &'static str> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (text.get(..text.len() - 1), 1 << 10),
        Some(b'm' | b'M') => (text.get(..text.len() - 1), 1 << 20),
        _ => (Some(text), 1),
    };
    let number: Option<c_int> = digits.and_then(|digits| digits.parse().ok());
    number.filter(|&number| number > 0).and_then(|n| n.checked_mul(unit)).ok_or(EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_multiply() {
        assert_eq!(parse("1"), Ok(1));
        assert_eq!(parse("65536"), Ok(65536));
        assert_eq!(parse("64k"), Ok(65536));
        assert_eq!(parse("64K"), Ok(65536));
        assert_eq!(parse("1m"), Ok(1 << 20));
        assert_eq!(parse("2047M"), Ok(2047 << 20));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "k", "0", "-1", "1g", "1 k", "kk", "2048M", "99999999999", "1é"] {
            assert_eq!(parse(text), Err(EXPECTED), "{text}");
        }
    }
}
