// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens behind the inputs and commands: flows begin, go on and end.
//!
//! Invariant: one flow at a time; when it ends, a lost link comes first, then the peer's requests, then
//! our own wish for a link, then our buffers in their order.

use smc_wire::clc::Diagnosis;
use smc_wire::llc::{Body, DeleteLink, DeleteReason, DeleteTarget, Message};

use super::super::add_link_client::ClientAdd;
use super::super::add_link_server::ServerAdd;
use super::super::buffer::Usage;
use super::super::core::{Redundancy, Role};
use super::super::delete_link::{self, ServerDelete};
use super::super::ending::{self, Ending};
use super::super::flow::Flow;
use super::super::link::{Link, LinkId};
use super::super::req_add_link::{Request, is_useful};
use super::super::rkey::{self, Rkey};
use super::super::step::{Event, Progress};
use super::super::test_link::Verdict;
use super::super::wish::{BufferError, Wish};
use super::super::{SEND_WAIT, failover, first_contact};
use super::{Delayed, LinkGroup, Phase};
use crate::Instant;

/// Requests of the peer that wait for a flow of ours; further ones are dropped. (Linux keeps one.)
const MAX_DELAYED: usize = 4;

impl LinkGroup {
    /// Gives an event to the flow that is under way.
    pub(super) fn feed(&mut self, now: Instant, event: &Event) -> Progress {
        let Some(mut flow) = self.flow.take() else { return Progress::Ignored };
        let progress = flow.step(&mut self.core, now, event);
        if progress != Progress::Done {
            self.flow = Some(flow);
        }
        progress
    }

    pub(super) fn lose(&mut self, now: Instant, link: LinkId, event: Event) {
        if let Phase::Ending(ending) = &mut self.phase {
            self.core.deactivate(link);
            if !ending.failed(&mut self.core, now, Some(link)) {
                self.finish_end();
            }
            return;
        }
        if failover::lose(&mut self.core, link) {
            if matches!(self.phase, Phase::Preparing) {
                let failed = matches!(event, Event::Failed(_));
                let why = if failed { Diagnosis::INTERR } else { Diagnosis::ERR_RDYLNK };
                first_contact::fail(&mut self.core, why);
            }
            self.feed(now, &event);
            self.settle(now);
        }
    }

    pub(super) fn message(&mut self, now: Instant, link: LinkId, message: &Message, bytes: &[u8]) {
        let response = message.response;
        match &message.body {
            Body::TestLink(_) if response => {
                if let Some(link) = self.core.link_mut(link) {
                    link.test.answered();
                }
            }
            &Body::TestLink(body) => {
                self.core.send(now, link, true, Body::TestLink(body));
            }
            Body::ConfirmRkey(body) if !response => {
                rkey::peer_confirms(&mut self.core, now, link, body);
            }
            Body::DeleteRkey(body) if !response => {
                rkey::peer_deletes(&mut self.core, now, link, body);
            }
            Body::DeleteLink(body) if !response && body.target == DeleteTarget::All => {
                self.obey_delete_all(now, body);
            }
            body => {
                if matches!(body, Body::DeleteRkey(_)) {
                    rkey::peer_deleted(&mut self.core, link);
                }
                let event = Event::Message { link, response, body };
                if self.feed(now, &event) == Progress::Ignored && !response {
                    self.request(now, link, body, bytes);
                }
            }
        }
    }

    /// The peer ends the group: the server says it back (`smc_llc_process_srv_delete_link`).
    fn obey_delete_all(&mut self, now: Instant, message: &DeleteLink) {
        match self.core.role {
            Role::Server => self.begin_end(now, true, message.reason),
            Role::Client => self.begin_end(now, false, DeleteReason::PROGRAM),
        }
    }

    /// A request that begins a flow, or has to wait for one of ours.
    fn request(&mut self, now: Instant, link: LinkId, body: &Body, bytes: &[u8]) {
        match (self.core.role, body) {
            (Role::Server, Body::ConfirmLink(_) | Body::AddLinkCont(_))
            | (Role::Client, Body::ReqAddLink(_)) => {
                // Only the other role may say so.
                return self.core.end(DeleteReason::PROTOCOL_VIOLATION);
            }
            (_, Body::AddLink(_) | Body::DeleteLink(_) | Body::ReqAddLink(_)) => {}
            _ => return,
        }
        // The server's offer is what a client's request waits for.
        if matches!((&self.flow, body), (Some(Flow::Request(_)), Body::AddLink(_))) {
            self.flow = None;
        }
        if self.flow.is_some() {
            if self.delayed.len() < MAX_DELAYED {
                self.delayed.push_back(Delayed { link, bytes: bytes.to_vec() });
            }
            return;
        }
        self.begin(now, link, body);
    }

