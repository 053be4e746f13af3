// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-D link groups and devices.
//!
//! Invariant: a GID has 128 bits, of which a device that is no emulated one (CHID below 0xff00)
//! uses the first 64.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::netlink::{Attributes, Malformed};
use crate::processes::Holder;

/// Top-level attributes (enum "SMC_GENL_FAMILY top level attributes").
const GEN_LGR_SMCD: u16 = 4;
const GEN_DEV_SMCD: u16 = 5;

/// `SMC_NLA_LGR_D_*`.
mod group {
    pub(super) const ID: u16 = 1;
    pub(super) const GID: u16 = 2;
    pub(super) const PEER_GID: u16 = 3;
    pub(super) const VLAN_ID: u16 = 4;
    pub(super) const CONNS_NUM: u16 = 5;
    pub(super) const PNETID: u16 = 6;
    pub(super) const CHID: u16 = 7;
    pub(super) const V2_COMMON: u16 = 9;
    pub(super) const EXT_GID: u16 = 10;
    pub(super) const PEER_EXT_GID: u16 = 11;
    pub(super) const SNDBUF_ALLOC: u16 = 12;
    pub(super) const DMB_ALLOC: u16 = 13;
}

/// `SMC_NLA_LGR_V2_*`, which begin at 0.
mod v2 {
    pub(super) const VER: u16 = 0;
    pub(super) const REL: u16 = 1;
    pub(super) const OS: u16 = 2;
    pub(super) const NEG_EID: u16 = 3;
    pub(super) const PEER_HOST: u16 = 4;
}

/// `SMC_NLA_DEV_*` and `SMC_NLA_DEV_PORT_*`.
mod device {
    pub(super) const USE_CNT: u16 = 1;
    pub(super) const IS_CRIT: u16 = 2;
    pub(super) const PCI_FID: u16 = 3;
    pub(super) const PCI_CHID: u16 = 4;
    pub(super) const PCI_VENDOR: u16 = 5;
    pub(super) const PCI_DEVICE: u16 = 6;
    pub(super) const PCI_ID: u16 = 7;
    pub(super) const PORT: u16 = 8;
    pub(super) const PORT_PNET_USR: u16 = 1;
    pub(super) const PORT_PNETID: u16 = 2;
}

/// A device's address: `struct smcd_gid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Gid {
    /// The first 64 bits, in the kernel's number.
    pub gid: u64,
    /// The other 64, 0 if the device has none.
    pub ext: u64,
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", self.gid)?;
        if self.ext == 0 { Ok(()) } else { write!(f, ":{:016x}", self.ext) }
    }
}

impl From<Gid> for String {
    fn from(gid: Gid) -> String {
        gid.to_string()
    }
}

impl TryFrom<String> for Gid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = |digits| u64::from_str_radix(digits, 16).ok();
        let digits = text.strip_prefix("0x");
        let gid = digits.and_then(|digits| match digits.split_once(':') {
            Some((gid, ext)) => Some(Gid { gid: parse(gid)?, ext: parse(ext)? }),
            None => Some(Gid { gid: parse(digits)?, ext: 0 }),
        });
        gid.ok_or_else(|| format!("{text:?} is no GID: 0xGID or 0xGID:EXT in hexadecimal"))
    }
}

/// An SMC-D link group: all connections between two devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkGroup {
    /// The group's number, as smc-tools print it in hexadecimal.
    pub id: u32,
    /// SMC's version: 1 or 2.
    pub version: u8,
    /// The release of version 2 that the peer has.
    pub release: u8,
    /// Our device.
    pub gid: Gid,
    /// The peer's device.
    pub peer_gid: Gid,
    /// The fabric's id; from 0xff00 for emulated devices, 0xffff for Linux's loopback.
    pub chid: u16,
    /// The low eight bits of the VLAN's id (the kernel reports no more).
    pub vlan: u8,
    /// Connections.
    pub connections: u32,
    /// The physical network's id.
    pub pnetid: String,
    /// The enterprise id both sides agreed on; empty in version 1.
    pub eid: String,
    /// The peer's host name; empty in version 1.
    pub peer_host: String,
    /// The peer's operating system: 1 z/OS, 2 Linux, 3 AIX; 0 in version 1.
    pub peer_os: u8,
    /// Bytes of send buffers.
    pub send_buffer_bytes: u64,
    /// Bytes of direct memory buffers (DMBs).
    pub dmb_bytes: u64,
    /// Whose it is; the kernel's without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Holder>,
}

