// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! First contact over the fabric: CONFIRM LINK on the first link, then the try for a second one
//! (`smcr_serv_conf_first_link`, `smcr_clnt_conf_first_link`).
//!
//! Invariant: ends with exactly one of [`Wish::FirstContactDone`] and [`Wish::FirstContactFailed`]; the
//! second link's failure is no failure (RFC 7609, 3.5.1).

use smc_wire::clc::Diagnosis;
use smc_wire::llc::{Body, ConfirmLink, DeleteReason};

use super::add_link_client::ClientAdd;
use super::add_link_server::ServerAdd;
use super::core::{Core, Role};
use super::link::LinkId;
use super::step::{Event, Progress};
use super::wish::Wish;
use super::{WAIT, confirm_link};
use crate::Instant;

/// The flow.
#[derive(Debug)]
pub(super) struct FirstContact {
    link: LinkId,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Confirming(Instant),
    /// Client only: the server may offer a second link.
    AwaitingOffer(Instant),
    ServerAdd(ServerAdd),
    ClientAdd(ClientAdd),
}

impl FirstContact {
    /// Begins on a link whose queue pair is connected.
    pub(super) fn start(core: &mut Core, now: Instant, link: LinkId) -> Option<Self> {
        let is_server = core.role == Role::Server;
        if is_server && !confirm_link::send(core, now, link, false) {
            fail(core, Diagnosis::TIMEOUT_CL);
            return None;
        }
        // The client waits twice as long as the server, so that the declines of both do not cross.
        let wait = if is_server { WAIT } else { 2 * WAIT };
        Some(Self { link, stage: Stage::Confirming(now.after(wait)) })
    }

    pub(super) fn deadline(&self) -> Instant {
        match &self.stage {
            Stage::Confirming(deadline) | Stage::AwaitingOffer(deadline) => *deadline,
            Stage::ServerAdd(flow) => flow.deadline,
            Stage::ClientAdd(flow) => flow.deadline,
        }
    }

    pub(super) fn step(&mut self, core: &mut Core, now: Instant, event: &Event) -> Progress {
        match (&mut self.stage, event) {
            (Stage::Confirming(_), &Event::Message { link, response, body }) => match body {
                Body::ConfirmLink(message)
                    if link == self.link && response == (core.role == Role::Server) =>
                {
                    self.confirm(core, now, message)
                }
                _ => Progress::Ignored,
            },
            (Stage::Confirming(_), Event::Deadline | Event::Down(_)) => {
                fail(core, Diagnosis::TIMEOUT_CL)
            }
            (Stage::Confirming(_), Event::Failed(_)) => fail(core, Diagnosis::ERR_RDYLNK),
            (Stage::AwaitingOffer(_), Event::Deadline | Event::Down(_) | Event::Failed(_)) => {
                done(core)
            }
            (Stage::AwaitingOffer(_), &Event::Message { link, response: false, body }) => {
                let Body::AddLink(offer) = body else { return Progress::Ignored };
                match ClientAdd::start(core, now, link, offer) {
                    Some(flow) => self.stage = Stage::ClientAdd(flow),
                    None => return done(core),
                }
                Progress::Waiting
            }
            (Stage::ServerAdd(flow), event) => finish(flow.step(core, now, event), core),
            (Stage::ClientAdd(flow), event) => finish(flow.step(core, now, event), core),
            _ => Progress::Ignored,
        }
    }

    fn confirm(&mut self, core: &mut Core, now: Instant, message: &ConfirmLink) -> Progress {
        let link = self.link;
        if !confirm_link::take(core, link, message) {
            return fail(core, Diagnosis::RMBE_EC);
        }
        if core.role == Role::Client {
            core.let_send(link);
            if !confirm_link::send(core, now, link, true) {
                return fail(core, Diagnosis::TIMEOUT_CL);
            }
        }
        core.activate(now, link);
        self.stage = match core.role {
            _ if core.max_links <= 1 => return done(core),
            Role::Client => Stage::AwaitingOffer(now.after(WAIT)),
            Role::Server => match ServerAdd::start(core, now, link, false) {
                Some(flow) => Stage::ServerAdd(flow),
                None => return done(core),
            },
        };
        Progress::Waiting
    }
}

fn finish(progress: Progress, core: &mut Core) -> Progress {
    if progress == Progress::Done { done(core) } else { progress }
}

fn done(core: &mut Core) -> Progress {
    match core.active() {
        Some(_) => core.wish(Wish::FirstContactDone),
        None => return fail(core, Diagnosis::TIMEOUT_CL),
    }
    Progress::Done
}

/// The first link cannot be used, and so the group neither (`smc_conn_abort`).
pub(super) fn fail(core: &mut Core, diagnosis: Diagnosis) -> Progress {
    core.wish(Wish::FirstContactFailed(diagnosis));
    core.end(DeleteReason::PROGRAM);
    Progress::Done
}
