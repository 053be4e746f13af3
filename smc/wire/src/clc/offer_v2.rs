// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a proposal offers under version 2: the version 2 extension and SMC-D's behind it.
//!
//! Invariant: the counts are within their lists' bounds, and the two offsets that lead here point at
//! where the areas are.

use arrayvec::ArrayVec;

use super::Modes;
use super::header::bound;
use super::proposal::count;
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::{Chid, Eid, IsmGid, RoceGid};

/// UEIDs in a proposal, at most (`SMC_CLC_MAX_UEID`).
pub const MAX_UEIDS: usize = 8;
/// Entries of ISM devices in a proposal, at most (`SMCD_CLC_MAX_V2_GID_ENTRIES`).
pub const MAX_ISM_ENTRIES: usize = 8;

/// What a client offers under version 2: SMC-R, SMC-D or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferV2 {
    /// The highest release that the client speaks, 0 to 15.
    pub release: u8,
    /// Supplemental features; bit 0: emulated ISM (`SMC_SPF_EMULATED_ISM_DEV`).
    pub feature_mask: u16,
    /// The enterprise ids that the user defined, in the order of preference. Any 32 bytes: they are
    /// only compared.
    pub ueids: ArrayVec<Eid, MAX_UEIDS>,
    /// SMC-R.
    pub smcr: Option<SmcrOffer>,
    /// SMC-D.
    pub smcd: Option<SmcdOffer>,
}

/// SMC-R under version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmcrOffer {
    /// The RoCEv2 port.
    pub gid: RoceGid,
    /// Connections a link group at most: 16 to 255, to be checked from release 1 on.
    pub max_conns: u8,
    /// Links a link group at most: 1 or 2, to be checked from release 1 on.
    pub max_links: u8,
}

/// SMC-D under version 2 (`struct smc_clc_smcd_v2_extension`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SmcdOffer {
    /// The system's enterprise id, if it is enabled (s390 only).
    pub seid: Option<Eid>,
    /// ISM devices, as the wire lists them: see [`Self::devices`] and [`Self::push`].
    pub entries: ArrayVec<IsmEntry, MAX_ISM_ENTRIES>,
}

/// A line of the list of ISM devices: a native device takes one, an emulated one two, the second
/// with the GID's last 64 bits and the same CHID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsmEntry {
    /// 64 bits of a GID.
    pub gid: u64,
    /// The fabric.
    pub chid: Chid,
}

/// Where the field `v2_ext_offset` ends in the proposal: what it counts from.
const V2_EXT_BASE: usize = 52;
/// Where the field `smcd_v2_ext_offset` ends in the extension: what it counts from.
const SMCD_EXT_BASE: usize = 8;
/// In the byte with the release: a SEID is sent.
const SEID: u8 = 1;

impl OfferV2 {
    /// SMC-R, SMC-D or both; none cannot be sent.
    pub fn modes(&self) -> Option<Modes> {
        Modes::of(self.smcr.is_some(), self.smcd.is_some())
    }

    /// Reads the extensions, to which `v2_ext_offset` must lead; `modes` are the header's.
    pub(super) fn parse(r: &mut Reader, modes: Modes, v2_ext_offset: u16) -> Result<Self, Error> {
        let start = r.position();
        if usize::from(v2_ext_offset) + V2_EXT_BASE != start {
            let allowed = "28, or 36 and 17 for each IPv6 prefix if version 1 is offered";
            let value = v2_ext_offset.into();
            return Err(Error::Field { field: "proposal.v2_ext_offset", value, allowed });
        }
        let (eid_cnt, ism_gid_cnt) = (r.u8()?, r.u8()?);
        bound("proposal.eid_cnt", eid_cnt, MAX_UEIDS as u64, "0 to 8")?;
        r.take(1)?;
        let flags = r.u8()?;
        r.take(2)?;
        let smcd_v2_ext_offset = r.u16()?;
        let smcr = SmcrOffer { gid: RoceGid(r.array()?), max_conns: r.u8()?, max_links: r.u8()? };
        let feature_mask = r.u16()?;
        r.take(12)?;
        let mut ueids = ArrayVec::new();
        for _ in 0..eid_cnt {
            ueids.push(Eid(r.array()?));
        }
        let smcd = if modes.smcd() {
            if usize::from(smcd_v2_ext_offset) + SMCD_EXT_BASE != r.position() - start {
                let allowed = "32 and 32 for each UEID";
                let value = smcd_v2_ext_offset.into();
                return Err(Error::Field { field: "proposal.smcd_v2_ext_offset", value, allowed });
            }
            Some(SmcdOffer::parse(r, flags & SEID != 0, ism_gid_cnt)?)
        } else {
            None
        };
        let smcr = modes.smcr().then_some(smcr);
        Ok(Self { release: flags >> 4, feature_mask, ueids, smcr, smcd })
    }

