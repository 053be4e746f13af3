// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a link group is made for.
//!
//! Invariant: limits count only where they were negotiated: in version 2 from release 1 on (SMC version
//! 2.1, `smc_llc_send_confirm_link`).

use std::time::Duration;

use smc_wire::id::Mac;
use smc_wire::llc::Version;

use super::TEST_LINK_TIME;
use super::core::{Announced, Role, Setup};
use super::qp::Port;

/// Links that a group keeps at most (`SMC_LINKS_ADD_LNK_MAX`).
const MAX_LINKS: u8 = 2;
/// Connections that a group has at most (`SMC_CONN_PER_LGR_MAX`).
pub(super) const MAX_CONNS: u8 = 255;
/// What a link group is made for.
#[derive(Debug, Clone, Copy)]
pub struct Params {
    /// Which end this is.
    pub role: Role,
    /// SMC-R version 1 or 2.
    pub version: Version,
    /// The peer's release: from 1 on the limits were negotiated (SMC version 2.1).
    pub peer_release: u8,
    /// What this side calls the group, for display (`lgr->id`).
    pub id: [u8; 4],
    /// Links to keep, 1 or 2; counts from release 1 on, else it is 2.
    pub max_links: u8,
    /// Connections to have, 16 to 255; counts from release 1 on, else it is 255.
    pub max_conns: u8,
    /// Version 2: the MAC address of the gateway to the peer, if there is one between.
    pub gateway: Option<Mac>,
    /// After how long without a message to test a link, [`TEST_LINK_TIME`] by default; `None` or zero:
    /// never (`sysctl net.smc.smcr_testlink_time`).
    pub test_link: Option<Duration>,
    /// Where the first link ends here.
    pub port: Port,
}

impl Params {
    /// For a group whose limits are not negotiated, without a gateway.
    pub const fn new(role: Role, version: Version, id: [u8; 4], port: Port) -> Self {
        Self {
            role,
            version,
            peer_release: 0,
            id,
            max_links: MAX_LINKS,
            max_conns: MAX_CONNS,
            gateway: None,
            test_link: Some(TEST_LINK_TIME),
            port,
        }
    }

    pub(super) fn setup(&self) -> Setup {
        let negotiated = self.version == Version::V2 && self.peer_release >= 1;
        let max_links = if negotiated { self.max_links.clamp(1, MAX_LINKS) } else { MAX_LINKS };
        let max_conns = if negotiated { self.max_conns.max(1) } else { MAX_CONNS };
        let announced = Announced { max_links, max_conns: if negotiated { max_conns } else { 0 } };
        Setup {
            role: self.role,
            version: self.version,
            id: self.id,
            announced,
            max_links,
            max_conns,
            gateway: self.gateway.filter(|_| self.version == Version::V2),
            test_interval: self.test_link.filter(|time| !time.is_zero()),
        }
    }
}
