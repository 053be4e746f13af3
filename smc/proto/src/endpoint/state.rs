// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A handshake under way.
//!
//! Invariant: waits for one thing at a time, which its [`State`] names.
//!
//! ```text
//! client                                        server
//! Proposing   the VLAN                          Listening   the Proposal
//!     │ Proposal ►                                  │
//! Proposed    the Accept                        Choosing    GID or next hop ◄─┐
//!     │                                             │                         │ not to be had
//! Getting     group, VLAN, buffers              Getting     group, VLAN, buffers
//!     │                                             │ Accept ►
//! Mapping     the peer's DMB                    Answered    the Confirm
//!                                                   │
//!     │ Confirm ►                               Attaching   the peer's DMB
//!     │                                             │
//!  (established)                                 (established)
//! ```

use arrayvec::ArrayVec;

use crate::Instant;
use crate::group::{Ask, Buffer, Role};
use crate::handshake::client::Chosen;
use crate::handshake::offer::Offer;
use crate::handshake::reason::Kind;
use crate::handshake::release::Terms;
use crate::handshake::route::Route;
use crate::handshake::server::{Choice, Way};
use crate::id::{ConnId, DeviceId, GroupId};
use crate::smcd::dmb::PeerElement;

/// A handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) conn: ConnId,
    pub(super) role: Role,
    pub(super) route: Route,
    pub(super) state: State,
    /// When it stops waiting.
    pub(super) deadline: Option<Instant>,
    /// Whether a Decline would be one of version 2.
    pub(super) v2: bool,
    /// What it holds of a link group.
    pub(super) held: Option<Held>,
    /// VLANs in which it keeps devices.
    pub(super) vlans: ArrayVec<(DeviceId, u16), 2>,
}

/// Membership of a link group, and the buffers there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) group: GroupId,
    pub(super) first: bool,
    pub(super) send: Option<Buffer>,
    pub(super) receive: Option<Buffer>,
}

/// What is waited for.
#[derive(Debug)]
pub(super) enum State {
    /// Client: the VLAN of the version 1 device.
    Proposing(Box<Offer>),
    /// Client: the Accept.
    Proposed(Box<Offer>),
    /// Server: the Proposal.
    Listening,
    /// Server: the answer to a question that the choice has.
    Choosing(Box<Choice>),
    /// What a way needs, so that its Accept or Confirm can be sent.
    Getting(Purpose, Wants, Phase),
    /// Client: the peer's DMB.
    Mapping(Chosen, Wants, PeerElement),
    /// Server: the Confirm.
    Answered(Way, Wants, Terms),
    /// Server: the peer's DMB.
    Attaching(Way, Wants, Terms, PeerElement),
}

/// What is gotten for which side.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To confirm what the server chose.
    Confirm(Chosen),
    /// To accept a way of the proposal; the choice goes on if it cannot be had.
    Accept(Box<Choice>, Way),
}

/// What a way needs of the link groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    pub(super) ask: Ask,
    /// Client: the server begins a group.
    pub(super) first: bool,
    /// SMC-D: over which device.
    pub(super) device: DeviceId,
    /// SMC-D: the peer's DMB is written in place.
    pub(super) mapped: bool,
}

/// The steps of getting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Another handshake's first contact with the same peer.
    FirstContact(GroupId),
    /// The device's VLAN.
    Vlan,
    /// The send buffer or the receive buffer.
    Buffers,
}

impl Handshake {
    pub(super) fn new(conn: ConnId, role: Role, route: &Route, state: State) -> Self {
        Self {
            conn,
            role,
            route: *route,
            state,
            deadline: None,
            v2: false,
            held: None,
            vlans: ArrayVec::new(),
        }
    }

    /// The link group whose first contact it waits for.
    pub(super) fn waits_for(&self) -> Option<GroupId> {
        match self.state {
            State::Getting(_, _, Phase::FirstContact(group)) => Some(group),
            _ => None,
        }
    }

    /// The CLC message that is due, if one is.
    pub(super) fn due(&self) -> Option<Kind> {
        match self.state {
            State::Proposed(_) => Some(Kind::Accept),
            State::Listening => Some(Kind::Proposal),
            State::Answered(..) => Some(Kind::Confirm),
            _ => None,
        }
    }
}

impl State {
    /// What is left of a state that was taken out.
    pub(super) const TAKEN: Self = Self::Listening;
}
