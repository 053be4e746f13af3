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

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;
use smc_wire::cdc;
use smc_wire::clc::Diagnosis;
use smc_wire::id::{AlertToken, Eid, Mac};
use smc_wire::size::BufferSize;

use crate::Instant;
use crate::group::{Ask, Buffer, Role, Version};
use crate::handshake::client::Chosen;
use crate::handshake::offer::Offer;
use crate::handshake::reason::Kind;
use crate::handshake::release::Terms;
use crate::handshake::route::Route;
use crate::handshake::server::{Choice, Way};
use crate::id::{ConnId, DeviceId, GroupId};
use crate::smcd::dmb::PeerElement;
use crate::smcr::qp::{PeerEnd, Port};
use crate::smcr::{LinkId, RtokenIndex};

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
    /// A client that goes on as TCP when its time is over.
    pub(super) impatient: bool,
    /// What it holds of a link group.
    pub(super) held: Option<Held>,
    /// VLANs in which it keeps devices.
    pub(super) vlans: ArrayVec<(DeviceId, u16), 2>,
    /// SMC-R: what the peer published before this handshake was through.
    pub(super) early: Vec<cdc::Smcr>,
}

/// Membership of a link group, and the buffers there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) group: GroupId,
    pub(super) first: bool,
    pub(super) send: Option<Buffer>,
    pub(super) receive: Option<Buffer>,
    /// SMC-R: on which link.
    pub(super) link: Option<LinkId>,
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
    /// Client: the next hop to the server's RoCE port.
    Resolving(Box<Offer>, Chosen),
    /// Client: the peer's DMB.
    Mapping(Chosen, Wants, PeerElement),
    /// Server: the Confirm.
    Answered(Way, Wants, Terms),
    /// Server: the peer's DMB.
    Attaching(Agreed, Wants, PeerElement),
    /// SMC-R: the first contact over the fabric; when the first link was confirmed.
    Linking(Agreed, Remote, Option<Instant>),
    /// SMC-R client: the Decline of a server that offered no second link.
    Linked(Agreed, Remote),
    /// SMC-R: the peer's Decline, which may say why the first contact failed.
    LastWord(Diagnosis),
}

/// What both sides have agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    pub(super) version: Version,
    pub(super) eid: Option<Eid>,
    pub(super) terms: Terms,
}

/// The peer's RMB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote {
    pub(super) index: RtokenIndex,
    pub(super) offset: u32,
    pub(super) size: BufferSize,
    pub(super) token: AlertToken,
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
    pub(super) over: Over,
}

/// What the way goes over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Over {
    /// SMC-D.
    Ism {
        device: DeviceId,
        /// The peer's DMB is written in place.
        mapped: bool,
    },
    /// SMC-R.
    Roce {
        port: Port,
        local: Option<Ipv4Addr>,
        gateway: Option<Mac>,
        terms: Terms,
        /// Client: the server's end of the link.
        server: Option<PeerEnd>,
    },
}

impl Over {
    /// Whether a send buffer is needed.
    pub(super) fn copies(&self) -> bool {
        !matches!(self, Self::Ism { mapped: true, .. })
    }
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
    /// SMC-R: the queue pair and the memory regions.
    Links,
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
            impatient: false,
            held: None,
            vlans: ArrayVec::new(),
            early: Vec::new(),
        }
    }

    /// The link group for whose progress it waits.
    pub(super) fn waits_for(&self) -> Option<GroupId> {
        match self.state {
            State::Getting(_, _, Phase::FirstContact(group)) => Some(group),
            State::Getting(_, Wants { over: Over::Roce { .. }, .. }, _) | State::Linking(..) => {
                self.held.map(|held| held.group)
            }
            _ => None,
        }
    }

    /// The CLC message that is due, if one is.
    pub(super) fn due(&self) -> Option<Kind> {
        match self.state {
            State::Proposed(_) => Some(Kind::Accept),
            State::Listening => Some(Kind::Proposal),
            State::Answered(..) => Some(Kind::Confirm),
            State::Linking(..) | State::Linked(..) | State::LastWord(_) => Some(Kind::Decline),
            _ => None,
        }
    }
}

impl State {
    /// What is left of a state that was taken out.
    pub(super) const TAKEN: Self = Self::Listening;

    /// Another handshake's first contact.
    pub(super) fn is_first_contact(&self) -> bool {
        matches!(self, Self::Getting(_, _, Phase::FirstContact(_)))
    }

    /// The peer's DMB.
    pub(super) fn is_attaching(&self) -> bool {
        matches!(self, Self::Mapping(..) | Self::Attaching(..))
    }

    /// A buffer.
    pub(super) fn is_buffering(&self) -> bool {
        matches!(self, Self::Getting(_, _, Phase::Buffers))
    }

    /// A GID, or a next hop.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self, Self::Choosing(_) | Self::Resolving(..))
    }
}
