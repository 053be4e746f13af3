// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Enterprise ids: two hosts use SMC version 2 only if they share one.
//!
//! Invariant: an [`Eid`] is one the kernel accepts (`smc_clc_ueid_valid`, net/smc/smc_clc.c).
//! Outside s390 there is no SEID, so SMC-D over an emulated device needs a common UEID.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::netlink::{Attributes, Malformed};

/// `SMC_MAX_EID_LEN`.
const LENGTH: usize = 32;
/// `SMC_NLA_EID_TABLE_ENTRY`.
const TABLE_ENTRY: u16 = 1;
/// `SMC_NLA_SEID_ENTRY`.
const SEID_ENTRY: u16 = 1;
/// `SMC_NLA_SEID_ENABLED`.
const SEID_ENABLED: u16 = 2;

/// A user-defined enterprise id (UEID).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eid {
    /// Padded with blanks, ended by a NUL: as the kernel compares and as netlink carries it.
    padded: [u8; LENGTH + 1],
}

/// Why a text is no UEID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidEid {
    /// It is empty or has more than 32 characters.
    Length(usize),
    /// It does not begin with A to Z or 0 to 9.
    First(char),
    /// This character is not allowed.
    Character(char),
}

impl fmt::Display for InvalidEid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidEid::Length(length) => write!(f, "a UEID has 1 to 32 characters, not {length}"),
            InvalidEid::First(c) => write!(f, "a UEID begins with A-Z or 0-9, not with {c:?}"),
            InvalidEid::Character(c) => {
                write!(f, "a UEID has only A-Z, 0-9, '.' and '-', not {c:?}")
            }
        }
    }
}

impl std::error::Error for InvalidEid {}

impl FromStr for Eid {
    type Err = InvalidEid;

    fn from_str(text: &str) -> Result<Self, InvalidEid> {
        let text = text.trim_end_matches(' ');
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        match text.chars().next() {
            None => return Err(InvalidEid::Length(0)),
            Some(first) if !allowed(first) => return Err(InvalidEid::First(first)),
            Some(_) => {}
        }
        if let Some(c) = text.chars().find(|&c| !allowed(c) && c != '.' && c != '-') {
            return Err(InvalidEid::Character(c));
        }
        let mut padded = [b' '; LENGTH + 1];
        padded[LENGTH] = 0;
        padded
            .get_mut(..text.len())
            .filter(|_| text.len() <= LENGTH)
            .ok_or(InvalidEid::Length(text.len()))?
            .copy_from_slice(text.as_bytes());
        Ok(Eid { padded })
    }
}

impl Eid {
    /// The attribute that names it: exactly 33 bytes, as the kernel demands.
    pub fn attribute(&self) -> (u16, &[u8]) {
        (TABLE_ENTRY, &self.padded)
    }

    /// One entry of the kernel's table, without its padding.
    pub fn parse(attributes: &Attributes<'_>) -> Result<String, Malformed> {
        Ok(attributes.text(TABLE_ENTRY))
    }
}

/// The system's enterprise id, which only s390 has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seid {
    /// The id; empty where there is none.
    pub seid: String,
    /// Whether it is used.
    pub enabled: bool,
}

impl Seid {
    /// From the kernel's answer.
    pub fn parse(attributes: &Attributes<'_>) -> Result<Self, Malformed> {
        let enabled = attributes.count(SEID_ENABLED)? != 0;
        Ok(Seid { seid: attributes.text(SEID_ENTRY), enabled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eid_is_padded_with_blanks_and_ended_by_nul() {
        let eid: Eid = "VM.POOL-1".parse().unwrap();
        let (number, bytes) = eid.attribute();
        assert_eq!(number, 1);
        assert_eq!(bytes, b"VM.POOL-1                       \0");
        let full = "A".repeat(32);
        assert_eq!(full.parse::<Eid>().unwrap().attribute().1, format!("{full}\0").as_bytes());
        assert_eq!("VM.POOL-1   ".parse::<Eid>().unwrap(), eid);
    }

    #[test]
    fn the_kernels_rules_are_checked_before_it_is_asked() {
        let refused = |text: &str| text.parse::<Eid>().unwrap_err();
        assert_eq!(refused(""), InvalidEid::Length(0));
        assert_eq!(refused("   "), InvalidEid::Length(0));
        assert_eq!(refused(&"A".repeat(33)), InvalidEid::Length(33));
        assert_eq!(refused("-A"), InvalidEid::First('-'));
        assert_eq!(refused("a"), InvalidEid::First('a'));
        assert_eq!(refused("Ab"), InvalidEid::Character('b'));
        assert_eq!(refused("A B"), InvalidEid::Character(' '));
        assert_eq!(refused("A\0"), InvalidEid::Character('\0'));
        assert_eq!(refused("AÄ"), InvalidEid::Character('Ä'));
    }
}
