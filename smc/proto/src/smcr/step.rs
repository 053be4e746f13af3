// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What flows are driven with.
//!
//! Invariant: an event is told after the group's state has changed accordingly.

use smc_wire::llc::Body;

use super::link::LinkId;

/// What may bring a flow forward.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// An LLC message came over a link.
    Message {
        /// Which link.
        link: LinkId,
        /// Whether it answers a request of ours.
        response: bool,
        /// What it says.
        body: &'a Body<'a>,
    },
    /// A link's queue pair exists.
    Created(LinkId),
    /// A memory region on a link was registered, or could not be.
    Registered(LinkId),
    /// All that was posted on a link has completed.
    Drained(LinkId),
    /// A link carries nothing more.
    Down(LinkId),
    /// A link carries nothing more since its queue pair could not be made or changed.
    Failed(LinkId),
    /// The flow's own deadline has passed.
    Deadline,
}

/// What an event did to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing: the event is not for this flow.
    Ignored,
    /// The flow goes on.
    Waiting,
    /// The flow is over.
    Done,
}
