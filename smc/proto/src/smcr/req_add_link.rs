// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The client's wish for another link: REQ ADD LINK in version 2, an ADD LINK without a queue pair in
//! version 1 (`smc_llc_cli_add_link_invite`).
//!
//! Invariant: only the server decides; this flow ends with its offer, its answer, or after 2 s.
//! (Linux waits for ever, and starts no other flow meanwhile.)

use smc_wire::id::{Psn, Qpn};
use smc_wire::llc::{AddLink, Body, ReqAddLink, Version};

use super::WAIT;
use super::add_link::is_allowed;
use super::core::{Core, Redundancy};
use super::link::LinkId;
use super::step::{Event, Progress};
use crate::Instant;

/// The flow, in version 2.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) deadline: Instant,
}

/// Whether another link would make the group safer: one of our ports has none yet
/// (`smcr_port_add`).
pub(super) fn is_useful(core: &Core) -> bool {
    let full = matches!(core.redundancy, Redundancy::Symmetric | Redundancy::AsymmetricPeer);
    !full && is_allowed(core)
}

impl Request {
    /// Asks over `carrier`, if there is a second port; `None` if nothing is to be waited for.
    pub(super) fn start(core: &mut Core, now: Instant, carrier: LinkId) -> Option<Self> {
        let here = core.link(carrier)?.port;
        let other = core.alternate_port(here.device)?;
        if core.version == Version::V2 {
            let gids = [here.gid, other.gid];
            core.send(now, carrier, false, Body::ReqAddLink(ReqAddLink::new(&gids)))?;
            return Some(Self { deadline: now.after(WAIT) });
        }
        let invitation = AddLink {
            mac: other.mac,
            gid: other.gid,
            qpn: Qpn(0),
            link: 0,
            mtu: None,
            psn: Psn(0),
            rejected: None,
            tail: None,
        };
        core.send(now, carrier, false, Body::AddLink(invitation));
        None
    }

    pub(super) fn step(event: &Event) -> Progress {
        match event {
            Event::Deadline | Event::Down(_) | Event::Failed(_) => Progress::Done,
            Event::Message { response: true, body: Body::ReqAddLink(_), .. } => Progress::Done,
            _ => Progress::Ignored,
        }
    }
}
