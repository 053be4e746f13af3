// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first four bytes of each LLC message.
//!
//! Invariant: version 2's length is in the host's order, as Linux has it.

use core::fmt;

use super::LEN;
use crate::Error;
use crate::bytes::{Reader, Writer};

/// The LLC version of a link group (RFC 7609: 1; its type bytes have a version nibble of 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// SMC version 1.
    V1,
    /// SMC version 2 and 2.1.
    V2,
}

/// A message's first byte: the version in the high nibble, 0 or 2, and the type in the low one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Type(pub u8);

impl Type {
    /// A link works in both directions.
    pub const CONFIRM_LINK: Self = Self(0x01);
    /// A further link.
    pub const ADD_LINK: Self = Self(0x02);
    /// Keys on the further link; version 1 only.
    pub const ADD_LINK_CONT: Self = Self(0x03);
    /// A link, or all, shall go.
    pub const DELETE_LINK: Self = Self(0x04);
    /// The client asks for a further link; version 2 only.
    pub const REQ_ADD_LINK: Self = Self(0x05);
    /// A new RMB.
    pub const CONFIRM_RKEY: Self = Self(0x06);
    /// Are you there?
    pub const TEST_LINK: Self = Self(0x07);
    /// More of a CONFIRM RKEY; version 1 only.
    pub const CONFIRM_RKEY_CONT: Self = Self(0x08);
    /// RMBs that are no more.
    pub const DELETE_RKEY: Self = Self(0x09);

    /// The type without its version.
    #[must_use]
    pub const fn base(self) -> Self {
        Self(self.0 & 0x0F)
    }

    /// The same type in `version`.
    #[must_use]
    pub const fn of(self, version: Version) -> Self {
        match version {
            Version::V1 => self.base(),
            Version::V2 => Self(self.0 & 0x0F | 0x20),
        }
    }

    /// The version whose layout the header has: version 1 only if the nibble is 0.
    pub const fn version(self) -> Version {
        if self.0 & 0xF0 == 0 { Version::V1 } else { Version::V2 }
    }

    /// Whether Linux has a handler for it (`smc_llc_rx_handlers`).
    pub const fn is_known(self) -> bool {
        matches!(self.0, 0x01..=0x04 | 0x06..=0x09 | 0x21 | 0x22 | 0x24..=0x27 | 0x29)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if !self.is_known() {
            return write!(f, "unknown LLC type {:#04x}", self.0);
        }
        let name = match self.base() {
            Self::CONFIRM_LINK => "CONFIRM LINK",
            Self::ADD_LINK => "ADD LINK",
            Self::ADD_LINK_CONT => "ADD LINK CONTINUATION",
            Self::DELETE_LINK => "DELETE LINK",
            Self::REQ_ADD_LINK => "REQUEST ADD LINK",
            Self::CONFIRM_RKEY => "CONFIRM RKEY",
            Self::TEST_LINK => "TEST LINK",
            Self::CONFIRM_RKEY_CONT => "CONFIRM RKEY CONTINUATION",
            _ => "DELETE RKEY",
        };
        match self.version() {
            Version::V1 => f.write_str(name),
            Version::V2 => write!(f, "{name} v2"),
        }
    }
}

/// The header's content (`struct smc_llc_hdr`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: Type,
    /// Version 1: length, then the reject reason in the low nibble. Version 2: `length_v2`.
    middle: [u8; 2],
    flags: u8,
}

const RESPONSE: u8 = 0x80;

impl Header {
    pub(super) const LEN: usize = 4;

    pub(super) fn new(kind: Type, response: bool) -> Self {
        Self { kind, middle: [0; 2], flags: if response { RESPONSE } else { 0 } }
    }

    pub(super) fn parse(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { kind: Type(reader.u8()?), middle: reader.array()?, flags: reader.u8()? })
    }

    /// What `smc_llc_rx_handler` checks.
    pub(super) fn check_length(&self, received: usize) -> Result<(), Error> {
        if received < LEN {
            return Err(Error::Short { what: "LLC message", need: LEN, have: received });
        }
        let [length, _] = self.middle;
        let (value, right, allowed) = match self.kind.version() {
            Version::V1 => (length.into(), usize::from(length) == LEN, "44"),
            Version::V2 => {
                let length = u16::from_ne_bytes(self.middle);
                (length.into(), usize::from(length) >= LEN, "44 or more")
            }
        };
        if right { Ok(()) } else { Err(Error::Field { field: "llc.length", value, allowed }) }
    }

    pub(super) fn response(&self) -> bool {
        self.has(RESPONSE)
    }

    /// Whether one of `flags` is set.
    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Sets `flags` if `on`.
    pub(super) fn set(&mut self, flags: u8, on: bool) {
        if on {
            self.flags |= flags;
        }
    }

    /// Version 1's reject reason; version 2's length stands in its place.
    pub(super) fn reject_reason(&self) -> u8 {
        match (self.kind.version(), self.middle) {
            (Version::V1, [_, reason]) => reason & 0x0F,
            (Version::V2, _) => 0,
        }
    }

    pub(super) fn set_reject_reason(&mut self, reason: u8) {
        self.middle = [0, reason & 0x0F];
    }

    /// Writes the header over the first bytes of a message of `len` bytes.
    pub(super) fn emit(&self, len: usize, bytes: &mut [u8]) -> Result<(), Error> {
        let [_, reason] = self.middle;
        let middle = match self.kind.version() {
            Version::V1 => [u8::try_from(len).unwrap_or(u8::MAX), reason],
            Version::V2 => u16::try_from(len).unwrap_or(u16::MAX).to_ne_bytes(),
        };
        let mut writer = Writer::new("LLC header", bytes);
        writer.u8(self.kind.0)?;
        writer.put(&middle)?;
        writer.u8(self.flags)
    }
}

/// A link number that is given to a link: not 0.
pub(super) fn assigned(field: &'static str, number: u8) -> Result<u8, Error> {
    if number == 0 {
        return Err(Error::Field { field, value: 0, allowed: "1 to 255" });
    }
    Ok(number)
}
