// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The extension by which both ends of a version 2 link group's first connection tell who they are.
//!
//! Invariant: from release 1 on it has [`Features`], which make it 52 bytes long instead of 36.

use core::fmt;

use super::header::bound;
use crate::Error;
use crate::bytes::{Reader, Writer};

/// A host's name: characters at most, and bytes that the field has.
pub const HOSTNAME: usize = 32;

/// First contact extension (`struct smc_clc_first_contact_ext_v2x`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstContact {
    /// SMC-R: the sender's packets reach the peer without a gateway.
    pub v2_direct: bool,
    /// The sender's operating system.
    pub os: Os,
    /// The release that both use, 0 to 15.
    pub release: u8,
    /// The sender's host name, blank-padded.
    pub hostname: [u8; HOSTNAME],
    /// What release 1 added; there from release 1 on. In release 0 Linux sends it if the mode is
    /// SMC-R, an older Linux never; its bytes are reserved then, so all fields are 0.
    pub features: Option<Features>,
}

/// What release 1 added to the first contact extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// SMC-R: connections a link group at most; 0 in SMC-D.
    pub max_conns: u8,
    /// SMC-R: links a link group at most; 0 in SMC-D.
    pub max_links: u8,
    /// Supplemental features that both support; bit 0: emulated ISM.
    pub feature_mask: u16,
    /// What the vendor defined; Linux sends 0.
    pub vendor_options: u32,
}

/// An operating system, as declines and first contact extensions name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Os(u8);

impl Os {
    /// Not told: version 1.
    pub const UNKNOWN: Self = Self(0);
    /// z/OS.
    pub const ZOS: Self = Self(1);
    /// Linux, and what speaks as Linux does.
    pub const LINUX: Self = Self(2);
    /// AIX.
    pub const AIX: Self = Self(3);

    /// The low four bits of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0xF)
    }

    /// The four bits.
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Os {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::UNKNOWN => f.write_str("unknown"),
            Self::ZOS => f.write_str("z/OS"),
            Self::LINUX => f.write_str("Linux"),
            Self::AIX => f.write_str("AIX"),
            Self(n) => write!(f, "OS {n}"),
        }
    }
}

/// In the first byte: the high bit.
const V2_DIRECT: u8 = 0x80;

impl FirstContact {
    /// What Linux sends (`smc_clc_fill_fce_v2x`): [`Features`] in SMC-R and from release 1 on, zeros
    /// in release 0.
    pub fn new(smcr: bool, release: u8, hostname: [u8; HOSTNAME], features: Features) -> Self {
        let features = match release {
            0 => smcr.then_some(Features::default()),
            _ => Some(features),
        };
        Self { v2_direct: false, os: Os::LINUX, release, hostname, features }
    }

    /// Reads the extension. `list` tells whether the bytes behind the 36 that every release has are
    /// what may follow the extension.
    pub(super) fn parse(r: &mut Reader, list: impl FnOnce(&[u8]) -> bool) -> Result<Self, Error> {
        let (first, second) = (r.u8()?, r.u8()?);
        let (os, release) = (Os::from_bits(second >> 4), second & 0xF);
        r.take(2)?;
        let hostname = r.array()?;
        let features = match release {
            0 if list(r.rest()) => None,
            0 => {
                r.take(16)?;
                Some(Features::default())
            }
            _ => Some(Features::parse(r)?),
        };
        Ok(Self { v2_direct: first & V2_DIRECT != 0, os, release, hostname, features })
    }

    pub(super) fn emit(&self, w: &mut Writer) -> Result<(), Error> {
        bound("first_contact.release", self.release, 15, "0 to 15")?;
        w.u8(if self.v2_direct { V2_DIRECT } else { 0 })?;
        w.u8(self.os.bits() << 4 | self.release)?;
        w.zeros(2)?;
        w.put(&self.hostname)?;
        match (self.release, self.features) {
            (0, None) => Ok(()),
            (0, Some(features)) if features != Features::default() => {
                let allowed = "1 or more with features that are not zeros";
                Err(Error::Field { field: "first_contact.release", value: 0, allowed })
            }
            (_, Some(features)) => features.emit(w),
            (release, None) => {
                let (value, allowed) = (release.into(), "0 without features");
                Err(Error::Field { field: "first_contact.release", value, allowed })
            }
        }
    }
}

impl Features {
    fn parse(r: &mut Reader) -> Result<Self, Error> {
        let features = Self {
            max_conns: r.u8()?,
            max_links: r.u8()?,
            feature_mask: r.u16()?,
            vendor_options: r.u32()?,
        };
        r.take(8)?;
        Ok(features)
    }

    fn emit(&self, w: &mut Writer) -> Result<(), Error> {
        w.put(&[self.max_conns, self.max_links])?;
        w.u16(self.feature_mask)?;
        w.u32(self.vendor_options)?;
        w.zeros(8)
    }
}

/// Pads a host's name with blanks, cutting it off after 32 bytes (`smc_clc_init`).
pub fn hostname(name: &str) -> [u8; HOSTNAME] {
    let mut padded = [b' '; HOSTNAME];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    padded
}
