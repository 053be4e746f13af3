// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! ADD LINK, the server's side (`smc_llc_srv_add_link`).
//!
//! Invariant: however the flow ends, the new link is active or destroyed, and the client that asked
//! with REQ ADD LINK has got an offer or an answer.
//!
//! | stage | waits for | then |
//! |---|---|---|
//! | Creating | queue pair | registers the buffers |
//! | Registering | memory regions | offers: ADD LINK |
//! | Offered | the client's answer | connects; version 1: first continuation, version 2: asks CONFIRM LINK |
//! | Exchanging | the client's continuation | next continuation, or asks CONFIRM LINK |
//! | Confirming | the client's CONFIRM LINK on the new link | the link is active |

use smc_wire::llc::{AddLink, Body, DeleteLink, DeleteReason, DeleteTarget, ReqAddLink, Version};

use super::add_link::{is_allowed, peer_end, send, server_path};
use super::add_link_cont::{Exchange, Turn};
use super::buffer::Registration;
use super::core::Core;
use super::link::LinkId;
use super::step::{Event, Progress};
use super::{REGISTER_WAIT, WAIT, WAIT_FIRST, add_link_v2, confirm_link, delete_link};
use crate::Instant;

/// The flow.
#[derive(Debug)]
pub(super) struct ServerAdd {
    carrier: LinkId,
    new: LinkId,
    /// A REQ ADD LINK came over `carrier` and nothing went out yet.
    unanswered: bool,
    stage: Stage,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
enum Stage {
    Creating,
    Registering,
    Offered,
    Exchanging(Exchange),
    Confirming,
}

/// Says that no link will be added (`smc_llc_send_req_add_link_response`).
fn answer_request(core: &mut Core, now: Instant, carrier: LinkId) {
    core.send(now, carrier, true, Body::ReqAddLink(ReqAddLink::default()));
}

impl ServerAdd {
    /// Begins over `carrier`, if there is a path and a place for another link.
    pub(super) fn start(
        core: &mut Core,
        now: Instant,
        carrier: LinkId,
        requested: bool,
    ) -> Option<Self> {
        let path = server_path(core, carrier).filter(|_| is_allowed(core));
        let place = path.and_then(|path| Some((core.free_slot(path.target)?, path)));
        let Some((slot, path)) = place else {
            if requested {
                answer_request(core, now, carrier);
            }
            return None;
        };
        let new = core.create_link(slot, path.port);
        let (stage, deadline) = (Stage::Creating, now.after(REGISTER_WAIT));
        Some(Self { carrier, new, unanswered: requested, stage, deadline })
    }

    pub(super) fn step(&mut self, core: &mut Core, now: Instant, event: &Event) -> Progress {
        match (&mut self.stage, event) {
            (_, Event::Deadline) => self.fail(core, now),
            (_, &(Event::Down(link) | Event::Failed(link)))
                if link == self.new || link == self.carrier =>
            {
                self.fail(core, now)
            }
            (Stage::Creating, &Event::Created(link)) if link == self.new => {
                core.register_all(link);
                self.stage = Stage::Registering;
                self.deadline = now.after(REGISTER_WAIT);
                self.offer(core, now)
            }
            (Stage::Registering, &Event::Registered(link)) if link == self.new => {
                self.offer(core, now)
            }
            (_, &Event::Message { link, response, body }) => {
                self.message(core, now, link, response, body)
            }
            _ => Progress::Ignored,
        }
    }

    fn message(
        &mut self,
        core: &mut Core,
        now: Instant,
        link: LinkId,
        response: bool,
        body: &Body,
    ) -> Progress {
        let number = core.link(self.new).map(|new| DeleteTarget::Link(new.number));
        match (&mut self.stage, body) {
            (Stage::Offered, Body::AddLink(message)) if response && link == self.carrier => {
                self.answered(core, now, message)
            }
            (Stage::Exchanging(exchange), Body::AddLinkCont(message))
                if response && link == self.carrier =>
            {
                self.deadline = now.after(WAIT);
                match exchange.take(core, now, message) {
                    Turn::More => Progress::Waiting,
                    Turn::Done => self.confirm(core, now),
                    Turn::Broken => self.fail(core, now),
                }
            }
            (Stage::Confirming, Body::ConfirmLink(message)) if response && link == self.new => {
                if !confirm_link::take(core, link, message) {
                    return self.fail(core, now);
                }
                core.activate(now, link);
                Progress::Done
            }
            // The client does not want the new link any more.
            (_, Body::DeleteLink(message)) if !response && number == Some(message.target) => {
                self.fail(core, now)
            }
            _ => Progress::Ignored,
        }
    }

    fn offer(&mut self, core: &mut Core, now: Instant) -> Progress {
        let slot = core.slot(self.new);
        match slot.map(|slot| core.buffers.registration(slot)) {
            Some(Registration::Pending) => return Progress::Waiting,
            Some(Registration::Done) if send(core, now, self.carrier, self.new) => {}
            _ => return self.fail(core, now),
        }
        self.unanswered = false;
        self.stage = Stage::Offered;
        self.deadline = now.after(WAIT);
        Progress::Waiting
    }

    fn answered(&mut self, core: &mut Core, now: Instant, message: &AddLink) -> Progress {
        let peer = peer_end(message).filter(|_| message.rejected.is_none());
        let Some(peer) = peer else { return self.fail(core, now) };
        core.connect(self.new, peer);
        if core.version == Version::V2 {
            add_link_v2::take_keys(core, self.carrier, self.new, message);
            return self.confirm(core, now);
        }
        self.deadline = now.after(WAIT);
        match Exchange::start(core, now, self.carrier, self.new) {
            Some(exchange) => {
                self.stage = Stage::Exchanging(exchange);
                Progress::Waiting
            }
            None => self.fail(core, now),
        }
    }

    fn confirm(&mut self, core: &mut Core, now: Instant) -> Progress {
        self.stage = Stage::Confirming;
        self.deadline = now.after(WAIT_FIRST);
        if confirm_link::send(core, now, self.new, false) {
            Progress::Waiting
        } else {
            self.fail(core, now)
        }
    }

    fn fail(&mut self, core: &mut Core, now: Instant) -> Progress {
        let number = core.link(self.new).map(|link| link.number);
        let half_made = matches!(self.stage, Stage::Exchanging(_) | Stage::Confirming);
        if let Some(number) = number.filter(|_| half_made) {
            let target = DeleteTarget::Link(number);
            let message = DeleteLink { target, orderly: false, reason: DeleteReason::LOST_PATH };
            delete_link::send(core, now, self.carrier, message);
        }
        core.clear_link(self.new);
        if self.unanswered {
            answer_request(core, now, self.carrier);
        }
        Progress::Done
    }
}
