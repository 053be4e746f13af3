// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an ISM device's events do to the link groups (`smc_ism_event_work`, `smc_smcd_terminate`).
//!
//! Invariant: an event ends no group but those with the peer that sent it, compared in all the bits
//! that a GID has.

use smc_wire::id::IsmGid;

use super::Groups;
use super::key::{Ask, Key, Peer};
use super::wish::{Cause, Wish};
use crate::id::DeviceId;
use crate::smcd::event::{DeviceEvent, EventCode, EventInfo};

impl Groups {
    /// An event came from `device`.
    ///
    /// Linux's comparison (`smc_smcd_terminate`) has `?:` bind weaker than `&&`: it looks at an
    /// emulated device's second 64 bits only, and ends every group of a real one. Here all bits
    /// count.
    pub fn handle_event(&mut self, device: DeviceId, event: &DeviceEvent) {
        match *event {
            DeviceEvent::Buffer => {}
            DeviceEvent::Device { gid } if gid == IsmGid::default() => {
                self.terminate_device(device);
            }
            DeviceEvent::Device { gid } => {
                self.end_all(Cause::PeerGone, |ask| is_with(ask, device, gid));
            }
            DeviceEvent::Software { gid, code: EventCode::SHUTDOWN, info } => {
                let vlan = EventInfo::from_bits(info).vlan;
                self.end_all(Cause::PeerGone, |ask| {
                    is_with(ask, device, gid) && Key::new(*ask).hears(vlan)
                });
            }
            DeviceEvent::Software { gid, code: EventCode::TEST_LINK, info } => {
                if let Some(answer) = EventInfo::from_bits(info).answer() {
                    let info = answer.bits();
                    let code = EventCode::TEST_LINK;
                    self.wishes.push_back(Wish::Signal { device, gid, code, info });
                }
            }
            DeviceEvent::Software { .. } => {}
        }
    }
}

fn is_with(ask: &Ask, device: DeviceId, gid: IsmGid) -> bool {
    match &ask.peer {
        Peer::Smcd(peer) => peer.is(device, gid),
        Peer::Smcr(_) => false,
    }
}
