// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accept, and what Confirm has in common with it: where the sender's receive buffer is, and how to
//! reach it.
//!
//! Invariant: the eyecatcher, the mode and the body belong together; the extension is there exactly
//! if version 2 makes a first contact; the buffer lies within 4 GiB of its RMB's or DMB's begin.

use super::FirstContact;
use super::header::{self, Eyecatcher, FLAG, Header, Kind, bound};
use super::{Modes, Version};
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::{
    AlertToken, Chid, DmbToken, Eid, IsmGid, LinkGroupId, Mac, PeerId, Psn, Qpn, Rkey, RoceGid,
};
use crate::size::{BufferSize, PathMtu};

/// An Accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept(pub AcceptConfirm);

/// What Accept and Confirm have in common (`struct smc_clc_msg_accept_confirm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptConfirm {
    /// The version, and whether a link group begins.
    pub contact: Contact,
    /// The mode and the buffer.
    pub body: Body,
}

/// Whether a link group begins with this connection, said in the version that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// Version 1.
    V1 {
        /// A link group begins.
        first: bool,
    },
    /// Version 2.
    V2 {
        /// The enterprise id that was chosen; zeros if none was needed.
        eid: Eid,
        /// `Some` if a link group begins.
        first: Option<FirstContact>,
    },
}

/// The buffer in one of the two modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// SMC-R.
    Smcr(Smcr),
    /// SMC-D.
    Smcd(Smcd),
}

/// An RMBE, and the queue pair that leads to it (`struct smcr_clc_msg_accept_confirm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Smcr {
    /// The sender's host.
    pub peer: PeerId,
    /// The sender's RoCE port.
    pub gid: RoceGid,
    /// Its MAC.
    pub mac: Mac,
    /// The sender's queue pair.
    pub qpn: Qpn,
    /// The RMB's key.
    pub rkey: Rkey,
    /// The RMBE's number in its RMB, from 1; Linux has one and sends 1.
    pub rmbe_idx: u8,
    /// What the peer's CDC messages for the sender carry.
    pub alert_token: AlertToken,
    /// The RMBE's size.
    pub size: BufferSize,
    /// The largest packet of the sender's port; in a Confirm the smaller one of both.
    pub mtu: PathMtu,
    /// The RMB's address, as RDMA writes name it.
    pub rmb_addr: u64,
    /// The queue pair's first packet number.
    pub psn: Psn,
}

/// A DMB (`struct smcd_clc_msg_accept_confirm_common`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Smcd {
    /// The sender's ISM device. Its `ext` is 0 unless `chid` is emulated.
    pub gid: IsmGid,
    /// The sender's fabric; 0 in version 1, which does not say it.
    pub chid: Chid,
    /// The DMB.
    pub token: DmbToken,
    /// The element's number in the DMB, from 0; Linux has one and sends 0.
    pub dmbe_idx: u8,
    /// The element's size; in Linux the DMB's.
    pub size: BufferSize,
    /// The sender's name for the link group.
    pub link_id: LinkGroupId,
}

impl Contact {
    /// Whether a link group begins.
    pub fn is_first(&self) -> bool {
        match self {
            Self::V1 { first } => *first,
            Self::V2 { first, .. } => first.is_some(),
        }
    }
}

impl Body {
    /// Whether it is SMC-D's.
    pub fn is_smcd(&self) -> bool {
        matches!(self, Self::Smcd(_))
    }
}

impl Smcr {
    /// Where the RMBE begins in its RMB, in bytes.
    pub fn offset(&self) -> u32 {
        self.size.bytes().saturating_mul(u32::from(self.rmbe_idx).saturating_sub(1))
    }
}

