// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! DELETE LINK: a link of the group, or the whole group, shall go.
//!
//! Invariant: a link number beside "all" means nothing.

use core::fmt;

use super::header::Header;
use crate::Error;
use crate::bytes::{Reader, Writer};

/// DELETE LINK (RFC 7609, A.3.4; `struct smc_llc_msg_del_link`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeleteLink {
    /// What shall go.
    pub target: DeleteTarget,
    /// Whether the sender still serves the link until it is gone.
    pub orderly: bool,
    /// Why; in an answer 0 if it is done.
    pub reason: DeleteReason,
}

/// What a [`DeleteLink`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeleteTarget {
    /// The whole link group.
    All,
    /// The link of this number. 0 is the number of no link.
    Link(u8),
}

/// Why a link goes, or why it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeleteReason(pub u32);

impl DeleteReason {
    /// None: the answer that it is done.
    pub const NONE: Self = Self(0);
    /// The path was lost.
    pub const LOST_PATH: Self = Self(0x0001_0000);
    /// The operator ends it.
    pub const OPERATOR: Self = Self(0x0002_0000);
    /// The program ends it: nothing uses it.
    pub const PROGRAM: Self = Self(0x0003_0000);
    /// The peer broke the protocol.
    pub const PROTOCOL_VIOLATION: Self = Self(0x0004_0000);
    /// There are two symmetric links now.
    pub const NO_ASYMMETRIC_NEEDED: Self = Self(0x0005_0000);
    /// Answer: no link has that number.
    pub const UNKNOWN_LINK: Self = Self(0x0010_0000);
    /// Answer: there is no such link group.
    pub const UNKNOWN_GROUP: Self = Self(0x0020_0000);
}

impl fmt::Display for DeleteReason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match *self {
            Self::NONE => "no reason given",
            Self::LOST_PATH => "lost path",
            Self::OPERATOR => "operator initiated termination",
            Self::PROGRAM => "program initiated termination",
            Self::PROTOCOL_VIOLATION => "protocol violation",
            Self::NO_ASYMMETRIC_NEEDED => "asymmetric link no longer needed",
            Self::UNKNOWN_LINK => "unknown link number",
            Self::UNKNOWN_GROUP => "unknown link group",
            Self(other) => return write!(f, "unknown reason {other:#010x}"),
        })
    }
}

const ALL: u8 = 0x40;
const ORDERLY: u8 = 0x20;

impl DeleteLink {
    pub(super) fn parse(header: &Header, reader: &mut Reader) -> Result<Self, Error> {
        let link = reader.u8()?;
        let reason = DeleteReason(reader.u32()?);
        let target = if header.has(ALL) { DeleteTarget::All } else { DeleteTarget::Link(link) };
        Ok(Self { target, orderly: header.has(ORDERLY), reason })
    }

    pub(super) fn emit(&self, header: &mut Header, writer: &mut Writer) -> Result<(), Error> {
        header.set(ORDERLY, self.orderly);
        let link = match self.target {
            DeleteTarget::All => {
                header.set(ALL, true);
                0
            }
            DeleteTarget::Link(link) => link,
        };
        writer.u8(link)?;
        writer.u32(self.reason.0)
    }
}
