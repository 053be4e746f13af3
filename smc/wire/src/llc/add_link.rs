// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ADD LINK: the server's offer of a further link, and the client's answer.
//!
//! Invariant: with an MTU there is a link number; the keys are those that were received.

use core::fmt;

use super::header::{Header, Version, assigned};
use super::{LEN, List, MAX_RKEYS, RkeyUpdate};
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::{Mac, Psn, Qpn, RoceGid};
use crate::size::PathMtu;

/// ADD LINK (RFC 7609, A.3.2; `struct smc_llc_msg_add_link`).
///
/// A version 1 client's invitation to add a link names its port and is otherwise 0 (`smc_llc.c:
/// smc_llc_cli_add_link_invite`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddLink<'a> {
    /// The sender's port for the new link.
    pub mac: Mac,
    /// The sender's port for the new link.
    pub gid: RoceGid,
    /// The sender's queue pair for the new link.
    pub qpn: Qpn,
    /// The new link's number, which the server gives; 0 only without an MTU.
    pub link: u8,
    /// The queue pair's MTU, the lesser of both ends' in an answer; none in an invitation.
    pub mtu: Option<PathMtu>,
    /// The first packet number of the sender's queue pair.
    pub psn: Psn,
    /// The answer is no.
    pub rejected: Option<RejectReason>,
    /// What version 2 has in place of [`AddLinkCont`](super::AddLinkCont).
    pub tail: Option<AddLinkTail<'a>>,
}

/// The end of a version 2 ADD LINK (`struct smc_llc_msg_add_link_v2_ext`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddLinkTail<'a> {
    /// Whether the sender reaches the peer without a gateway.
    pub direct: bool,
    /// The sender's GID for the new link, once more; Linux does not read it.
    pub target_gid: RoceGid,
    /// Number of keys as the sender says it, in the host's order: Linux counts connections, and so
    /// may say more than it sends.
    pub num_rkeys: u16,
    /// The sender's RMBs on the new link, at most 255.
    pub rkeys: List<'a, RkeyUpdate>,
}

impl<'a> AddLinkTail<'a> {
    /// The tail with these keys.
    pub fn new(direct: bool, target_gid: RoceGid, rkeys: &'a [RkeyUpdate]) -> Self {
        let num_rkeys = u16::try_from(rkeys.len()).unwrap_or(u16::MAX);
        Self { direct, target_gid, num_rkeys, rkeys: List::new(rkeys) }
    }
}

/// Why a link was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RejectReason(pub u8);

impl RejectReason {
    /// Not said: version 2 has no place for a reason.
    pub const UNKNOWN: Self = Self(0);
    /// The client has no other path (`SMC_LLC_REJ_RSN_NO_ALT_PATH`).
    pub const NO_ALTERNATE_PATH: Self = Self(1);
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::UNKNOWN => f.write_str("no reason given"),
            Self::NO_ALTERNATE_PATH => f.write_str("no alternate path"),
            Self(other) => write!(f, "unknown reason {other}"),
        }
    }
}

const REJECTED: u8 = 0x40;
const DIRECT: u8 = 0x80;
/// Bytes of the tail before its keys.
const TAIL: usize = 28;

impl<'a> AddLink<'a> {
    /// Bytes of the longest one.
    pub const MAX_LEN: usize = LEN + TAIL + MAX_RKEYS * 16;

    /// Bytes of the whole message.
    pub(super) fn len(&self, version: Version) -> usize {
        match (&self.tail, version) {
            (Some(tail), Version::V2) => LEN + TAIL + tail.rkeys.wire_len(),
            _ => LEN,
        }
    }

    pub(super) fn parse(header: &Header, reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mac = Mac(reader.array()?);
        reader.take(2)?;
        let gid = RoceGid(reader.array()?);
        let qpn = Qpn(reader.u24()?);
        let link = reader.u8()?;
        let mtu = match reader.u8()? & 0x0F {
            0 => None,
            bits => {
                assigned("add_link.link_num", link)?;
                Some(PathMtu::from_bits("add_link.qp_mtu", bits)?)
            }
        };
        let psn = Psn(reader.u24()?);
        let rejected = header.has(REJECTED).then(|| RejectReason(header.reject_reason()));
        reader.take(8)?;
        let tail = match header.kind.version() {
            Version::V2 if reader.rest().len() >= TAIL => Some(AddLinkTail::parse(reader)?),
            _ => None,
        };
        Ok(Self { mac, gid, qpn, link, mtu, psn, rejected, tail })
    }

    pub(super) fn emit(&self, header: &mut Header, writer: &mut Writer) -> Result<(), Error> {
        if let Some(reason) = self.rejected {
            header.set(REJECTED, true);
            header.set_reject_reason(reason.0);
        }
        writer.put(&self.mac.0)?;
        writer.zeros(2)?;
        writer.put(&self.gid.0)?;
        writer.u24(self.qpn.0)?;
        writer.u8(self.link)?;
        writer.u8(self.mtu.map_or(0, PathMtu::bits))?;
        writer.u24(self.psn.0)?;
        writer.zeros(8)?;
        match (&self.tail, header.kind.version()) {
            (Some(tail), Version::V2) => tail.emit(writer),
            _ => Ok(()),
        }
    }
}

impl<'a> AddLinkTail<'a> {
    fn parse(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let direct = reader.u8()? & DIRECT != 0;
        reader.take(1)?;
        let target_gid = RoceGid(reader.array()?);
        reader.take(8)?;
        let num_rkeys = u16::from_ne_bytes(reader.array()?);
        let rkeys = List::parse(reader, usize::from(num_rkeys).min(MAX_RKEYS))?;
        Ok(Self { direct, target_gid, num_rkeys, rkeys })
    }

    fn emit(&self, writer: &mut Writer) -> Result<(), Error> {
        let count = self.rkeys.len();
        if count > MAX_RKEYS {
            let (field, value) = ("add_link.num_rkeys", count as u64);
            return Err(Error::Field { field, value, allowed: "0 to 255" });
        }
        writer.u8(if self.direct { DIRECT } else { 0 })?;
        writer.zeros(1)?;
        writer.put(&self.target_gid.0)?;
        writer.zeros(8)?;
        writer.put(&self.num_rkeys.to_ne_bytes())?;
        self.rkeys.emit(writer)
    }
}