impl Accept {
    /// Reads an Accept that fills `bytes`.
    ///
    /// # Errors
    /// [`Error`] for the first field or area that breaks the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (header, mut reader) = header::open(Kind::Accept, bytes)?;
        let common = AcceptConfirm::parse(&header, &mut reader, |rest| rest.is_empty())?;
        header::close(reader)?;
        Ok(Self(common))
    }

    /// Writes the Accept as Linux does (`smc_clc_send_accept`). Returns its length, 48 to 160.
    ///
    /// # Errors
    /// [`Error::Short`] if `bytes` are too few, [`Error::Field`] if a number does not fit or is not
    /// the version's.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        header::emit(self.0.header(Kind::Accept), bytes, |w| self.0.emit(w))
    }
}

impl AcceptConfirm {
    /// Reads what follows the header. `list` tells whether bytes are what may follow.
    pub(super) fn parse(
        header: &Header,
        r: &mut Reader,
        list: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Self, Error> {
        let v2 = header.is_v2()?;
        let (body, eid) = match Modes::from_bits(header.typev1) {
            Some(Modes::R) => {
                header.eyecatcher.require(Eyecatcher::Smcr)?;
                let (smcr, eid) = Smcr::parse(r, v2)?;
                (Body::Smcr(smcr), eid)
            }
            Some(Modes::D) => {
                header.eyecatcher.require(Eyecatcher::Smcd)?;
                let (smcd, eid) = Smcd::parse(r, v2)?;
                (Body::Smcd(smcd), eid)
            }
            _ => {
                let (value, allowed) = (header.typev1.into(), "0 (SMC-R), 1 (SMC-D)");
                return Err(Error::Field { field: "accept_confirm.typev1", value, allowed });
            }
        };
        let contact = match (eid, header.flag()) {
            (None, first) => Contact::V1 { first },
            (Some(eid), false) => Contact::V2 { eid, first: None },
            (Some(eid), true) => Contact::V2 { eid, first: Some(FirstContact::parse(r, list)?) },
        };
        Ok(Self { contact, body })
    }

    pub(super) fn header(&self, kind: Kind) -> Header {
        let (eyecatcher, mode) = match self.body {
            Body::Smcr(_) => (Eyecatcher::Smcr, Modes::R),
            Body::Smcd(_) => (Eyecatcher::Smcd, Modes::D),
        };
        let version = match self.contact {
            Contact::V1 { .. } => Version::V1,
            Contact::V2 { .. } => Version::V2,
        };
        let typev2 = if self.contact.is_first() { FLAG } else { 0 };
        Header { eyecatcher, kind, version, typev2, typev1: Modes::bits(Some(mode)) }
    }

    /// Writes what follows the header.
    pub(super) fn emit(&self, w: &mut Writer) -> Result<(), Error> {
        let eid = match &self.contact {
            Contact::V1 { .. } => None,
            Contact::V2 { eid, .. } => Some(eid),
        };
        match &self.body {
            Body::Smcr(smcr) => smcr.emit(eid, w)?,
            Body::Smcd(smcd) => smcd.emit(eid, w)?,
        }
        match &self.contact {
            Contact::V2 { first: Some(first), .. } => first.emit(w),
            _ => Ok(()),
        }
    }
}

/// The largest offset at which a buffer may end: lengths of RMBs and DMBs have 32 bits.
const END: u64 = 1 << 32;

impl Smcr {
    /// The queue pair and the buffer, and the EID that only version 2 has.
    fn parse(r: &mut Reader, v2: bool) -> Result<(Self, Option<Eid>), Error> {
        let (peer, gid, mac) = (PeerId(r.array()?), RoceGid(r.array()?), Mac(r.array()?));
        let (qpn, rkey, rmbe_idx) = (Qpn(r.u24()?), Rkey(r.u32()?), r.u8()?);
        let alert_token = AlertToken(r.u32()?);
        let sizes = r.u8()?;
        let size = BufferSize::from_bits(sizes >> 4);
        let mtu = PathMtu::from_bits("accept_confirm.qp_mtu", sizes)?;
        r.take(1)?;
        let rmb_addr = r.u64()?;
        r.take(1)?;
        let psn = Psn(r.u24()?);
        let smcr =
            Self { peer, gid, mac, qpn, rkey, rmbe_idx, alert_token, size, mtu, rmb_addr, psn };
        smcr.check()?;
        if !v2 {
            return Ok((smcr, None));
        }
        let eid = Eid(r.array()?);
        r.take(8)?;
        Ok((smcr, Some(eid)))
    }

