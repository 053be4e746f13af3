// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Proposal: what a client offers.
//!
//! Invariant: the areas follow one another without gap or overlap, so each offset has one value that
//! is right; the counts are within their lists' bounds.
//!
//! ```text
//! 0   header, peer id, GID, MAC, iparea_offset
//! 40  SMC-D area: GID, CHID, v2_ext_offset, vendor     may be missing in version 1
//! 80  prefixes: 8 bytes and 17 each                    if version 1 is offered
//!     version 2 extension: 40 bytes, 32 each UEID      if version 2 is offered
//!     SMC-D version 2 extension: 48, 10 each entry     if version 2 offers SMC-D
//!     trailer
//! ```
//!
//! Three offsets point at areas, from behind the field that they are in. Linux bounds each (40, 172
//! and 288 at most) and compares the length with the sum of the areas, but does not compare the
//! offsets with one another; here they must point at where the areas are.
//!
//! A quirk of Linux: without an offer for version 1, `iparea_offset` points nowhere (Linux sends 0),
//! yet `smc_clc_msg_prop_valid` still takes the byte 7 behind it as a number of prefixes. That is byte
//! 47, the last one of the ISM device's GID, and a proposal where it is more than 8 is refused. Such
//! a proposal is taken here, because the byte is no count; when one is made, `iparea_offset` is 20 so
//! that Linux finds a reserved byte there, which is 0.

use core::net::{Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use super::header::{self, Eyecatcher, Header, Kind, bound};
use super::{Modes, OfferV2, Version};
use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::{Chid, Mac, PeerId, RoceGid};

/// IPv6 prefixes in a proposal, at most (`SMC_CLC_MAX_V6_PREFIX`).
pub const MAX_PREFIXES_V6: usize = 8;

/// A client's offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The highest version that the client speaks. Linux sends 2 even if it offers version 1 only;
    /// a later version is read as far as it is laid out like version 2.
    pub version: Version,
    /// The client's host, as SMC-R names it. Linux sends zeros unless version 1 offers SMC-R, though
    /// its server compares the field for version 2 too.
    pub peer: PeerId,
    /// The RoCE port for version 1.
    pub gid: RoceGid,
    /// The RoCE port's MAC.
    pub mac: Mac,
    /// The ISM device for version 1. Only a version 1 proposal may lack the area.
    pub ism: Option<IsmArea>,
    /// What is offered under version 1.
    pub v1: Option<OfferV1>,
    /// What is offered under version 2; none in a version 1 proposal.
    pub v2: Option<OfferV2>,
}

/// The SMC-D area (`struct smc_clc_msg_smcd`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IsmArea {
    /// The native ISM device's GID, 0 if none is offered.
    pub gid: u64,
    /// The native ISM device's fabric, 0 if none is offered.
    pub chid: Chid,
    /// Who defined `vendor_options` (an OUI); Linux sends 0.
    pub vendor_oui: [u8; 3],
    /// What the vendor defined; Linux sends 0.
    pub vendor_options: [u8; 5],
}

/// What a client offers under version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferV1 {
    /// SMC-R, SMC-D or both.
    pub modes: Modes,
    /// The client's subnets: version 1 does not leave the subnet.
    pub prefixes: Prefixes,
}

/// The subnets of the client's interface (`struct smc_clc_msg_proposal_prefix`).
///
/// If `v6` is empty, `v4` counts, otherwise `v6` does (`smc_clc_prfx_match`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefixes {
    /// The subnet of an IPv4 connection; zeros for IPv6.
    pub v4: PrefixV4,
    /// The interface's subnets for an IPv6 connection, without link-local ones.
    pub v6: ArrayVec<PrefixV6, MAX_PREFIXES_V6>,
}

/// An IPv4 subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixV4 {
    /// The address, masked.
    pub subnet: Ipv4Addr,
    /// Bits of the mask, 0 to 32.
    pub len: u8,
}

impl Default for PrefixV4 {
    fn default() -> Self {
        Self { subnet: Ipv4Addr::UNSPECIFIED, len: 0 }
    }
}

/// An IPv6 subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixV6 {
    /// The address, masked.
    pub subnet: Ipv6Addr,
    /// Bits of the mask, 0 to 128.
    pub len: u8,
}

