// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ADD LINK CONTINUATION: in version 1 the ends tell each other, two by two, their keys on the new
//! link.
//!
//! Invariant: a message carries the lesser of two and what its count says is left.

use super::{Item, List, RkeyUpdate};
use crate::Error;
use crate::bytes::{Reader, Writer};

/// ADD LINK CONTINUATION (RFC 7609, A.3.3; `struct smc_llc_msg_add_link_cont`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AddLinkCont {
    /// The new link's number.
    pub link: u8,
    /// Keys that the sender has still to tell, those of this message included.
    pub remaining: u8,
    updates: [RkeyUpdate; AddLinkCont::MAX],
}

impl AddLinkCont {
    /// Keys in one message (`SMC_LLC_RKEYS_PER_CONT_MSG`).
    pub const MAX: usize = 2;

    /// The message for the next of the sender's keys: all that are still to be told, of which the
    /// first two go.
    pub fn next(link: u8, keys: impl ExactSizeIterator<Item = RkeyUpdate>) -> Self {
        let remaining = u8::try_from(keys.len()).unwrap_or(u8::MAX);
        let mut updates = [RkeyUpdate::default(); Self::MAX];
        for (slot, key) in updates.iter_mut().zip(keys) {
            *slot = key;
        }
        Self { link, remaining, updates }
    }

    /// The keys that this message tells: at most two.
    pub fn updates(&self) -> impl Iterator<Item = RkeyUpdate> + use<> {
        self.updates.into_iter().take(self.remaining.into())
    }

    /// Keys that the sender will tell in further messages.
    pub fn left(&self) -> u8 {
        self.remaining.saturating_sub(2)
    }

    pub(super) fn parse(reader: &mut Reader) -> Result<Self, Error> {
        let (link, remaining) = (reader.u8()?, reader.u8()?);
        reader.take(2)?;
        let mut updates = [RkeyUpdate::default(); Self::MAX];
        for slot in &mut updates {
            *slot = RkeyUpdate::from_wire(reader.array()?);
        }
        Ok(Self { link, remaining, updates })
    }

    pub(super) fn emit(&self, writer: &mut Writer) -> Result<(), Error> {
        writer.u8(self.link)?;
        writer.u8(self.remaining)?;
        writer.zeros(2)?;
        List::new(&self.updates).emit(writer)
    }
}
