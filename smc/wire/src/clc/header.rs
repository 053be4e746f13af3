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

use crate::bytes::{Reader, Writer};
use crate::{Error, tcp_option};

/// Bytes of the header.
pub(super) const HEADER: usize = 8;
/// Bytes of the trailer.
pub(super) const TRAILER: usize = 4;

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

/// Whose message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eyecatcher {
    Smcr,
    Smcd,
}

impl Eyecatcher {
    /// "SMCR" or "SMCD" in EBCDIC.
    pub(super) const fn bytes(self) -> [u8; 4] {
        match self {
            Self::Smcr => tcp_option::MAGIC,
            Self::Smcd => [0xE2, 0xD4, 0xC3, 0xC4],
        }
    }

    /// Refuses any but `allowed`.
    pub(super) fn require(self, allowed: Self) -> Result<(), Error> {
        if self == allowed {
            return Ok(());
        }
        let words = match allowed {
            Self::Smcr => "E2D4C3D9 (SMCR)",
            Self::Smcd => "E2D4C3C4 (SMCD) in SMC-D's accept and confirm",
        };
        Err(Self::refused("clc.eyecatcher", self.bytes(), words))
    }

    /// The error for any four bytes.
    fn refused(field: &'static str, bytes: [u8; 4], allowed: &'static str) -> Error {
        Error::Field { field, value: u32::from_be_bytes(bytes).into(), allowed }
    }

    /// Reads one of the two.
    fn parse(reader: &mut Reader) -> Result<Self, Error> {
        let bytes = reader.array()?;
        [Self::Smcr, Self::Smcd].into_iter().find(|e| e.bytes() == bytes).ok_or_else(|| {
            Self::refused("clc.eyecatcher", bytes, "E2D4C3D9 (SMCR), E2D4C3C4 (SMCD)")
        })
    }
}

/// A message's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Proposal = 1,
    Accept = 2,
    Confirm = 3,
    Decline = 4,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Proposal, Self::Accept, Self::Confirm, Self::Decline];

    const fn name(self) -> &'static str {
        match self {
            Self::Proposal => "proposal",
            Self::Accept => "accept",
            Self::Confirm => "confirm",
            Self::Decline => "decline",
        }
    }

    /// Of the type byte.
    fn parse(reader: &mut Reader) -> Result<Self, Error> {
        let byte = reader.u8()?;
        let known = Self::ALL.into_iter().find(|&kind| kind as u8 == byte);
        known.ok_or(Self::refused(byte, "1 to 4"))
    }

    fn refused(byte: u8, allowed: &'static str) -> Error {
        Error::Field { field: "clc.type", value: byte.into(), allowed }
    }
}

/// The header without the length, which the reader or the writer has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) eyecatcher: Eyecatcher,
    pub(super) kind: Kind,
    pub(super) version: Version,
    /// Two bits: a proposal's modes for version 2; otherwise a flag, [`FLAG`].
    pub(super) typev2: u8,
    /// Two bits: the modes, in a proposal those for version 1.
    pub(super) typev1: u8,
}

/// In `typev2`: first contact in accept and confirm, out of sync in decline
/// (`SMC_FIRST_CONTACT_MASK`).
pub(super) const FLAG: u8 = 0b10;

impl Header {
    /// Reads the header and the length that it tells.
    pub(super) fn parse(reader: &mut Reader) -> Result<(Self, usize), Error> {
        let eyecatcher = Eyecatcher::parse(reader)?;
        let kind = Kind::parse(reader)?;
        let len = reader.u16()?;
        let last = reader.u8()?;
        let Some(version) = Version::new(last >> 4) else {
            return Err(Error::Field { field: "clc.version", value: 0, allowed: "1 or more" });
        };
        let (typev2, typev1) = ((last >> 2) & 3, last & 3);
        Ok((Self { eyecatcher, kind, version, typev2, typev1 }, len.into()))
    }

    /// Whether [`FLAG`] is set.
    pub(super) const fn flag(&self) -> bool {
        self.typev2 & FLAG != 0
    }

    /// Whether the version is 2 rather than 1, in an answer: no other was proposed.
    pub(super) fn is_v2(&self) -> Result<bool, Error> {
        match self.version {
            Version::V1 => Ok(false),
            Version::V2 => Ok(true),
            Version(n) => {
                let allowed = "1, 2 (what was proposed)";
                Err(Error::Field { field: "clc.version", value: n.into(), allowed })
            }
        }
    }

    fn emit(&self, len: u16, writer: &mut Writer) -> Result<(), Error> {
        writer.put(&self.eyecatcher.bytes())?;
        writer.u8(self.kind as u8)?;
        writer.u16(len)?;
        writer.u8(self.version.0 << 4 | (self.typev2 & 3) << 2 | (self.typev1 & 3))
    }
}

/// Opens the `kind` message that `bytes` are, and no more than that: checks header, length and
/// trailer, and gives a reader that stands behind the header and ends before the trailer.
pub(super) fn open(kind: Kind, bytes: &[u8]) -> Result<(Header, Reader<'_>), Error> {
    let (header, len) = Header::parse(&mut Reader::new(kind.name(), bytes))?;
    if header.kind != kind {
        return Err(Kind::refused(header.kind as u8, kind.name()));
    }
    if len > bytes.len() {
        return Err(Error::Short { what: kind.name(), need: len, have: bytes.len() });
    }
    let mut all = Reader::new(kind.name(), bytes);
    let inside = all.take(bytes.len().saturating_sub(TRAILER))?;
    let trailer = all.array()?;
    if len < bytes.len() || inside.len() < HEADER {
        let allowed = "the number of the message's bytes";
        return Err(Error::Field { field: "clc.length", value: len as u64, allowed });
    }
    if trailer != header.eyecatcher.bytes() {
        return Err(Eyecatcher::refused("clc.trailer", trailer, "the eyecatcher of the header"));
    }
    let mut reader = Reader::new(kind.name(), inside);
    reader.take(HEADER)?;
    Ok((header, reader))
}

/// Checks that the message has no bytes left.
pub(super) fn close(reader: Reader) -> Result<(), Error> {
    if reader.rest().is_empty() {
        return Ok(());
    }
    let value = (reader.position() + reader.rest().len() + TRAILER) as u64;
    Err(Error::Field { field: "clc.length", value, allowed: "the sum of the message's areas" })
}

/// Writes a message whose areas `body` writes. Returns its length.
pub(super) fn emit(
    header: Header,
    bytes: &mut [u8],
    body: impl FnOnce(&mut Writer) -> Result<(), Error>,
) -> Result<usize, Error> {
    let what = header.kind.name();
    let mut writer = Writer::new(what, bytes);
    writer.zeros(HEADER)?;
    body(&mut writer)?;
    writer.put(&header.eyecatcher.bytes())?;
    let len = writer.position();
    let Ok(told) = u16::try_from(len) else {
        return Err(Error::Field { field: "clc.length", value: len as u64, allowed: "16 bits" });
    };
    header.emit(told, &mut Writer::new(what, bytes))?;
    Ok(len)
}

/// Refuses a number above `max`, which `allowed` puts into words.
pub(super) fn bound(
    field: &'static str,
    value: impl Into<u64>,
    max: u64,
    allowed: &'static str,
) -> Result<(), Error> {
    let value = value.into();
    if value <= max { Ok(()) } else { Err(Error::Field { field, value, allowed }) }
}
