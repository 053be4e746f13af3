// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! RoCE ports come, change and go (`smcr_port_add`, `smcr_port_err`).
//!
//! Invariant: each SMC-R link group knows of a port exactly while it is active and in the group's
//! network.

use super::Endpoint;
use crate::Instant;
use crate::handshake::inventory::{RocePort, pnetid_of_port};
use crate::id::{DeviceId, GroupId};

impl Endpoint {
    /// Adds a RoCE port, or says what has changed about it.
    pub fn set_port(&mut self, now: Instant, port: RocePort) {
        self.now = now;
        let device = port.id;
        self.inventory.set_port(port);
        let groups: Vec<GroupId> = self.links.keys().copied().collect();
        for group in groups {
            let found = self.links.get(&group).and_then(|links| {
                let host = self.host();
                let port = host.inventory.port(device)?;
                let table = &host.config.pnet;
                let same = pnetid_of_port(port, table) == links.network;
                links.place.on(&host, port).filter(|_| same)
            });
            self.with_links(group, |links, now| match found {
                Some(port) => links.handle_port_up(now, port),
                None => links.handle_port_down(now, device),
            });
        }
    }

    /// A RoCE port is there no more.
    pub fn remove_port(&mut self, now: Instant, device: DeviceId) {
        self.now = now;
        if !self.inventory.remove_port(device) {
            return;
        }
        let groups: Vec<GroupId> = self.links.keys().copied().collect();
        for group in groups {
            self.with_links(group, |links, now| links.handle_port_down(now, device));
        }
    }
}
