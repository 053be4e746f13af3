// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The eight bytes that each CLC message begins with, and the eyecatcher that it ends with.
//!
//! Invariant: the eyecatchers are one of SMC's two, in EBCDIC, and the version is not 0.
//!
//! ```text
//! 0          4    5       7
//! eyecatcher type length  version(4) typev2(2) typev1(2)
//! ```
//! (`struct smc_clc_msg_hdr`; RFC 7609, A.2 calls the low four bits flag, reserved, path.)

/// A protocol version as CLC counts them: 1 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u8);

impl Version {
    /// RFC 7609.
    pub const V1: Self = Self(1);
    /// Version 2 and its releases: 2.0 is release 0, 2.1 is release 1.
    pub const V2: Self = Self(2);

    /// A version from 1 to 15, which is what the wire can say.
    pub const fn new(version: u8) -> Option<Self> {
        if version >= 1 && version <= 15 { Some(Self(version)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Which of SMC-R and SMC-D is meant; neither is an `Option`'s `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Modes {
    /// SMC-R.
    R,
    /// SMC-D.
    D,
    /// SMC-R and SMC-D.
    Both,
}

impl Modes {
    /// `SMC_TYPE_N`: neither.
    const NEITHER: u8 = 2;

    /// The modes of two answers, `None` if both are no.
    pub const fn of(smcr: bool, smcd: bool) -> Option<Self> {
        match (smcr, smcd) {
            (true, true) => Some(Self::Both),
            (true, false) => Some(Self::R),
            (false, true) => Some(Self::D),
            (false, false) => None,
        }
    }

    /// Whether SMC-R is among them.
    pub const fn smcr(self) -> bool {
        matches!(self, Self::R | Self::Both)
    }

    /// Whether SMC-D is among them.
    pub const fn smcd(self) -> bool {
        matches!(self, Self::D | Self::Both)
    }

    /// Of the low two bits of `bits` (`SMC_TYPE_R` and so on).
    pub(super) const fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::R),
            1 => Some(Self::D),
            Self::NEITHER => None,
            _ => Some(Self::Both),
        }
    }

    /// The two bits.
    pub(super) const fn bits(modes: Option<Self>) -> u8 {
        match modes {
            Some(Self::R) => 0,
            Some(Self::D) => 1,
            None => Self::NEITHER,
            Some(Self::Both) => 3,
        }
    }
}
