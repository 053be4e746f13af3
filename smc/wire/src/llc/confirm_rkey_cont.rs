// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CONFIRM RKEY CONTINUATION: for link groups of more than three links, which there are not.
//!
//! Invariant: carries bytes and gives them no meaning.

use crate::Error;
use crate::bytes::{Reader, Writer};

/// CONFIRM RKEY CONTINUATION (RFC 7609, A.3.6). Linux never sends it, and ignores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConfirmRkeyCont {
    /// All behind the header.
    pub content: [u8; 40],
}

impl ConfirmRkeyCont {
    pub(super) fn parse(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { content: reader.array()? })
    }

    pub(super) fn emit(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.put(&self.content)
    }
}
