// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ADD LINK: what the server's and the client's side of it have in common.
//!
//! Invariant: an offer or answer names a queue pair that exists, and in version 2 each of our RMBs that
//! the peer knows (RFC 7609, 3.5.2 and A.3.2).

use smc_wire::id::{Mac, RoceGid};
use smc_wire::llc::{AddLink, AddLinkTail, Body, RkeyUpdate, Version};

use super::core::{Core, Redundancy, Role};
use super::link::LinkId;
use super::qp::{PeerEnd, Port};
use super::rtoken::Rtoken;
use crate::Instant;

/// Where a new link shall end here, and what it makes of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) port: Port,
    pub(super) target: Redundancy,
}

/// The server's path: another port than `carrier`'s if there is one, else the same.
pub(super) fn server_path(core: &Core, carrier: LinkId) -> Option<Path> {
    let here = core.link(carrier)?.port;
    Some(match core.alternate_port(here.device) {
        Some(port) => Path { port, target: Redundancy::Symmetric },
        None => Path { port: here, target: Redundancy::AsymmetricLocal },
    })
}

/// The client's path to the port that the server offers; `None` if both ends would be those of
/// `carrier` (`smc_llc_cli_add_link`).
pub(super) fn client_path(core: &Core, carrier: LinkId, gid: RoceGid, mac: Mac) -> Option<Path> {
    let here = core.link(carrier)?.port;
    let same_peer = core.is_same_peer_port(carrier, gid, mac);
    match (core.alternate_port(here.device), same_peer) {
        (Some(port), false) => Some(Path { port, target: Redundancy::Symmetric }),
        (Some(port), true) => Some(Path { port, target: Redundancy::AsymmetricPeer }),
        (None, false) => Some(Path { port: here, target: Redundancy::AsymmetricLocal }),
        (None, true) => None,
    }
}

/// Whether the group may try to have another link.
pub(super) fn is_allowed(core: &Core) -> bool {
    core.redundancy != Redundancy::Single || core.max_links > 1
}

/// Offers `new`, or answers the offer, over `carrier` (`smc_llc_send_add_link`); whether it could.
pub(super) fn send(core: &mut Core, now: Instant, carrier: LinkId, new: LinkId) -> bool {
    let keys = our_keys(core, carrier, new);
    let Some(link) = core.link(new) else { return false };
    let Some(qp) = link.qp else { return false };
    let answer = core.role == Role::Client;
    let mtu = match link.peer {
        Some(peer) if answer => peer.mtu.min(link.port.mtu),
        _ => link.port.mtu,
    };
    let tail = AddLinkTail::new(core.gateway.is_none(), link.port.gid, &keys);
    let body = Body::AddLink(AddLink {
        mac: link.port.mac,
        gid: link.port.gid,
        qpn: qp.qpn,
        link: link.number,
        mtu: Some(mtu),
        psn: qp.psn,
        rejected: None,
        tail: (core.version == Version::V2).then_some(tail),
    });
    core.send(now, carrier, answer, body).is_some()
}

/// Our RMBs that the peer knows, as they are reached over `new`.
pub(super) fn our_keys(core: &Core, carrier: LinkId, new: LinkId) -> Vec<RkeyUpdate> {
    let (Some(carrier), Some(new)) = (core.slot(carrier), core.slot(new)) else {
        return Vec::new();
    };
    let keys = core.buffers.known_to_peer(carrier, new);
    keys.map(|(known, Rtoken { rkey, vaddr })| RkeyUpdate { known, new: rkey, vaddr }).collect()
}

/// Takes the peer's key for one of its RMBs on `new`; one that names no RMB is passed over
/// (`smc_rtoken_set`).
pub(super) fn take_key(core: &mut Core, carrier: LinkId, new: LinkId, update: RkeyUpdate) {
    let (Some(carrier), Some(new)) = (core.slot(carrier), core.slot(new)) else { return };
    if let Some(index) = core.rtokens.find(carrier, update.known) {
        core.rtokens.set(index, new, Rtoken { rkey: update.new, vaddr: update.vaddr });
    }
}

/// The peer's end of the link; `None` without an MTU, as in an invitation.
pub(super) fn peer_end(message: &AddLink) -> Option<PeerEnd> {
    let mtu = message.mtu?;
    let AddLink { qpn, psn, gid, mac, .. } = *message;
    Some(PeerEnd { qpn, psn, gid, mac, mtu })
}