    /// Whether the RMBE has a number and is within bounds.
    fn check(&self) -> Result<(), Error> {
        let (field, allowed) = ("accept_confirm.rmbe_idx", "1 or more, and to end within 4 GiB");
        let number = u64::from(self.rmbe_idx);
        bound(field, number, END / u64::from(self.size.bytes()), allowed)?;
        if number == 0 { Err(Error::Field { field, value: number, allowed }) } else { Ok(()) }
    }

    fn emit(&self, eid: Option<&Eid>, w: &mut Writer) -> Result<(), Error> {
        self.check()?;
        bound("accept_confirm.qpn", self.qpn.0, 0xFF_FFFF, "24 bits")?;
        bound("accept_confirm.psn", self.psn.0, 0xFF_FFFF, "24 bits")?;
        w.put(&self.peer.0)?;
        w.put(&self.gid.0)?;
        w.put(&self.mac.0)?;
        w.u24(self.qpn.0)?;
        w.u32(self.rkey.0)?;
        w.u8(self.rmbe_idx)?;
        w.u32(self.alert_token.0)?;
        w.u8(self.size.bits() << 4 | self.mtu.bits())?;
        w.zeros(1)?;
        w.u64(self.rmb_addr)?;
        w.zeros(1)?;
        w.u24(self.psn.0)?;
        if let Some(eid) = eid {
            w.put(&eid.0)?;
            w.zeros(8)?;
        }
        Ok(())
    }
}

impl Smcd {
    /// The buffer, and the EID that only version 2 has.
    fn parse(r: &mut Reader, v2: bool) -> Result<(Self, Option<Eid>), Error> {
        let gid = IsmGid { gid: r.u64()?, ext: 0 };
        let (token, dmbe_idx) = (DmbToken(r.u64()?), r.u8()?);
        let size = BufferSize::from_bits(r.u8()? >> 4);
        r.take(2)?;
        let link_id = LinkGroupId(r.array()?);
        let mut smcd = Self { gid, chid: Chid::default(), token, dmbe_idx, size, link_id };
        smcd.check()?;
        if !v2 {
            r.take(12)?;
            return Ok((smcd, None));
        }
        smcd.chid = Chid(r.u16()?);
        let eid = Eid(r.array()?);
        let ext = r.u64()?;
        if smcd.chid.is_emulated() {
            smcd.gid.ext = ext;
        }
        Ok((smcd, Some(eid)))
    }

    /// Whether the element is within bounds.
    fn check(&self) -> Result<(), Error> {
        let end = END / u64::from(self.size.bytes());
        bound("accept_confirm.dmbe_idx", self.dmbe_idx, end - 1, "the element to end within 4 GiB")
    }

    fn emit(&self, eid: Option<&Eid>, w: &mut Writer) -> Result<(), Error> {
        self.check()?;
        let (gid, ext) = (self.gid.gid, self.gid.ext);
        if !self.chid.is_emulated() {
            bound("accept_confirm.gid_ext", ext, 0, "0 unless the device is emulated")?;
        }
        w.u64(gid)?;
        w.u64(self.token.0)?;
        w.u8(self.dmbe_idx)?;
        w.u8(self.size.bits() << 4)?;
        w.zeros(2)?;
        w.put(&self.link_id.0)?;
        match eid {
            Some(eid) => {
                w.u16(self.chid.0)?;
                w.put(&eid.0)?;
                w.u64(ext)
            }
            None => {
                bound("accept_confirm.chid", self.chid.0, 0, "0 in version 1")?;
                w.zeros(12)
            }
        }
    }
}
