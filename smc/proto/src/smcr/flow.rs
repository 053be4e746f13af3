// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The one flow of ours that is under way (`llc_flow_lcl`).
//!
//! Invariant: each flow has a deadline, so none holds up the others for ever.

use super::add_link_client::ClientAdd;
use super::add_link_server::ServerAdd;
use super::core::Core;
use super::delete_link::ServerDelete;
use super::first_contact::FirstContact;
use super::req_add_link::Request;
use super::rkey::Rkey;
use super::step::{Event, Progress};
use crate::Instant;

/// A flow.
#[derive(Debug)]
pub(super) enum Flow {
    FirstContact(FirstContact),
    ServerAdd(ServerAdd),
    ClientAdd(ClientAdd),
    Request(Request),
    Delete(ServerDelete),
    Rkey(Rkey),
}

impl Flow {
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::FirstContact(flow) => flow.deadline(),
            Self::ServerAdd(flow) => flow.deadline,
            Self::ClientAdd(flow) => flow.deadline,
            Self::Request(flow) => flow.deadline,
            Self::Delete(flow) => flow.deadline,
            Self::Rkey(flow) => flow.deadline,
        }
    }

    pub(super) fn step(&mut self, core: &mut Core, now: Instant, event: &Event) -> Progress {
        match self {
            Self::FirstContact(flow) => flow.step(core, now, event),
            Self::ServerAdd(flow) => flow.step(core, now, event),
            Self::ClientAdd(flow) => flow.step(core, now, event),
            Self::Request(_) => Request::step(event),
            Self::Delete(flow) => flow.step(core, now, event),
            Self::Rkey(flow) => flow.step(core, now, event),
        }
    }
}
