// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ADD LINK, the client's side (`smc_llc_cli_add_link`, `smc_llc_cli_conf_link`).
//!
//! Invariant: each offer is accepted or rejected; an accepted link becomes active, or is destroyed and
//! the server told so.
//!
//! | stage | waits for | then |
//! |---|---|---|
//! | Creating | queue pair | makes it receive, registers the buffers |
//! | Registering | memory regions | accepts: ADD LINK |
//! | Exchanging (version 1) | the server's continuation | answers it |
//! | Confirming | the server's CONFIRM LINK on the new link | answers it, the link is active |

use smc_wire::llc::{AddLink, Body, DeleteLink, DeleteReason, DeleteTarget, RejectReason, Version};

use super::add_link::{Path, client_path, is_allowed, peer_end, send};
use super::add_link_cont::{Exchange, Turn};
use super::buffer::Registration;
use super::core::Core;
use super::link::LinkId;
use super::qp::PeerEnd;
use super::step::{Event, Progress};
use super::{REGISTER_WAIT, WAIT, WAIT_FIRST, add_link_v2, confirm_link, delete_link};
use crate::Instant;

/// The flow.
#[derive(Debug)]
pub(super) struct ClientAdd {
    carrier: LinkId,
    new: LinkId,
    peer: PeerEnd,
    /// The offer as a rejection repeats it.
    rejection: AddLink<'static>,
    stage: Stage,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
enum Stage {
    Creating,
    Registering,
    Exchanging(Exchange),
    Confirming,
}

/// The offer, refused (`smc_llc_cli_add_link_reject`).
fn rejection(offer: &AddLink) -> AddLink<'static> {
    let AddLink { mac, gid, qpn, link, mtu, psn, .. } = *offer;
    let rejected = Some(RejectReason::NO_ALTERNATE_PATH);
    AddLink { mac, gid, qpn, link, mtu, psn, rejected, tail: None }
}

/// What an acceptable offer leads to.
fn plan(core: &Core, carrier: LinkId, offer: &AddLink) -> Option<(Path, PeerEnd)> {
    let peer = peer_end(offer)?;
    let is_free = core.numbered(offer.link).is_none();
    let path = client_path(core, carrier, peer.gid, peer.mac)?;
    (is_free && is_allowed(core)).then_some((path, peer))
}

impl ClientAdd {
    /// Begins with an offer that came over `carrier`, or rejects it.
    pub(super) fn start(
        core: &mut Core,
        now: Instant,
        carrier: LinkId,
        offer: &AddLink,
    ) -> Option<Self> {
        let rejection = rejection(offer);
        let plan = plan(core, carrier, offer);
        let place = plan.and_then(|(path, peer)| Some((core.free_slot(path.target)?, path, peer)));
        let Some((slot, path, peer)) = place else {
            core.send(now, carrier, true, Body::AddLink(rejection));
            return None;
        };
        let new = core.create_link(slot, path.port);
        if let Some(link) = core.link_mut(new) {
            link.number = offer.link;
        }
        add_link_v2::take_keys(core, carrier, new, offer);
        let (stage, deadline) = (Stage::Creating, now.after(REGISTER_WAIT));
        Some(Self { carrier, new, peer, rejection, stage, deadline })
    }

    pub(super) fn step(&mut self, core: &mut Core, now: Instant, event: &Event) -> Progress {
        match (&mut self.stage, event) {
            (_, Event::Deadline) => self.fail(core, now),
            (_, &(Event::Down(link) | Event::Failed(link))) if link == self.new => {
                self.fail(core, now)
            }
            // The last step runs over the new link alone.
            (Stage::Confirming, Event::Down(_) | Event::Failed(_)) => Progress::Ignored,
            (_, &(Event::Down(link) | Event::Failed(link))) if link == self.carrier => {
                self.fail(core, now)
            }
            (Stage::Creating, &Event::Created(link)) if link == self.new => {
                core.connect(link, self.peer);
                core.register_all(link);
                self.stage = Stage::Registering;
                self.deadline = now.after(REGISTER_WAIT);
                self.accept(core, now)
            }
            (Stage::Registering, &Event::Registered(link)) if link == self.new => {
                self.accept(core, now)
            }
            (_, &Event::Message { link, response: false, body }) => {
                self.request(core, now, link, body)
            }
            _ => Progress::Ignored,
        }
    }

    fn request(&mut self, core: &mut Core, now: Instant, link: LinkId, body: &Body) -> Progress {
        match (&mut self.stage, body) {
            (Stage::Exchanging(exchange), Body::AddLinkCont(message)) if link == self.carrier => {
                self.deadline = now.after(WAIT);
                match exchange.take(core, now, message) {
                    Turn::More => Progress::Waiting,
                    Turn::Done => self.await_confirm(now),
                    Turn::Broken => self.fail(core, now),
                }
            }
            (Stage::Confirming, Body::ConfirmLink(message)) if link == self.new => {
                core.let_send(link);
                let is_good = confirm_link::take(core, link, message);
                if !is_good || !confirm_link::send(core, now, link, true) {
                    return self.fail(core, now);
                }
                core.activate(now, link);
                Progress::Done
            }
            (_, Body::DeleteLink(message)) => {
                let new = core.link(self.new).map(|new| DeleteTarget::Link(new.number));
                if new != Some(message.target) {
                    return Progress::Ignored;
                }
                delete_link::answer(core, now, link, message, DeleteReason::NONE);
                core.clear_link(self.new);
                Progress::Done
            }
            _ => Progress::Ignored,
        }
    }

    fn accept(&mut self, core: &mut Core, now: Instant) -> Progress {
        let slot = core.slot(self.new);
        match slot.map(|slot| core.buffers.registration(slot)) {
            Some(Registration::Pending) => return Progress::Waiting,
            Some(Registration::Done) if send(core, now, self.carrier, self.new) => {}
            _ => return self.fail(core, now),
        }
        if core.version == Version::V2 {
            return self.await_confirm(now);
        }
        let Some(exchange) = Exchange::start(core, now, self.carrier, self.new) else {
            return self.fail(core, now);
        };
        self.stage = Stage::Exchanging(exchange);
        self.deadline = now.after(WAIT);
        Progress::Waiting
    }

    fn await_confirm(&mut self, now: Instant) -> Progress {
        self.stage = Stage::Confirming;
        self.deadline = now.after(WAIT_FIRST);
        Progress::Waiting
    }

    fn fail(&mut self, core: &mut Core, now: Instant) -> Progress {
        let number = core.link(self.new).map_or(self.rejection.link, |link| link.number);
        if matches!(self.stage, Stage::Creating | Stage::Registering) {
            core.send(now, self.carrier, true, Body::AddLink(self.rejection));
        } else {
            let target = DeleteTarget::Link(number);
            let message = DeleteLink { target, orderly: false, reason: DeleteReason::LOST_PATH };
            delete_link::send(core, now, self.carrier, message);
        }
        core.clear_link(self.new);
        Progress::Done
    }
}
