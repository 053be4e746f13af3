// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CONFIRM LINK: the server asks and the client answers over the new link itself.
//!
//! Invariant: a link becomes active only after its CONFIRM LINK (RFC 7609, 3.5.1 and A.3.1).

use smc_wire::llc::{Body, ConfirmLink};

use super::core::{Core, Redundancy, Role};
use super::link::LinkId;
use crate::Instant;

/// What a link is called in messages to people (`smc_llc_link_set_uid`).
pub(super) fn uid(group: [u8; 4], number: u8) -> [u8; 4] {
    u32::from_ne_bytes(group).wrapping_add(number.into()).to_be_bytes()
}

/// Sends the request or the answer over `link` (`smc_llc_send_confirm_link`); whether it could.
pub(super) fn send(core: &mut Core, now: Instant, link: LinkId, response: bool) -> bool {
    let Some(entry) = core.link(link) else { return false };
    let Some(qp) = entry.qp else { return false };
    let body = Body::ConfirmLink(ConfirmLink {
        mac: entry.port.mac,
        gid: entry.port.gid,
        qpn: qp.qpn,
        link: entry.number,
        link_uid: uid(core.id, entry.number),
        max_links: core.announced.max_links,
        max_conns: core.announced.max_conns,
        no_eyecatcher: true,
    });
    core.send(now, link, response, body).is_some()
}

/// Takes the peer's message over `link`; whether it is acceptable (`smc_llc_eval_conf_link`).
///
/// The client learns the first link's number from it; other links have theirs from ADD LINK.
pub(super) fn take(core: &mut Core, link: LinkId, message: &ConfirmLink) -> bool {
    let is_learned = core.role == Role::Client && core.redundancy == Redundancy::None;
    let Some(entry) = core.link_mut(link) else { return false };
    entry.peer_uid = message.link_uid;
    if is_learned {
        entry.number = message.link;
    }
    message.no_eyecatcher && message.link == entry.number
}