impl LinkGroup {
    /// From the kernel's answer (`smc_nl_fill_smcd_lgr`, net/smc/smc_core.c).
    pub fn parse(attributes: &Attributes<'_>) -> Result<Self, Malformed> {
        let all = attributes.require_nested("SMC_GEN_LGR_SMCD", GEN_LGR_SMCD)?;
        let common = all.nested(group::V2_COMMON)?;
        let number = |attribute| common.count(attribute);
        let small = |attribute| Ok(u8::try_from(number(attribute)?).unwrap_or(u8::MAX));
        Ok(LinkGroup {
            id: all.require("SMC_NLA_LGR_D_ID", group::ID)?,
            version: match small(v2::VER)? {
                0 => 1, // Version 1 has no such attributes.
                version => version,
            },
            release: small(v2::REL)?,
            gid: Gid {
                gid: all.require("SMC_NLA_LGR_D_GID", group::GID)?,
                ext: all.count(group::EXT_GID)?,
            },
            peer_gid: Gid {
                gid: all.require("SMC_NLA_LGR_D_PEER_GID", group::PEER_GID)?,
                ext: all.count(group::PEER_EXT_GID)?,
            },
            chid: all.require("SMC_NLA_LGR_D_CHID", group::CHID)?,
            vlan: all.require("SMC_NLA_LGR_D_VLAN_ID", group::VLAN_ID)?,
            connections: all.require("SMC_NLA_LGR_D_CONNS_NUM", group::CONNS_NUM)?,
            pnetid: all.text(group::PNETID),
            eid: common.text(v2::NEG_EID),
            peer_host: common.text(v2::PEER_HOST),
            peer_os: small(v2::OS)?,
            send_buffer_bytes: all.count(group::SNDBUF_ALLOC)?,
            dmb_bytes: all.count(group::DMB_ALLOC)?,
            process: None,
        })
    }
}

/// An SMC-D device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The PCI function's id, s390 only.
    pub fid: u32,
    /// The PCI address.
    pub pci_id: String,
    /// The PCI function's channel, s390 only. Not the fabric's id: a link group has that.
    pub pci_chid: u16,
    /// The PCI vendor's id.
    pub vendor: u16,
    /// The PCI device's id.
    pub device: u16,
    /// Link groups that use it.
    pub link_groups: u32,
    /// Whether connections would be lost with it.
    pub in_use: bool,
    /// The physical network's id.
    pub pnetid: String,
    /// Whether the user set that.
    pub pnetid_by_user: bool,
    /// Whose it is; the kernel's without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Holder>,
}

impl Device {
    /// From the kernel's answer (`smc_nl_handle_smcd_dev`, net/smc/smc_ism.c).
    pub fn parse(attributes: &Attributes<'_>) -> Result<Self, Malformed> {
        let all = attributes.require_nested("SMC_GEN_DEV_SMCD", GEN_DEV_SMCD)?;
        let port = all.nested(device::PORT)?;
        Ok(Device {
            fid: all.require("SMC_NLA_DEV_PCI_FID", device::PCI_FID)?,
            pci_id: all.text(device::PCI_ID),
            pci_chid: all.require("SMC_NLA_DEV_PCI_CHID", device::PCI_CHID)?,
            vendor: all.require("SMC_NLA_DEV_PCI_VENDOR", device::PCI_VENDOR)?,
            device: all.require("SMC_NLA_DEV_PCI_DEVICE", device::PCI_DEVICE)?,
            link_groups: all.require("SMC_NLA_DEV_USE_CNT", device::USE_CNT)?,
            in_use: all.count(device::IS_CRIT)? != 0,
            pnetid: port.text(device::PORT_PNETID),
            pnetid_by_user: port.count(device::PORT_PNET_USR)? != 0,
            process: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_is_read_as_it_is_written() {
        for gid in
            [Gid { gid: 1, ext: 0 }, Gid { gid: 0x1122_3344_5566_7788, ext: 0x99aa_bbcc_ddee_ff00 }]
        {
            assert_eq!(Gid::try_from(gid.to_string()), Ok(gid));
        }
        assert_eq!(Gid { gid: 1, ext: 2 }.to_string(), "0x0000000000000001:0000000000000002");
        for wrong in ["", "12", "0x", "0x1:", "0x1:z", "0x12345678123456781"] {
            assert!(Gid::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
