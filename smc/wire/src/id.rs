// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names of hosts, devices, ports and memory, as several messages carry them.
//!
//! Invariant: a [`Ueid`] has the syntax that Linux demands; the other names are any bytes of their
//! size.

use core::fmt;

use crate::Error;

/// Instance id and MAC of a peer: two bytes chosen at start, then a RoCE port's MAC (RFC 7609, A.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PeerId(pub [u8; 8]);

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

/// A RoCE port's 128-bit GID, in wire order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RoceGid(pub [u8; 16]);

/// An ISM device's GID: 64 bits and, for an emulated ISM, 64 more (`struct smcd_gid`).
///
/// The 128 bits are a UUID: `gid` holds its first 8 bytes, `ext` its last 8, as big-endian numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct IsmGid {
    /// The part that every message carries.
    pub gid: u64,
    /// The rest; 0 unless the device is emulated.
    pub ext: u64,
}

/// The fabric (channel) of an ISM device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Chid(pub u16);

impl Chid {
    /// Linux's loopback device.
    pub const LOOPBACK: Self = Self(0xFFFF);

    /// Whether the device is emulated and so has 128-bit GIDs (`__smc_ism_is_emulated`).
    pub const fn is_emulated(self) -> bool {
        self.0 >= 0xFF00
    }
}

/// An enterprise id, as it stands in a message: 32 ASCII characters, blank-padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Eid(pub [u8; 32]);

impl Eid {
    /// None was chosen: what an accept or confirm carries then.
    pub const NONE: Self = Self([0; 32]);
}

/// An [`Eid`] that a user defined, with the syntax checked (`smc_clc_ueid_valid`): A-Z, 0-9, `.` and
/// `-`, the first a letter or digit, blanks only at the end. Linux also takes the capitals of
/// Latin-1, and tabs and newlines for the blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ueid(Eid);

impl Ueid {
    /// Takes 1 to 32 characters without their padding; lower case is not accepted.
    ///
    /// # Errors
    /// [`Error::Field`] with the first character that is not allowed, or with the length.
    pub fn new(text: &str) -> Result<Self, Error> {
        let mut padded = [b' '; 32];
        let field = "ueid";
        let Some(room) = padded.get_mut(..text.len()) else {
            return Err(Error::Field {
                field,
                value: text.len() as u64,
                allowed: "1 to 32 characters",
            });
        };
        room.copy_from_slice(text.as_bytes());
        Self::from_eid(Eid(padded))
    }

    /// Checks a padded id, as a message carries it.
    ///
    /// # Errors
    /// [`Error::Field`] with the first character that is not allowed.
    pub fn from_eid(eid: Eid) -> Result<Self, Error> {
        let mut blank = false;
        for (at, &c) in eid.0.iter().enumerate() {
            let letter = c.is_ascii_uppercase() || c.is_ascii_digit();
            let allowed = match at {
                0 => letter,
                _ if blank => c == b' ',
                _ => letter || b".- ".contains(&c),
            };
            if !allowed {
                let allowed =
                    "A-Z, 0-9, '.', '-', the first one a letter or digit, blanks at the end";
                return Err(Error::Field { field: "ueid", value: c.into(), allowed });
            }
            blank |= c == b' ';
        }
        Ok(Self(eid))
    }

    /// The id as messages carry it.
    pub fn eid(&self) -> Eid {
        self.0
    }
}

impl fmt::Display for Eid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.trim_ascii_end().escape_ascii().fmt(f)
    }
}

/// A queue pair's number: 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Qpn(pub u32);

/// A queue pair's first packet number: 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Psn(pub u32);

/// The key with which a peer may write an RMB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rkey(pub u32);

/// What names a connection to its peer in SMC-R's CDC messages (RFC 7609: RMBE alert token).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AlertToken(pub u32);

/// What names a DMB within its fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DmbToken(pub u64);

/// A link group's name, chosen by its server or client for itself (`smc_lgr_list.num`, host order).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LinkGroupId(pub [u8; 4]);
