// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a decision looks at: the configuration and the devices.
//!
//! Invariant: borrowed for one decision; a decision changes neither.

use smc_wire::id::PeerId;

use super::inventory::Inventory;
use crate::config::Config;

/// This host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host<'a> {
    pub(crate) config: &'a Config,
    pub(crate) inventory: &'a Inventory,
}

impl Host<'_> {
    /// What names this host to SMC-R peers, zeros until a port was active
    /// (`smc_ib_define_local_systemid`).
    pub(crate) fn peer_id(&self) -> PeerId {
        let Some(mac) = self.inventory.first_mac() else { return PeerId::default() };
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(self.config.instance.iter().chain(&mac.0)) {
            *to = *from;
        }
        PeerId(id)
    }
}