/// Bytes of the SMC-D area: what `iparea_offset` says if the area is there.
const ISM_AREA: u16 = 40;
/// An `iparea_offset` for which Linux reads a reserved byte as the number of prefixes.
const IPAREA_NOWHERE: u16 = 20;

impl Proposal {
    /// Reads a proposal that fills `bytes`.
    ///
    /// # Errors
    /// [`Error`] for the first field or area that breaks the format; a Linux server answers such a
    /// proposal with nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let (header, mut reader) = header::open(Kind::Proposal, bytes)?;
        header.eyecatcher.require(Eyecatcher::Smcr)?;
        let r = &mut reader;
        let (peer, gid, mac) = (PeerId(r.array()?), RoceGid(r.array()?), Mac(r.array()?));
        let iparea_offset = r.u16()?;
        let (ism, v1, v2) = if header.version == Version::V1 {
            parse_version_1(r, &header, iparea_offset)?
        } else {
            parse_version_2(r, &header, iparea_offset)?
        };
        header::close(reader)?;
        Ok(Self { version: header.version, peer, gid, mac, ism, v1, v2 })
    }

    /// Writes the proposal as Linux does (`smc_clc_send_proposal`). Returns its length, 52 to 652.
    ///
    /// # Errors
    /// [`Error::Short`] if `bytes` are too few, [`Error::Field`] if the version and what is offered
    /// do not go together or a number does not fit.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        self.check()?;
        let typev2 = match self.version {
            Version::V1 => 0,
            _ => Modes::bits(self.v2.as_ref().and_then(OfferV2::modes)),
        };
        let header = Header {
            eyecatcher: Eyecatcher::Smcr,
            kind: Kind::Proposal,
            version: self.version,
            typev2,
            typev1: Modes::bits(self.v1.as_ref().map(|v1| v1.modes)),
        };
        header::emit(header, bytes, |w| {
            w.put(&self.peer.0)?;
            w.put(&self.gid.0)?;
            w.put(&self.mac.0)?;
            w.u16(self.iparea_offset())?;
            if let Some(ism) = &self.ism {
                ism.emit(self.v2_ext_offset(), w)?;
            }
            if let Some(v1) = &self.v1 {
                v1.prefixes.emit(w)?;
            }
            if let Some(v2) = &self.v2 {
                v2.emit(w)?;
            }
            Ok(())
        })
    }

    /// Whether the version and what is offered go together.
    fn check(&self) -> Result<(), Error> {
        let old = self.version == Version::V1;
        let refused = |field, allowed| {
            let value = self.version.number().into();
            Err(Error::Field { field, value, allowed })
        };
        match self {
            Self { v1: None, .. } if old => {
                refused("proposal.version", "2 or more without an offer for version 1")
            }
            Self { v2: Some(_), .. } if old => {
                refused("proposal.version", "2 or more with an offer for version 2")
            }
            Self { ism: None, .. } if !old => {
                refused("proposal.version", "1 without the SMC-D area")
            }
            Self { v2: Some(v2), .. } if v2.modes().is_none() => {
                let allowed = "SMC-R, SMC-D or both in an offer for version 2";
                Err(Error::Field { field: "proposal.typev2", value: 2, allowed })
            }
            _ => Ok(()),
        }
    }

    fn iparea_offset(&self) -> u16 {
        match (&self.ism, &self.v1) {
            (Some(_), Some(_)) => ISM_AREA,
            (Some(ism), None) if ism.gid & 0xFF > MAX_PREFIXES_V6 as u64 => IPAREA_NOWHERE,
            _ => 0,
        }
    }

    fn v2_ext_offset(&self) -> u16 {
        if self.v2.is_none() {
            return 0;
        }
        let prefixes = |v1: &OfferV1| 8 + 17 * u16::from(count(v1.prefixes.v6.len()));
        28 + self.v1.as_ref().map_or(0, prefixes)
    }
}

/// What follows the base of a proposal.
type Areas = (Option<IsmArea>, Option<OfferV1>, Option<OfferV2>);