    /// Begins the flow for a request; none is under way.
    fn begin(&mut self, now: Instant, link: LinkId, body: &Body) {
        let core = &mut self.core;
        self.flow = match (core.role, body) {
            (Role::Client, Body::AddLink(offer)) => {
                ClientAdd::start(core, now, link, offer).map(Flow::ClientAdd)
            }
            (Role::Server, Body::AddLink(_)) => {
                ServerAdd::start(core, now, link, false).map(Flow::ServerAdd)
            }
            (Role::Server, Body::ReqAddLink(_)) => {
                ServerAdd::start(core, now, link, true).map(Flow::ServerAdd)
            }
            (Role::Client, Body::DeleteLink(message)) => {
                delete_link::obey(core, now, link, message);
                None
            }
            (Role::Server, Body::DeleteLink(message)) => {
                let DeleteTarget::Link(number) = message.target else { return };
                let victim = core.numbered(number).map(|victim| victim.id);
                let start = |victim| ServerDelete::start(core, now, victim, Some(link), *message);
                victim.and_then(start).map(Flow::Delete)
            }
            _ => None,
        };
    }

    /// Does what can be done now.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            rkey::settle_silent(&mut self.core);
            if let Some(reason) = self.core.doom.take() {
                return self.begin_end(now, false, reason);
            }
            if self.flow.is_some() || !matches!(self.phase, Phase::Open) || !self.begin_next(now) {
                return;
            }
        }
    }

    /// Begins what waits; whether something did.
    fn begin_next(&mut self, now: Instant) -> bool {
        if self.begin_delete(now) {
            return true;
        }
        if let Some(Delayed { link, bytes }) = self.delayed.pop_front() {
            if let Ok(message) = Message::parse(&bytes)
                && self.core.is_usable(link)
            {
                self.begin(now, link, &message.body);
            }
            return true;
        }
        let core = &mut self.core;
        if std::mem::take(&mut core.want_link) {
            let carrier = core.active().filter(|_| is_useful(core));
            self.flow = carrier.and_then(|carrier| match core.role {
                Role::Client => Request::start(core, now, carrier).map(Flow::Request),
                Role::Server => ServerAdd::start(core, now, carrier, false).map(Flow::ServerAdd),
            });
            return true;
        }
        if let Some(request) = self.requests.pop_front() {
            self.flow = Rkey::start(core, now, request).map(Flow::Rkey);
            return true;
        }
        false
    }

    /// Begins to delete a link that was lost, that an operator does not want, or that two symmetric
    /// links make superfluous (`smc_llc_delete_asym_link`); whether there was one.
    fn begin_delete(&mut self, now: Instant) -> bool {
        let core = &mut self.core;
        let is_server = core.role == Role::Server;
        let symmetric = is_server && core.redundancy == Redundancy::Symmetric;
        let asymmetric = core.asymmetric_link().filter(|_| symmetric);
        let why = |link: &Link| {
            if !link.is_usable() {
                Some(DeleteReason::LOST_PATH)
            } else if Some(link.id) == asymmetric {
                Some(DeleteReason::NO_ASYMMETRIC_NEEDED)
            } else {
                link.condemned
            }
        };
        let found = core.links().find_map(|link| Some((link.id, link.number, why(link)?)));
        let Some((victim, number, reason)) = found else { return false };
        if is_server {
            let message = delete_link::orderly(number, reason);
            let flow = ServerDelete::start(core, now, victim, None, message);
            self.flow = flow.map(Flow::Delete);
        } else if core.is_usable(victim) {
            delete_link::request(core, now, victim, reason);
            if let Some(link) = core.link_mut(victim) {
                link.condemned = None;
            }
        } else {
            delete_link::report(core, now, victim);
        }
        true
    }

    /// Gives up commands that waited too long for other flows.
    pub(super) fn expire_requests(&mut self, now: Instant) {
        // They are in the order of their times.
        while let Some(request) = self.requests.front()
            && request.deadline() <= now
        {
            let buffer = request.buffer;
            self.requests.pop_front();
            match self.core.buffers.get(buffer).map(|entry| entry.usage) {
                Some(Usage::Leaving) => rkey::finish_leave(&mut self.core, buffer, false),
                _ => rkey::finish_enter(&mut self.core, buffer, Err(BufferError::Timeout)),
            }
        }
    }

    pub(super) fn check_link(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.core.link_mut(id) else { return };
        let is_stuck = link.outbox.full_since().is_some_and(|since| since.after(SEND_WAIT) <= now);
        let verdict = if is_stuck { Verdict::Lost } else { link.test.check(now) };
        match verdict {
            Verdict::Fine => {}
            Verdict::Ask => {
                self.core.send(now, id, false, Body::TestLink(Default::default()));
            }
            Verdict::Lost => self.lose(now, id, Event::Down(id)),
        }
    }

    pub(super) fn begin_end(&mut self, now: Instant, orderly: bool, reason: DeleteReason) {
        if matches!(self.phase, Phase::Ending(_) | Phase::Gone) {
            return;
        }
        if let Some(Flow::FirstContact(_)) = self.flow.take() {
            self.core.wish(Wish::FirstContactFailed(Diagnosis::TIMEOUT_CL));
        }
        self.requests.clear();
        self.delayed.clear();
        match Ending::start(&mut self.core, now, orderly, reason) {
            Some(ending) => self.phase = Phase::Ending(ending),
            None => {
                ending::finish(&mut self.core, reason);
                self.phase = Phase::Gone;
            }
        }
    }

    pub(super) fn finish_end(&mut self) {
        if let Phase::Ending(ending) = &self.phase {
            ending::finish(&mut self.core, ending.reason());
            self.phase = Phase::Gone;
        }
    }
}
