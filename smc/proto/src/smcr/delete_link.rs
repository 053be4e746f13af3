// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! DELETE LINK for one link: the server says so, the client may ask for it.
//!
//! Invariant: connections are moved before their link is destroyed; the server destroys its end after
//! the client's answer, or 2 s later (RFC 7609, 3.5.4 and A.3.4).

use smc_wire::llc::{Body, DeleteLink, DeleteReason, DeleteTarget};

use super::WAIT;
use super::core::{Core, Redundancy};
use super::link::LinkId;
use super::step::{Event, Progress};
use super::wish::Wish;
use crate::Instant;

/// Sends a request over `carrier`; whether it could.
pub(super) fn send(core: &mut Core, now: Instant, carrier: LinkId, message: DeleteLink) -> bool {
    core.send(now, carrier, false, Body::DeleteLink(message)).is_some()
}

/// Answers a request over `carrier` with what became of it.
pub(super) fn answer(
    core: &mut Core,
    now: Instant,
    carrier: LinkId,
    request: &DeleteLink,
    reason: DeleteReason,
) {
    core.send(now, carrier, true, Body::DeleteLink(DeleteLink { reason, ..*request }));
}

/// The server's flow (`smc_llc_process_srv_delete_link`): drain the link, tell the client, destroy.
#[derive(Debug)]
pub(super) struct ServerDelete {
    victim: LinkId,
    /// What the client was asked, and over which link; `None` while the link is drained.
    told: Option<LinkId>,
    /// The link over which the client asked for it.
    arrival: Option<LinkId>,
    message: DeleteLink,
    pub(super) deadline: Instant,
}

impl ServerDelete {
    /// Begins to delete `victim`; `None` if it is over already.
    pub(super) fn start(
        core: &mut Core,
        now: Instant,
        victim: LinkId,
        arrival: Option<LinkId>,
        message: DeleteLink,
    ) -> Option<Self> {
        let was_active = core.link(victim)?.is_active();
        core.deactivate(victim);
        let deadline = now.after(WAIT);
        let mut flow = Self { victim, told: None, arrival, message, deadline };
        if was_active {
            if core.switch_connections(victim, None).is_none() {
                core.end(message.reason);
                return None;
            }
            core.wish(Wish::Drain { link: victim });
            return Some(flow);
        }
        (flow.tell(core, now) == Progress::Waiting).then_some(flow)
    }

    pub(super) fn step(&mut self, core: &mut Core, now: Instant, event: &Event) -> Progress {
        match (self.told, event) {
            (None, &Event::Drained(link)) if link == self.victim => self.tell(core, now),
            (None, Event::Deadline) => self.tell(core, now),
            (Some(_), Event::Deadline) => self.finish(core),
            (Some(carrier), &(Event::Down(link) | Event::Failed(link))) if link == carrier => {
                self.finish(core)
            }
            (Some(carrier), &Event::Message { link, response: true, body }) => match body {
                Body::DeleteLink(_) if link == carrier => self.finish(core),
                _ => Progress::Ignored,
            },
            _ => Progress::Ignored,
        }
    }

    fn tell(&mut self, core: &mut Core, now: Instant) -> Progress {
        let carrier = core.active_but(self.victim).or(self.arrival);
        match carrier.filter(|&carrier| send(core, now, carrier, self.message)) {
            Some(carrier) => {
                self.told = Some(carrier);
                self.deadline = now.after(WAIT);
                Progress::Waiting
            }
            None => self.finish(core),
        }
    }

    fn finish(&self, core: &mut Core) -> Progress {
        core.clear_link(self.victim);
        core.recount();
        if core.redundancy == Redundancy::Single {
            core.want_link = true;
        }
        Progress::Done
    }
}

/// The server's word to the client (`smc_llc_process_cli_delete_link`), done at once.
pub(super) fn obey(core: &mut Core, now: Instant, arrival: LinkId, message: &DeleteLink) {
    let DeleteTarget::Link(number) = message.target else { return };
    let Some(victim) = core.numbered(number).map(|link| link.id) else {
        return answer(core, now, arrival, message, DeleteReason::UNKNOWN_LINK);
    };
    answer(core, now, arrival, message, DeleteReason::NONE);
    let was_active = core.link(victim).is_some_and(|link| link.is_active());
    core.deactivate(victim);
    if was_active && core.switch_connections(victim, None).is_none() {
        core.end(message.reason);
    }
    core.clear_link(victim);
    core.recount();
}

/// The client lost a link (`smcr_link_down`): says so and destroys its end.
pub(super) fn report(core: &mut Core, now: Instant, victim: LinkId) {
    let number = core.link(victim).map(|link| link.number);
    if let (Some(number), Some(carrier)) = (number, core.active_but(victim)) {
        send(core, now, carrier, orderly(number, DeleteReason::LOST_PATH));
    }
    core.clear_link(victim);
    core.recount();
}

/// The client's operator wants a link deleted: asks the server, who will say so.
pub(super) fn request(core: &mut Core, now: Instant, victim: LinkId, reason: DeleteReason) {
    let number = core.link(victim).map(|link| link.number);
    let carrier = core.active_but(victim).unwrap_or(victim);
    if let Some(number) = number {
        send(core, now, carrier, orderly(number, reason));
    }
}

/// The message that one link shall go when its connections have moved.
pub(super) fn orderly(number: u8, reason: DeleteReason) -> DeleteLink {
    DeleteLink { target: DeleteTarget::Link(number), orderly: true, reason }
}
