// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CONFIRM RKEY: the sender has a new RMB and tells its key and address on each link.
//!
//! Invariant: kept as it came, since the answer repeats it; [`ConfirmRkey::others`] is what may be
//! believed.

use super::header::Header;
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::Rkey;

/// Where an RMB may be written through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rtoken {
    /// Its key.
    pub rkey: Rkey,
    /// Its address.
    pub vaddr: u64,
}

/// An [`Rtoken`] and its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LinkRtoken {
    /// The link's number.
    pub link: u8,
    /// The RMB on that link.
    pub rtoken: Rtoken,
}

/// CONFIRM RKEY (RFC 7609, A.3.5; `struct smc_llc_msg_confirm_rkey`); the same in version 2.
///
/// The answer is the request with [`ConfirmRkey::negative`] and [`ConfirmRkey::retry`] set if the
/// RMB was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConfirmRkey {
    /// The RMB on the link that carries the message.
    pub this_link: Rtoken,
    /// Number of other links, as the sender says it.
    pub num_others: u8,
    /// The RMB on other links; what is behind the number is kept for the answer only.
    pub other_slots: [LinkRtoken; ConfirmRkey::MAX_OTHERS],
    /// Answer: the RMB was not taken.
    pub negative: bool,
    /// Answer: the request may be repeated.
    pub retry: bool,
}

const NEGATIVE: u8 = 0x20;
const RETRY: u8 = 0x10;

impl ConfirmRkey {
    /// Other links in one message: a link group has three at most.
    pub const MAX_OTHERS: usize = 2;

    /// The request for an RMB; of `others` the first two are taken.
    pub fn request(this_link: Rtoken, others: impl IntoIterator<Item = LinkRtoken>) -> Self {
        let mut request = Self { this_link, ..Self::default() };
        for (slot, other) in request.other_slots.iter_mut().zip(others) {
            *slot = other;
            request.num_others += 1;
        }
        request
    }

    /// The RMB on the other links.
    ///
    /// # Errors
    /// [`Error::Field`] if there would be more than three, where Linux answers
    /// "not taken, repeat" (`smc_llc_rmt_conf_rkey`), or for a link number 0, which Linux would take
    /// for an unused link's.
    pub fn others(&self) -> Result<impl Iterator<Item = LinkRtoken> + use<>, Error> {
        if self.num_others > 3 {
            let (field, value) = ("confirm_rkey.num_rkeys", self.num_others.into());
            return Err(Error::Field { field, value, allowed: "0 to 3" });
        }
        let others = self.other_slots.into_iter().take(self.num_others.into());
        if others.clone().any(|other| other.link == 0) {
            let field = "confirm_rkey.link_id";
            return Err(Error::Field { field, value: 0, allowed: "1 to 255" });
        }
        Ok(others)
    }

    pub(super) fn parse(header: &Header, reader: &mut Reader) -> Result<Self, Error> {
        let LinkRtoken { link: num_others, rtoken: this_link } = LinkRtoken::parse(reader)?;
        Ok(Self {
            this_link,
            num_others,
            other_slots: [LinkRtoken::parse(reader)?, LinkRtoken::parse(reader)?],
            negative: header.has(NEGATIVE),
            retry: header.has(RETRY),
        })
    }

    pub(super) fn emit(&self, header: &mut Header, writer: &mut Writer) -> Result<(), Error> {
        header.set(NEGATIVE, self.negative);
        header.set(RETRY, self.retry);
        LinkRtoken { link: self.num_others, rtoken: self.this_link }.emit(writer)?;
        self.other_slots.iter().try_for_each(|other| other.emit(writer))
    }
}

impl LinkRtoken {
    fn parse(reader: &mut Reader) -> Result<Self, Error> {
        let (link, rkey) = (reader.u8()?, Rkey(reader.u32()?));
        Ok(Self { link, rtoken: Rtoken { rkey, vaddr: reader.u64()? } })
    }

    fn emit(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.u8(self.link)?;
        writer.u32(self.rtoken.rkey.0)?;
        writer.u64(self.rtoken.vaddr)
    }
}