    pub(super) fn emit(&self, w: &mut Writer) -> Result<(), Error> {
        bound("proposal.release", self.release, 15, "0 to 15")?;
        let seid = self.smcd.as_ref().is_some_and(|smcd| smcd.seid.is_some());
        w.u8(count(self.ueids.len()))?;
        w.u8(self.smcd.as_ref().map_or(0, |smcd| count(smcd.entries.len())))?;
        w.zeros(1)?;
        w.u8(self.release << 4 | if seid { SEID } else { 0 })?;
        w.zeros(2)?;
        let ueids = 32 * u16::from(count(self.ueids.len()));
        w.u16(if self.smcd.is_some() { 32 + ueids } else { 0 })?;
        match self.smcr {
            Some(SmcrOffer { gid, max_conns, max_links }) => {
                w.put(&gid.0)?;
                w.put(&[max_conns, max_links])?;
            }
            None => w.zeros(18)?,
        }
        w.u16(self.feature_mask)?;
        w.zeros(12)?;
        self.ueids.iter().try_for_each(|eid| w.put(&eid.0))?;
        self.smcd.as_ref().map_or(Ok(()), |smcd| smcd.emit(w))
    }
}

impl SmcdOffer {
    fn parse(r: &mut Reader, seid: bool, ism_gid_cnt: u8) -> Result<Self, Error> {
        bound("proposal.ism_gid_cnt", ism_gid_cnt, MAX_ISM_ENTRIES as u64, "0 to 8")?;
        let eid = Eid(r.array()?);
        r.take(16)?;
        let mut entries = ArrayVec::new();
        for _ in 0..ism_gid_cnt {
            entries.push(IsmEntry { gid: r.u64()?, chid: Chid(r.u16()?) });
        }
        Ok(Self { seid: seid.then_some(eid), entries })
    }

    fn emit(&self, w: &mut Writer) -> Result<(), Error> {
        match self.seid {
            Some(seid) => w.put(&seid.0)?,
            None => w.zeros(32)?,
        }
        w.zeros(16)?;
        for IsmEntry { gid, chid } in &self.entries {
            w.u64(*gid)?;
            w.u16(chid.0)?;
        }
        Ok(())
    }

    /// The devices, in their order. An emulated device's entry without its second one is passed over
    /// (`smc_find_ism_v2_device_serv`).
    pub fn devices(&self) -> impl Iterator<Item = (IsmGid, Chid)> + '_ {
        let mut entries = self.entries.iter().copied().peekable();
        core::iter::from_fn(move || {
            loop {
                let IsmEntry { gid, chid } = entries.next()?;
                if !chid.is_emulated() {
                    return Some((IsmGid { gid, ext: 0 }, chid));
                }
                if let Some(second) = entries.next_if(|e| e.chid == chid) {
                    return Some((IsmGid { gid, ext: second.gid }, chid));
                }
            }
        })
    }

    /// Appends a device. Returns whether there was room: 8 native ones or 4 emulated.
    pub fn push(&mut self, gid: IsmGid, chid: Chid) -> bool {
        let lines = 1 + usize::from(chid.is_emulated());
        if self.entries.remaining_capacity() < lines {
            return false;
        }
        self.entries.push(IsmEntry { gid: gid.gid, chid });
        if chid.is_emulated() {
            self.entries.push(IsmEntry { gid: gid.ext, chid });
        }
        true
    }
}
