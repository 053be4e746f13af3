// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an ISM device's events do to the link groups (`smc_ism_event_work`, `smc_smcd_terminate`).
//!
//! Invariant: an event ends no group but those with the peer that sent it, compared in all the bits
//! that a GID has.

use smc_wire::id::IsmGid;

use super::Groups;
use super::key::{Ask, Peer, Role, Version};
use super::wish::{Cause, Wish};
use crate::id::{DeviceId, GroupId};
use crate::smcd::event::{DeviceEvent, EventCode, EventInfo};

impl Groups {
    /// An event came from `device`.
    ///
    /// Linux's comparison (`smc_smcd_terminate`) has `?:` bind weaker than `&&`: it looks at an
    /// emulated device's second 64 bits only, and ends every group of a real one. Here all bits
    /// count, and a GID of zeros stands for all peers in a device event only.
    pub fn handle_event(&mut self, device: DeviceId, event: &DeviceEvent) {
        match *event {
            DeviceEvent::Device { gid } if gid == IsmGid::default() => {
                self.terminate_device(device)
            }
            DeviceEvent::Device { gid } => {
                self.end_all(Cause::PeerGone, |ask| ask.is_with(device, gid));
            }
            DeviceEvent::Software { gid, code: EventCode::SHUTDOWN, info } => {
                let vlan = EventInfo::from_bits(info).vlan;
                let meant = |ask: &Ask| ask.is_with(device, gid) && ask.hears(vlan);
                self.end_all(Cause::PeerGone, meant);
            }
            DeviceEvent::Software { gid, code: EventCode::TEST_LINK, info } => {
                if let Some(answer) = EventInfo::from_bits(info).answer() {
                    let (code, info) = (EventCode::TEST_LINK, answer.bits());
                    self.wishes.push_back(Wish::Signal { device, gid, code, info });
                }
            }
            DeviceEvent::Buffer | DeviceEvent::Software { .. } => {}
        }
    }
}

/// What events see of a group: Linux names no group in them, only devices and a VLAN.
impl Ask {
    fn is_with(&self, device: DeviceId, gid: IsmGid) -> bool {
        match &self.peer {
            Peer::Smcd(peer) => peer.is(device, gid),
            Peer::Smcr(_) => false,
        }
    }

    /// The VLAN that a Linux peer's group has: with version 2 a client's has the VLAN of the TCP
    /// connection and a server's none, so that between two Linux hosts an event names a VLAN that
    /// the other side's group does not have.
    fn peer_vlan(&self) -> u16 {
        let peer_is_server = self.role == Role::Client;
        if self.version == Version::V2 && peer_is_server { 0 } else { self.vlan }
    }

    /// Whether a shutdown event with this VLAN means the group: Linux's rule, and for version 2
    /// also no VLAN, which is what we send to a server.
    fn hears(&self, vlan: u16) -> bool {
        let any = vlan == EventInfo::ANY_VLAN;
        any || vlan == self.peer_vlan() || (self.version == Version::V2 && vlan == 0)
    }

    /// Whether one event would reach both groups at the peer.
    pub(super) fn shares_events_with(&self, other: &Self) -> bool {
        match &other.peer {
            Peer::Smcd(peer) => {
                self.is_with(peer.device, peer.gid) && self.peer_vlan() == other.peer_vlan()
            }
            Peer::Smcr(_) => false,
        }
    }

    /// What tells an SMC-D peer that the group goes (`smc_ism_signal_shutdown`).
    pub(super) fn shutdown_event(&self, id: GroupId) -> Option<Wish> {
        let Peer::Smcd(peer) = self.peer else { return None };
        let info = EventInfo {
            group: id.0.to_ne_bytes(),
            vlan: self.peer_vlan(),
            code: EventInfo::REQUEST,
        };
        Some(Wish::Signal {
            device: peer.device,
            gid: peer.gid,
            code: EventCode::SHUTDOWN,
            info: info.bits(),
        })
    }
}
