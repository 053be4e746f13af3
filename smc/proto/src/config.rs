// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an administrator decides for a host: Linux's `net.smc.*` and the tables of `smcd` and
//! `smc_pnet`.
//!
//! Invariant: an endpoint takes only a configuration that [`Config::check`] finds within Linux's
//! bounds (`smc_sysctl.c`).

use std::time::Duration;

use smc_wire::clc::{self, HOSTNAME};
use smc_wire::id::Eid;
use smc_wire::size::BufferSize;

use crate::handshake::eid::EidTable;
use crate::handshake::pnet::PnetTable;

/// The versions of one kind of SMC that a host speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Version 1: peers share a subnet.
    pub v1: bool,
    /// Version 2: peers share an EID.
    pub v2: bool,
}

impl Versions {
    /// Both, as Linux.
    pub const ALL: Self = Self { v1: true, v2: true };
    /// None: the kind is switched off.
    pub const NONE: Self = Self { v1: false, v2: false };
}

/// The configuration of a host.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes of send buffer of a new connection: 16384 to 2³⁰-1 (`net.smc.wmem`).
    pub wmem: u32,
    /// Bytes of receive buffer of a new connection: 16384 to 2³⁰-1 (`net.smc.rmem`).
    pub rmem: u32,
    /// The largest DMB that is asked for: Linux's 1 MiB, unless something else is said.
    pub largest_dmb: BufferSize,
    /// Connections of an SMC-R link group: 16 to 255 (`net.smc.smcr_max_conns_per_lgr`).
    pub max_conns: u8,
    /// Links of an SMC-R link group: 1 or 2 (`net.smc.smcr_max_links_per_lgr`).
    pub max_links: u8,
    /// Seconds of silence on an SMC-R link before it is tested; 0 for never
    /// (`net.smc.smcr_testlink_time`).
    pub testlink_time: u16,
    /// Whether listeners stop offering SMC while too many handshakes are under way
    /// (`net.smc.limit_smc_hs`).
    pub limit_hs: bool,
    /// Versions of SMC-D that are spoken.
    pub smcd: Versions,
    /// Versions of SMC-R that are spoken.
    pub smcr: Versions,
    /// The release of version 2 that is spoken: 0 or 1 (that is v2.1).
    pub release: u8,
    /// This host's name, blank-padded (`utsname`).
    pub hostname: [u8; HOSTNAME],
    /// Two random bytes that tell this run from the host's last one (RFC 7609, A.2: instance id).
    pub instance: [u8; 2],
    /// How long a client waits for the answer to its Proposal before it withdraws it and goes on as
    /// TCP, which waits for no `accept`. `None`, as Linux: six seconds, and then there is no connection.
    pub patience: Option<Duration>,
    /// The enterprise ids.
    pub eids: EidTable,
    /// The PNET table.
    pub pnet: PnetTable,
}

impl Default for Config {
    /// Linux's own values, without a hostname.
    fn default() -> Self {
        Self {
            wmem: 65536,
            rmem: 65536,
            largest_dmb: BufferSize::MAX_SMCD,
            max_conns: 255,
            max_links: 2,
            testlink_time: 30,
            limit_hs: false,
            smcd: Versions::ALL,
            smcr: Versions::ALL,
            release: 1,
            hostname: clc::hostname(""),
            instance: [0; 2],
            patience: None,
            eids: EidTable::new(None),
            pnet: PnetTable::default(),
        }
    }
}

/// A value out of its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}, allowed: {from} to {to}")]
pub struct ConfigError {
    /// The value's name.
    pub name: &'static str,
    /// What it is.
    pub value: u32,
    /// The least it may be.
    pub from: u32,
    /// The most it may be.
    pub to: u32,
}

impl Config {
    /// Sets the hostname: its first 32 bytes.
    pub fn set_hostname(&mut self, name: &str) {
        self.hostname = clc::hostname(name);
    }

    /// Gives the host an EID of its own, as s390 has one.
    #[must_use]
    pub fn with_system_eid(mut self, system: Eid) -> Self {
        self.eids = EidTable::new(Some(system));
        self
    }

    /// Looks at each bound.
    ///
    /// # Errors
    /// The first value that is out of its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        const BUFFER: (u32, u32) = (16384, (i32::MAX / 2).unsigned_abs());
        let values = [
            ("wmem", self.wmem, BUFFER),
            ("rmem", self.rmem, BUFFER),
            ("smcr_max_conns_per_lgr", self.max_conns.into(), (16, 255)),
            ("smcr_max_links_per_lgr", self.max_links.into(), (1, 2)),
            ("release", self.release.into(), (0, 1)),
        ];
        for (name, value, (from, to)) in values {
            if !(from..=to).contains(&value) {
                return Err(ConfigError { name, value, from, to });
            }
        }
        Ok(())
    }
}
