// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Link layer control: the messages with which the two ends of an SMC-R link group manage its links
//! and the keys of its memory.
//!
//! Invariant: what a list's count claims is never believed beyond the bytes that were received.
//!
//! A message is 44 bytes; some of version 2 are longer. All begin with a [header](Type): type,
//! length, flags. What `net/smc/smc_llc.c` sends is emitted byte for byte; what it drops silently
//! because of its length does not parse, and a type that it has no handler for is a
//! [`Body::Unknown`]. Values that would name no link or no MTU do not parse either.
//!
//! | Message | Type | Source |
//! |---|---|---|
//! | [`ConfirmLink`] | 01, 21 | RFC 7609, A.3.1 |
//! | [`AddLink`] | 02, 22 | RFC 7609, A.3.2 |
//! | [`AddLinkCont`] | 03 | RFC 7609, A.3.3 |
//! | [`DeleteLink`] | 04, 24 | RFC 7609, A.3.4 |
//! | [`ReqAddLink`] | 25 | SMC version 2; `smc_llc_send_request_add_link` |
//! | [`ConfirmRkey`] | 06, 26 | RFC 7609, A.3.5 |
//! | [`TestLink`] | 07, 27 | RFC 7609, A.3.8 |
//! | [`ConfirmRkeyCont`] | 08 | RFC 7609, A.3.6 |
//! | [`DeleteRkey`] | 09, 29 | RFC 7609, A.3.7 |

mod add_link;
mod add_link_cont;
mod confirm_link;
mod confirm_rkey;
mod confirm_rkey_cont;
mod delete_link;
mod delete_rkey;
mod header;
mod list;
mod req_add_link;
mod test_link;

pub use add_link::{AddLink, AddLinkTail, RejectReason};
pub use add_link_cont::AddLinkCont;
pub use confirm_link::ConfirmLink;
pub use confirm_rkey::{ConfirmRkey, LinkRtoken, Rtoken};
pub use confirm_rkey_cont::ConfirmRkeyCont;
pub use delete_link::{DeleteLink, DeleteReason, DeleteTarget};
pub use delete_rkey::DeleteRkey;
pub use header::{Type, Version};
pub use list::{Item, List, RkeyUpdate};
pub use req_add_link::ReqAddLink;
pub use test_link::TestLink;

use crate::Error;
use crate::bytes::{Reader, Writer};
use header::Header;

/// Bytes of a message without a tail, and the least that must have been received.
pub const LEN: usize = 44;

/// Bytes of the longest message: an [`AddLink`] with 255 keys.
pub const MAX_LEN: usize = AddLink::MAX_LEN;

/// Keys that a list may hold: a link group has at most as many RMBs.
pub const MAX_RKEYS: usize = 255;

