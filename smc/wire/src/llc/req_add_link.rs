// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! REQUEST ADD LINK: a version 2 client asks the server for a further link.
//!
//! Invariant: the GIDs are those that were received.

use super::List;
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::RoceGid;

/// REQUEST ADD LINK (`struct smc_llc_msg_req_add_link_v2`).
///
/// The answer has no GIDs and means that no link will be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReqAddLink<'a> {
    /// Number of GIDs as the sender says it.
    pub gid_cnt: u8,
    /// The client's ports. Linux sends two, and reads the first whatever the count is.
    pub gids: List<'a, RoceGid>,
}

impl<'a> ReqAddLink<'a> {
    /// The request with these GIDs, at most 255.
    pub fn new(gids: &'a [RoceGid]) -> Self {
        let gid_cnt = u8::try_from(gids.len()).unwrap_or(u8::MAX);
        Self { gid_cnt, gids: List::new(gids) }
    }

    /// Bytes of the message, if it is not padded.
    pub(super) fn len(&self) -> usize {
        28 + self.gids.wire_len()
    }

    pub(super) fn parse(reader: &mut Reader<'a>) -> Result<Self, Error> {
        reader.take(20)?;
        let gid_cnt = reader.u8()?;
        reader.take(3)?;
        Ok(Self { gid_cnt, gids: List::parse(reader, gid_cnt.into())? })
    }

    pub(super) fn emit(&self, writer: &mut Writer) -> Result<(), Error> {
        let count = self.gids.len();
        if count > usize::from(u8::MAX) {
            let (field, value) = ("req_add_link.gid_cnt", count as u64);
            return Err(Error::Field { field, value, allowed: "0 to 255" });
        }
        writer.zeros(20)?;
        writer.u8(self.gid_cnt)?;
        writer.zeros(3)?;
        self.gids.emit(writer)
    }
}
