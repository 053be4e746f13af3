// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The extension by which both ends of a version 2 link group's first connection tell who they are.
//!
//! Invariant: from release 1 on it has [`Features`], which make it 52 bytes long instead of 36.

use core::fmt;

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
    /// What release 1 added. Linux sends it, as zeros, also in release 0 if the mode is SMC-R; an
    /// end of release 0 may leave it out.
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

/// Pads a host's name with blanks, cutting it off after 32 bytes (`smc_clc_init`).
pub fn hostname(name: &str) -> [u8; HOSTNAME] {
    let mut padded = [b' '; HOSTNAME];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    padded
}
