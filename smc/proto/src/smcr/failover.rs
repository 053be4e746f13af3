// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The loss of a link: its connections go on over another one.
//!
//! Invariant: a connection is told of its new link before anything else happens to the old one; if no
//! other link is active the group ends (RFC 7609, 4.6; `smcr_link_down`).
//!
//! What the connection does then is its own: it rewinds its cursors to the last send that completed,
//! sends a CDC with the failover-validation flag and that send's sequence number first, and then
//! writes and sends again. The receiver aborts the connection if it has not seen that number.

use smc_wire::llc::DeleteReason;

use super::core::Core;
use super::link::{LinkId, LinkIds};
use crate::id::DeviceId;

/// Stops using a link; whether it was used until now.
///
/// Other links of the same port are passed over if the port is down too. (Linux passes over them
/// always, and so ends an asymmetric group on the side with one port when one link breaks.)
pub(super) fn lose(core: &mut Core, link: LinkId) -> bool {
    let Some(entry) = core.link(link) else { return false };
    let (was_active, device) = (entry.is_active(), entry.port.device);
    if !core.deactivate(link) {
        return false;
    }
    if was_active {
        let is_up = core.ports.iter().any(|port| port.device == device);
        if core.switch_connections(link, (!is_up).then_some(device)).is_none() {
            core.end(DeleteReason::LOST_PATH);
        }
        core.recount();
    }
    true
}

/// The links that end at a port of ours.
pub(super) fn links_of(core: &Core, device: DeviceId) -> LinkIds {
    let there = core.links().filter(|link| link.is_usable() && link.port.device == device);
    there.map(|link| link.id).collect()
}
