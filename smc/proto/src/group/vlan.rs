// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which VLANs the ISM devices take part in (`smc_ism_get_vlan`, `smc_ism_put_vlan`).
//!
//! Invariant: a device is in a VLAN while somebody holds it, and one question to it is open at a time.

use std::collections::BTreeMap;

use super::Groups;
use super::key::{Ask, Peer, Role, Version};
use super::wish::Wish;
use crate::id::DeviceId;

/// How many hold each VLAN, and whether the device is in it.
#[derive(Debug, Default)]
pub(super) struct Vlans(BTreeMap<(DeviceId, u16), (u32, VlanState)>);

/// Whether a device is in a VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VlanState {
    /// It was asked; wait for [`Groups::handle_vlan`].
    Pending,
    /// It is.
    Ready,
}

impl Groups {
    /// Keeps `device` in a VLAN, for a handshake before it asks for a group; VLAN 0 is none and
    /// always ready. If [`Self::handle_vlan`] then says no, the reason is ISMVLANERR.
    pub fn hold_vlan(&mut self, device: DeviceId, vlan: u16) -> VlanState {
        if vlan == 0 {
            return VlanState::Ready;
        }
        let (holders, state) = self.vlans.0.entry((device, vlan)).or_insert_with(|| {
            self.wishes.push_back(Wish::AddVlan { device, vlan });
            (0, VlanState::Pending)
        });
        *holders = holders.saturating_add(1);
        *state
    }

    /// Ends one [`Self::hold_vlan`].
    pub fn release_vlan(&mut self, device: DeviceId, vlan: u16) {
        let Some((holders, state)) = self.vlans.0.get_mut(&(device, vlan)) else { return };
        *holders = holders.saturating_sub(1);
        // Who asks again before the answer has come takes that answer.
        if *holders == 0 && *state == VlanState::Ready {
            self.remove_vlan(device, vlan);
        }
    }

    /// The device is in the VLAN now, or refused. After a refusal nobody holds it.
    pub fn handle_vlan(&mut self, device: DeviceId, vlan: u16, added: bool) {
        let Some((holders, state)) = self.vlans.0.get_mut(&(device, vlan)) else { return };
        match (added, *holders) {
            (true, 0) => self.remove_vlan(device, vlan),
            (true, _) => *state = VlanState::Ready,
            (false, _) => {
                self.vlans.0.remove(&(device, vlan));
            }
        }
    }

    fn remove_vlan(&mut self, device: DeviceId, vlan: u16) {
        self.vlans.0.remove(&(device, vlan));
        self.wishes.push_back(Wish::RemoveVlan { device, vlan });
    }
}

impl Ask {
    /// The VLAN in which the group keeps its ISM device. As in Linux, a server with version 2 does
    /// not look at VLANs.
    pub(super) fn kept_vlan(&self) -> Option<(DeviceId, u16)> {
        let counts = self.version == Version::V1 || self.role == Role::Client;
        match self.peer {
            Peer::Smcd(peer) if counts && self.vlan != 0 => Some((peer.device, self.vlan)),
            _ => None,
        }
    }
}