/// A message, as it was received or shall be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The version of the link group it belongs to.
    pub version: Version,
    /// Whether it answers a request.
    pub response: bool,
    /// What it says.
    pub body: Body<'a>,
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A link works in both directions.
    ConfirmLink(ConfirmLink),
    /// A further link for the group.
    AddLink(AddLink<'a>),
    /// Keys on the further link, in version 1.
    AddLinkCont(AddLinkCont),
    /// A link, or all, shall go.
    DeleteLink(DeleteLink),
    /// The client asks the server for a further link.
    ReqAddLink(ReqAddLink<'a>),
    /// The sender has a new RMB.
    ConfirmRkey(ConfirmRkey),
    /// Are you there?
    TestLink(TestLink),
    /// More of a [`ConfirmRkey`].
    ConfirmRkeyCont(ConfirmRkeyCont),
    /// The sender's RMBs that are no more.
    DeleteRkey(DeleteRkey<'a>),
    /// A type that Linux has no handler for and drops silently.
    Unknown(Type),
}

impl<'a> Message<'a> {
    /// Reads a received message.
    ///
    /// `bytes` is all that was received; the length in the message is checked as Linux does (version
    /// 1: exactly 44; version 2: at least 44) and otherwise not used.
    ///
    /// # Errors
    /// [`Error::Short`] below 44 bytes, [`Error::Field`] for a length that is not allowed, a link
    /// number 0 where a link is named for the first time, and an MTU above 5.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("LLC message", bytes);
        let header = Header::parse(&mut reader)?;
        let kind = header.kind;
        if !kind.is_known() {
            return Ok(Self {
                version: kind.version(),
                response: header.response(),
                body: Body::Unknown(kind),
            });
        }
        header.check_length(bytes.len())?;
        let reader = &mut reader;
        let body = match kind.base() {
            Type::CONFIRM_LINK => Body::ConfirmLink(ConfirmLink::parse(&header, reader)?),
            Type::ADD_LINK => Body::AddLink(AddLink::parse(&header, reader)?),
            Type::ADD_LINK_CONT => Body::AddLinkCont(AddLinkCont::parse(reader)?),
            Type::DELETE_LINK => Body::DeleteLink(DeleteLink::parse(&header, reader)?),
            Type::REQ_ADD_LINK => Body::ReqAddLink(ReqAddLink::parse(reader)?),
            Type::CONFIRM_RKEY => Body::ConfirmRkey(ConfirmRkey::parse(&header, reader)?),
            Type::TEST_LINK => Body::TestLink(TestLink::parse(reader)?),
            Type::CONFIRM_RKEY_CONT => Body::ConfirmRkeyCont(ConfirmRkeyCont::parse(reader)?),
            Type::DELETE_RKEY => Body::DeleteRkey(DeleteRkey::parse(&header, reader)?),
            _ => Body::Unknown(kind),
        };
        Ok(Self { version: kind.version(), response: header.response(), body })
    }

    /// Bytes that [`Self::emit`] writes: 44, or more with a tail.
    pub fn buffer_len(&self) -> usize {
        let len = match &self.body {
            Body::AddLink(body) => body.len(self.version),
            Body::ReqAddLink(body) => body.len(),
            Body::DeleteRkey(body) => body.len(),
            _ => LEN,
        };
        len.max(LEN)
    }

    /// Writes the message and gives its length, [`Self::buffer_len`].
    ///
    /// # Errors
    /// [`Error::Short`] if the buffer is smaller; [`MAX_LEN`] is always enough.
    /// [`Error::Field`] for what the version has no type for or a list that is too long.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        let mut header = Header::new(self.kind()?, self.response);
        let mut writer = Writer::new("LLC message", bytes);
        writer.zeros(Header::LEN)?;
        match &self.body {
            Body::ConfirmLink(body) => body.emit(&mut header, &mut writer)?,
            Body::AddLink(body) => body.emit(&mut header, &mut writer)?,
            Body::AddLinkCont(body) => body.emit(&mut writer)?,
            Body::DeleteLink(body) => body.emit(&mut header, &mut writer)?,
            Body::ReqAddLink(body) => body.emit(&mut writer)?,
            Body::ConfirmRkey(body) => body.emit(&mut header, &mut writer)?,
            Body::TestLink(body) => body.emit(&mut writer)?,
            Body::ConfirmRkeyCont(body) => body.emit(&mut writer)?,
            Body::DeleteRkey(body) => body.emit(&mut header, &mut writer)?,
            Body::Unknown(_) => {}
        }
        writer.zeros(LEN.saturating_sub(writer.position()))?;
        let len = writer.position();
        header.emit(len, bytes)?;
        Ok(len)
    }

    /// The message's type byte.
    ///
    /// # Errors
    /// [`Error::Field`] for a body that the version does not have.
    pub fn kind(&self) -> Result<Type, Error> {
        let base = match self.body {
            Body::ConfirmLink(_) => Type::CONFIRM_LINK,
            Body::AddLink(_) => Type::ADD_LINK,
            Body::AddLinkCont(_) => Type::ADD_LINK_CONT,
            Body::DeleteLink(_) => Type::DELETE_LINK,
            Body::ReqAddLink(_) => Type::REQ_ADD_LINK,
            Body::ConfirmRkey(_) => Type::CONFIRM_RKEY,
            Body::TestLink(_) => Type::TEST_LINK,
            Body::ConfirmRkeyCont(_) => Type::CONFIRM_RKEY_CONT,
            Body::DeleteRkey(_) => Type::DELETE_RKEY,
            Body::Unknown(kind) => return Ok(kind),
        };
        let kind = base.of(self.version);
        if kind.is_known() {
            return Ok(kind);
        }
        let allowed = "01 to 04 and 06 to 09, 21, 22, 24 to 27, 29";
        Err(Error::Field { field: "llc.type", value: kind.0.into(), allowed })
    }
}
