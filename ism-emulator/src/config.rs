// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the operator decides: the fabric's limits, groups, members and quotas.
//!
//! Invariant: a `Fabric` exists only with a configuration that passed [`FabricConfig::check`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use ism_abi::{
    FABRIC_ID_MAX, FABRIC_ID_MIN, Gid, MAX_DMB_LEN, MAX_DMBS, MIN_DMB_LEN, WINDOW_ALIGN, mode,
};

use crate::wish::MemberId;

/// How the members of a group exchange data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through an arena mapped into both windows.
    Mapped,
    /// By the device, into the owner's RAM.
    Copied,
}

impl Mode {
    /// The value of the wire, one of [`ism_abi::mode`].
    pub fn wire(self) -> u8 {
        match self {
            Self::Mapped => mode::MAPPED,
            Self::Copied => mode::COPIED,
        }
    }
}

/// Members of one group may talk to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Mapped, if both members have a window too; else copied.
    pub mode: Mode,
    /// In copied mode, refuse moves whose CDC header no correct peer writes ([`CdcCheck`](crate::CdcCheck)).
    pub check_cdc: bool,
}

/// The fabric's limits. [`FabricConfig::new`] gives working values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricConfig {
    /// SMC's CHID, 0xff00–0xfffe. The same on every fabric that is the same, so: one per host.
    pub fabric_id: u16,
    /// Bytes of one extent, a multiple of 2 MiB.
    pub chunk_size: u64,
    /// Extents that two members may share, those of instances that one has not forgotten included:
    /// what one peer can take of another's window.
    pub pair_extents: u32,
    /// Groups by name.
    pub groups: BTreeMap<String, GroupConfig>,
    /// The group of members that name none.
    pub default_group: String,
    /// DMB indices are below this, at most `MAX_DMBS`.
    pub max_dmbs: u32,
    /// The longest DMB in bytes, at most `MAX_DMB_LEN`.
    pub max_dmb_len: u32,
    /// The most payload bytes of one move request.
    pub max_move_len: u32,
    /// Tells the driver when to PING, milliseconds; 0: never.
    pub ping_interval_ms: u32,
    /// How long a REGISTER waits for a window to be mapped or for the writer to take the grant.
    pub answer_timeout: Duration,
}

impl FabricConfig {
    /// The usual limits, and one mapped group named "default".
    pub fn new(fabric_id: u16) -> Self {
        let default = GroupConfig { mode: Mode::Mapped, check_cdc: false };
        Self {
            fabric_id,
            chunk_size: 32 << 20,
            pair_extents: 8,
            groups: BTreeMap::from([("default".to_owned(), default)]),
            default_group: "default".to_owned(),
            max_dmbs: MAX_DMBS,
            max_dmb_len: MAX_DMB_LEN,
            // What a chain of descriptors for single pages holds.
            max_move_len: 1 << 20,
            ping_interval_ms: 1000,
            answer_timeout: Duration::from_secs(2),
        }
    }

    /// Says what is wrong with the configuration, if anything.
    ///
    /// # Errors
    /// The first limit that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |what, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::Range { what, value, min, max })
            }
        };
        let (low, high) = (u64::from(FABRIC_ID_MIN), u64::from(FABRIC_ID_MAX));
        range("fabric id", u64::from(self.fabric_id), low, high)?;
        range("chunk size", self.chunk_size, WINDOW_ALIGN, 1 << 40)?;
        if !self.chunk_size.is_multiple_of(WINDOW_ALIGN) {
            return Err(ConfigError::ChunkAlign(self.chunk_size));
        }
        range("extents of a pair", u64::from(self.pair_extents), 1, 1 << 16)?;
        range("DMBs of a member", u64::from(self.max_dmbs), 1, u64::from(MAX_DMBS))?;
        let (shortest, longest) = (u64::from(MIN_DMB_LEN), u64::from(MAX_DMB_LEN));
        range("DMB length", u64::from(self.max_dmb_len), shortest, longest)?;
        range("move length", u64::from(self.max_move_len), 64, longest)?;
        if !self.groups.contains_key(&self.default_group) {
            return Err(ConfigError::UnknownGroup(self.default_group.clone()));
        }
        Ok(())
    }
}

/// What one member may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of DMBs it owns (in mapped mode each counts as the next power of two).
    pub bytes: u64,
    /// DMBs it owns.
    pub dmbs: u32,
    /// Peers it shares a pair with, itself and those gone but not forgotten included.
    pub peers: u32,
    /// Signals a second, with a burst of one second's worth; 0: no limit.
    pub signals_per_s: u32,
    /// Control requests a second, with a burst of one second's worth; 0: no limit.
    pub control_per_s: u32,
    /// Ends, listeners and callers that it has on the board.
    pub board: u32,
}

impl Default for Quota {
    /// 1 GiB in 4096 DMBs, 64 peers (of the about 500 mappings that QEMU bears), no rate limits, 4096 on the board.
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            dmbs: MAX_DMBS,
            peers: 64,
            signals_per_s: 0,
            control_per_s: 0,
            board: 4096,
        }
    }
}

/// A member, as the operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberConfig {
    /// For messages and statistics.
    pub name: String,
    /// Its address. Bytes 8–15 are not zero and unique by themselves, and bytes 0–7 are not zero:
    /// when a peer goes, Linux compares only the former, and takes zero in the latter for all
    /// peers (smc_smcd_terminate, net/smc/smc_core.c).
    pub gid: Gid,
    /// Names of its groups; empty: the default group.
    pub groups: Vec<String>,
    /// VLANs it may join; `None`: all.
    pub vlans: Option<BTreeSet<u16>>,
    /// What it may use.
    pub quota: Quota,
}

/// What a member's front-end can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Bytes of its window; `None`: it cannot map.
    pub window: Option<u64>,
    /// It has a move queue.
    pub copied: bool,
    /// It may post on the board.
    pub board: bool,
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A number is out of its range.
    Range {
        /// Which.
        what: &'static str,
        /// As configured.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// The chunk size is not a multiple of 2 MiB.
    ChunkAlign(u64),
    /// A group that is not configured.
    UnknownGroup(String),
    /// A half of the GID is zero, or bytes 8–15 are another member's.
    Gid {
        /// The GID.
        gid: Gid,
        /// The member that has them; `None`: a half is zero.
        taken_by: Option<String>,
    },
    /// A VLAN id outside 1–4094.
    Vlan(u16),
    /// No such member.
    NoMember(MemberId),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { what, value, min, max } => {
                write!(f, "{what} is {value} ({value:#x}); allowed is {min:#x} to {max:#x}")
            }
            Self::ChunkAlign(size) => {
                write!(f, "chunk size is {size}; allowed are multiples of 2097152 (2 MiB)")
            }
            Self::UnknownGroup(name) => write!(f, "group \"{name}\" is not configured"),
            Self::Gid { gid, taken_by: Some(name) } => {
                write!(f, "GID {gid:02x?}: its last 8 bytes are those of member \"{name}\"")
            }
            Self::Gid { gid, taken_by: None } => {
                write!(f, "GID {gid:02x?}: neither its first nor its last 8 bytes may be all zero")
            }
            Self::Vlan(id) => write!(f, "VLAN id is {id}; allowed is 1 to 4094"),
            Self::NoMember(MemberId(id)) => write!(f, "member {id} does not exist"),
        }
    }
}

impl std::error::Error for ConfigError {}
