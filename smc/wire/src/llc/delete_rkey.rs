// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! DELETE RKEY: RMBs of the sender are no more.
//!
//! Invariant: the keys are those that were received.

use super::header::{Header, Version};
use super::{List, MAX_RKEYS};
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::Rkey;

/// DELETE RKEY (RFC 7609, A.3.7; `struct smc_llc_msg_delete_rkey` and `…_v2`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeleteRkey<'a> {
    /// Number of keys as the sender says it: at most 8 in version 1, 255 in version 2. An answer in
    /// version 2 repeats the number without the keys.
    pub num_rkeys: u8,
    /// Answer, version 1: a bit for each key that was not known, the first key's the highest;
    /// version 2: how many were not known.
    pub unknown: u8,
    /// Answer: some key was not known.
    pub negative: bool,
    /// Keys on the link that carries the message.
    pub rkeys: List<'a, Rkey>,
}

const NEGATIVE: u8 = 0x20;

impl<'a> DeleteRkey<'a> {
    /// Keys in a version 1 message.
    pub const MAX_V1: usize = 8;

    /// The request for these keys. Linux sends one at a time.
    pub fn request(rkeys: &'a [Rkey]) -> Self {
        let num_rkeys = u8::try_from(rkeys.len()).unwrap_or(u8::MAX);
        Self { num_rkeys, unknown: 0, negative: false, rkeys: List::new(rkeys) }
    }

    /// The answer to this request, `is_unknown` telling each key (`smc_llc_rmt_delete_rkey`).
    #[must_use]
    pub fn answer(&self, version: Version, is_unknown: impl FnMut(Rkey) -> bool) -> Self {
        let unknown = self.rkeys.iter().map(is_unknown);
        let (unknown, rkeys) = match version {
            Version::V1 => {
                let bits = unknown.zip(0..8).map(|(on, nth)| if on { 0x80 >> nth } else { 0 });
                (bits.sum(), self.rkeys)
            }
            Version::V2 => (unknown.fold(0u8, |n, on| n.saturating_add(on.into())), List::EMPTY),
        };
        Self { num_rkeys: self.num_rkeys, unknown, negative: unknown != 0, rkeys }
    }

    /// Bytes of the message, if it is not padded.
    pub(super) fn len(&self) -> usize {
        8 + self.rkeys.wire_len()
    }

    pub(super) fn parse(header: &Header, reader: &mut Reader<'a>) -> Result<Self, Error> {
        let (num_rkeys, unknown) = (reader.u8()?, reader.u8()?);
        reader.take(2)?;
        let max = Self::max(header.kind.version());
        let rkeys = List::parse(reader, usize::from(num_rkeys).min(max))?;
        Ok(Self { num_rkeys, unknown, negative: header.has(NEGATIVE), rkeys })
    }

    pub(super) fn emit(&self, header: &mut Header, writer: &mut Writer) -> Result<(), Error> {
        let count = self.rkeys.len();
        if count > Self::max(header.kind.version()) {
            let (field, value) = ("delete_rkey.num_rkeys", count as u64);
            return Err(Error::Field { field, value, allowed: "8 (version 1), 255 (version 2)" });
        }
        header.set(NEGATIVE, self.negative);
        writer.u8(self.num_rkeys)?;
        writer.u8(self.unknown)?;
        writer.zeros(2)?;
        self.rkeys.emit(writer)
    }

    const fn max(version: Version) -> usize {
        match version {
            Version::V1 => Self::MAX_V1,
            Version::V2 => MAX_RKEYS,
        }
    }
}
