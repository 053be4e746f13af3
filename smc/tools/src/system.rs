// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the kernel's SMC can do.
//!
//! Invariant: says what the kernel says; whether a device is there is another question.

use serde::{Deserialize, Serialize};

use crate::netlink::{Attributes, Malformed};

const GEN_SYS_INFO: u16 = 1;
/// `SMC_NLA_SYS_*`.
const VER: u16 = 1;
const REL: u16 = 2;
const IS_ISM_V2: u16 = 3;
const LOCAL_HOST: u16 = 4;
const SEID: u16 = 5;
const IS_SMCR_V2: u16 = 6;

/// The kernel's SMC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// SMC's version.
    pub version: u8,
    /// Its release.
    pub release: u8,
    /// The name peers are told.
    pub host: String,
    /// The system's enterprise id; empty outside s390.
    pub seid: String,
    /// Whether a device takes part in SMC-D version 2.
    pub smcd_v2: bool,
    /// Whether SMC-R version 2 is there.
    pub smcr_v2: bool,
}

impl System {
    /// From the kernel's answer (`smc_nl_get_sys_info`, net/smc/smc_core.c).
    pub fn parse(attributes: &Attributes<'_>) -> Result<Self, Malformed> {
        let all = attributes.require_nested("SMC_GEN_SYS_INFO", GEN_SYS_INFO)?;
        Ok(System {
            version: all.require("SMC_NLA_SYS_VER", VER)?,
            release: all.require("SMC_NLA_SYS_REL", REL)?,
            host: all.text(LOCAL_HOST),
            seid: all.text(SEID),
            smcd_v2: all.count(IS_ISM_V2)? != 0,
            smcr_v2: all.count(IS_SMCR_V2)? != 0,
        })
    }
}
