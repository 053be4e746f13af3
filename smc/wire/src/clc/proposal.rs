// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Proposal: what a client offers.
//!
//! Invariant: the counts are within their lists' bounds; what version 1 and version 2 offer is there
//! exactly if the header says so.

use core::net::{Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use super::{Modes, Version};
use crate::id::{Chid, Eid, IsmGid, Mac, PeerId, RoceGid};

/// IPv6 prefixes in a proposal, at most (`SMC_CLC_MAX_V6_PREFIX`).
pub const MAX_PREFIXES_V6: usize = 8;
/// UEIDs in a proposal, at most (`SMC_CLC_MAX_UEID`).
pub const MAX_UEIDS: usize = 8;
/// Entries of ISM devices in a proposal, at most (`SMCD_CLC_MAX_V2_GID_ENTRIES`).
pub const MAX_ISM_ENTRIES: usize = 8;

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

impl OfferV2 {
    /// SMC-R, SMC-D or both; none cannot be sent.
    pub fn modes(&self) -> Option<Modes> {
        Modes::of(self.smcr.is_some(), self.smcd.is_some())
    }
}

impl SmcdOffer {
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
