// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a request is not carried out: the statuses of the wire, without OK.
//!
//! Invariant: one variant for each `ism_abi::status` but `OK`.

use core::fmt;

use ism_abi::status;

/// A request's failure; the meaning is that of the [`ism_abi::status`] of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Refusal {
    /// The request is too short, too long, or a field is out of its range.
    Invalid = status::INVALID,
    /// The command is unknown.
    Unsupported = status::UNSUPPORTED,
    /// No such member, or none that this member may talk to.
    Unreachable = status::UNREACHABLE,
    /// No such token for this member.
    NoToken = status::NO_TOKEN,
    /// A quota is used up, or no memory is left.
    NoSpace = status::NO_SPACE,
    /// The index is in use with other parameters.
    InUse = status::IN_USE,
    /// Offset and length reach past the DMB.
    OutOfRange = status::OUT_OF_RANGE,
    /// The pair's mode is another.
    WrongMode = status::WRONG_MODE,
    /// The rate or queue limit is reached.
    Busy = status::BUSY,
    /// A window could not be mapped, or guest memory not be reached.
    IoError = status::IO_ERROR,
    /// HELLO has not been sent since the last reset.
    NotReady = status::NOT_READY,
    /// The payload's CDC header is not one that a correct peer writes.
    BadCdc = status::BAD_CDC,
}

impl Refusal {
    /// The status of the wire.
    pub fn status(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "malformed request",
            Self::Unsupported => "unknown command",
            Self::Unreachable => "no such peer",
            Self::NoToken => "no such token",
            Self::NoSpace => "quota or memory used up",
            Self::InUse => "in use",
            Self::OutOfRange => "past the end of the DMB",
            Self::WrongMode => "wrong mode for this pair",
            Self::Busy => "rate limit reached",
            Self::IoError => "window or guest memory out of reach",
            Self::NotReady => "no HELLO since the last reset",
            Self::BadCdc => "bad CDC header",
        })
    }
}

impl std::error::Error for Refusal {}