fn parse_version_1(r: &mut Reader, header: &Header, iparea_offset: u16) -> Result<Areas, Error> {
    let Some(modes) = Modes::from_bits(header.typev1) else {
        let (value, allowed) = (header.typev1.into(), "0 (R), 1 (D), 3 (both)");
        return Err(Error::Field { field: "proposal.typev1", value, allowed });
    };
    let ism = match iparea_offset {
        0 => None,
        ISM_AREA => Some(IsmArea::parse(r)?.0),
        _ => return Err(iparea(iparea_offset, "0, 40")),
    };
    Ok((ism, Some(OfferV1 { modes, prefixes: Prefixes::parse(r)? }), None))
}

fn parse_version_2(r: &mut Reader, header: &Header, iparea_offset: u16) -> Result<Areas, Error> {
    let (modes_v1, modes_v2) = (Modes::from_bits(header.typev1), Modes::from_bits(header.typev2));
    match modes_v1 {
        Some(_) if iparea_offset != ISM_AREA => return Err(iparea(iparea_offset, "40")),
        None if iparea_offset > ISM_AREA => return Err(iparea(iparea_offset, "0 to 40")),
        _ => {}
    }
    let (ism, v2_ext_offset) = IsmArea::parse(r)?;
    let v1 = match modes_v1 {
        Some(modes) => Some(OfferV1 { modes, prefixes: Prefixes::parse(r)? }),
        None => None,
    };
    let v2 = match modes_v2 {
        Some(modes) => Some(OfferV2::parse(r, modes, v2_ext_offset)?),
        None => None,
    };
    Ok((Some(ism), v1, v2))
}

/// The error for `iparea_offset`.
fn iparea(value: u16, allowed: &'static str) -> Error {
    Error::Field { field: "proposal.iparea_offset", value: value.into(), allowed }
}

/// The length of a list that holds 8 at most.
pub(super) fn count(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

impl IsmArea {
    /// The area and `v2_ext_offset`, which is in its middle.
    fn parse(r: &mut Reader) -> Result<(Self, u16), Error> {
        let (gid, chid, v2_ext_offset) = (r.u64()?, Chid(r.u16()?), r.u16()?);
        let area = Self { gid, chid, vendor_oui: r.array()?, vendor_options: r.array()? };
        r.take(20)?;
        Ok((area, v2_ext_offset))
    }

    fn emit(&self, v2_ext_offset: u16, w: &mut Writer) -> Result<(), Error> {
        w.u64(self.gid)?;
        w.u16(self.chid.0)?;
        w.u16(v2_ext_offset)?;
        w.put(&self.vendor_oui)?;
        w.put(&self.vendor_options)?;
        w.zeros(20)
    }
}

impl Prefixes {
    fn parse(r: &mut Reader) -> Result<Self, Error> {
        let subnet = Ipv4Addr::from(r.array::<4>()?);
        let v4 = PrefixV4 { subnet, len: r.u8()? };
        bound("proposal.prefix_len", v4.len, 32, "0 to 32")?;
        r.take(2)?;
        let count = r.u8()?;
        bound("proposal.ipv6_prefixes_cnt", count, MAX_PREFIXES_V6 as u64, "0 to 8")?;
        let mut v6 = ArrayVec::new();
        for _ in 0..count {
            let subnet = Ipv6Addr::from(r.array::<16>()?);
            let prefix = PrefixV6 { subnet, len: r.u8()? };
            bound("proposal.ipv6_prefix.prefix_len", prefix.len, 128, "0 to 128")?;
            v6.push(prefix);
        }
        Ok(Self { v4, v6 })
    }

    fn emit(&self, w: &mut Writer) -> Result<(), Error> {
        bound("proposal.prefix_len", self.v4.len, 32, "0 to 32")?;
        w.put(&self.v4.subnet.octets())?;
        w.u8(self.v4.len)?;
        w.zeros(2)?;
        w.u8(count(self.v6.len()))?;
        for prefix in &self.v6 {
            bound("proposal.ipv6_prefix.prefix_len", prefix.len, 128, "0 to 128")?;
            w.put(&prefix.subnet.octets())?;
            w.u8(prefix.len)?;
        }
        Ok(())
    }
}
