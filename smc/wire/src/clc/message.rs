// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A CLC message of any type.
//!
//! Invariant: the type byte and the variant agree.

use super::header::{Header, Kind};
use super::{Accept, Confirm, Decline, Proposal};
use crate::Error;
use crate::bytes::Reader;

/// Any CLC message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one exists at a time, and there is no heap")]
pub enum Message {
    /// Type 1.
    Proposal(Proposal),
    /// Type 2.
    Accept(Accept),
    /// Type 3.
    Confirm(Confirm),
    /// Type 4.
    Decline(Decline),
}

impl Message {
    /// Reads a message that fills `bytes`: [`frame`](super::frame) says how many they are.
    ///
    /// # Errors
    /// [`Error`] for the first field or area that breaks the format of the message's type.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (header, _) = Header::parse(&mut Reader::new("clc", bytes))?;
        match header.kind {
            Kind::Proposal => Proposal::parse(bytes).map(Self::Proposal),
            Kind::Accept => Accept::parse(bytes).map(Self::Accept),
            Kind::Confirm => Confirm::parse(bytes).map(Self::Confirm),
            Kind::Decline => Decline::parse(bytes).map(Self::Decline),
        }
    }

    /// Writes the message. Returns its length, at most [`MAX_MESSAGE`](super::MAX_MESSAGE).
    ///
    /// # Errors
    /// [`Error`] as the variant's `emit`.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        match self {
            Self::Proposal(message) => message.emit(bytes),
            Self::Accept(message) => message.emit(bytes),
            Self::Confirm(message) => message.emit(bytes),
            Self::Decline(message) => message.emit(bytes),
        }
    }
}
