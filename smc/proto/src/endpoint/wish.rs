// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an endpoint wants done, and what it hands over at a handshake's end.
//!
//! Invariant: a handshake ends with exactly one of [`Wish::Established`], [`Wish::Fallback`] and
//! [`Wish::Failed`], after the last of its other wishes.

use std::net::Ipv4Addr;

use smc_wire::cdc;
use smc_wire::id::{AlertToken, DmbToken, Eid, IsmGid};
use smc_wire::size::BufferSize;

use super::late::Late;
use crate::conn::{AUTOCORK, Params, Ring, Sender};
use crate::group::{self, Buffer, Role, Version};
use crate::handshake::reason::{Failure, Reason};
use crate::handshake::release::Terms;
use crate::id::{ConnId, DeviceId, GroupId};
use crate::smcd::dmb::PeerElement;
use crate::smcr::{self, RtokenIndex};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Write these bytes to the TCP connection; if that fails:
    /// [`Endpoint::handle_tcp_end`](super::Endpoint::handle_tcp_end).
    SendClc {
        /// The connection.
        conn: ConnId,
        /// A CLC message.
        message: Box<[u8]>,
    },
    /// Find out whether the device reaches a peer's GID (`query_remote_gid`), then
    /// [`Endpoint::handle_remote_gid`](super::Endpoint::handle_remote_gid).
    QueryRemoteGid {
        /// The connection that wants to know.
        conn: ConnId,
        /// Our device.
        device: DeviceId,
        /// The peer's.
        gid: IsmGid,
        /// The VLAN to look in; 0 for none, 0x1FFF for any.
        vlan: u16,
    },
    /// Find out by which next hop packets reach a RoCE port, then
    /// [`Endpoint::handle_next_hop`](super::Endpoint::handle_next_hop).
    ResolveNextHop {
        /// The connection that wants to know.
        conn: ConnId,
        /// Our address.
        from: Ipv4Addr,
        /// The address that the peer's GID stands for.
        to: Ipv4Addr,
    },
    /// Map the peer's DMB (`attach_dmb`), then
    /// [`Endpoint::handle_attached`](super::Endpoint::handle_attached).
    Attach {
        /// The connection that will write it.
        conn: ConnId,
        /// Our device.
        device: DeviceId,
        /// The peer's DMB.
        token: DmbToken,
    },
    /// Unmap a DMB again that was attached too late: its handshake has ended.
    Detach {
        /// Our device.
        device: DeviceId,
        /// The peer's DMB.
        token: DmbToken,
    },
    /// The connection moves to SMC.
    ///
    /// The peer may have written already: look at the CDC area at once, a signal may have gone by
    /// when nobody knew whose it was.
    ///
    /// From here on TCP carries no data: what still comes there (the Decline of a peer that failed
    /// after its last word) is left unread, and only the end of the stream counts.
    Established(Box<Established>),
    /// The connection goes on as plain TCP.
    Fallback {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: Reason,
        /// What of the handshake may still come before the data.
        late: Late,
    },
    /// The connection must be reset.
    Failed {
        /// The connection.
        conn: ConnId,
        /// Why.
        failure: Failure,
    },
    /// An established connection's link group ended: abort it (`ECONNABORTED`), then
    /// [`Endpoint::release`](super::Endpoint::release) it.
    Abort {
        /// The connection.
        conn: ConnId,
        /// Whether the peer is there to be told by a CDC message with the abort flag: not if it has
        /// gone, or no link is left. Where our own ISM device goes it is tried, as in Linux.
        tell_peer: bool,
    },
    /// A link group's queue pairs and memory regions: never one of those that an endpoint sees to
    /// itself ([`smcr::Wish::FirstContactDone`], `FirstContactFailed`, `LinkUp`, `BufferReady`,
    /// `BufferFree`, `KillConnection` and `GroupGone`).
    Links {
        /// The group.
        group: GroupId,
        /// What it wants.
        wish: smcr::Wish,
    },
    /// The link groups want something: buffers, events, VLANs. Never [`group::Wish::Kill`], which
    /// is [`Wish::Abort`] here, nor [`group::Wish::EndLinks`].
    Group(group::Wish),
}

/// A connection after its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Established {
    /// Its name.
    pub conn: ConnId,
    /// Our side.
    pub role: Role,
    /// The version that was chosen.
    pub version: Version,
    /// Its link group.
    pub group: GroupId,
    /// Whether the group began with it.
    pub first_contact: bool,
    /// The enterprise id of version 2.
    pub eid: Option<Eid>,
    /// Release, limits and features; of a first contact.
    pub terms: Terms,
    /// What [`crate::conn::Connection::new`] needs.
    pub params: Params,
    /// What the peer writes.
    pub receive: Buffer,
    /// How we write.
    pub path: Path,
}

/// How bytes reach the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// SMC-D: from our send buffer into the peer's DMB, by `move_data`.
    Copied {
        /// Our device.
        device: DeviceId,
        /// Our send buffer.
        send: Buffer,
        /// The peer's element.
        peer: PeerElement,
    },
    /// SMC-D: in the peer's DMB itself, which is attached; to be detached when the connection is
    /// released.
    Mapped {
        /// Our device.
        device: DeviceId,
        /// The peer's element.
        peer: PeerElement,
    },
    /// SMC-R: from our send buffer into the peer's RMB, by RDMA writes.
    Rdma {
        /// Our send buffer.
        send: Buffer,
        /// On which queue pair, with which key.
        route: smcr::Route,
        /// The peer's RMB, for its key on another link.
        index: RtokenIndex,
        /// Bytes from the RMB's begin to the ring.
        offset: u32,
        /// The ring's size.
        size: BufferSize,
        /// The connection's name at the peer.
        token: AlertToken,
        /// CDC messages that came before the handshake was through, to be handled first.
        early: Vec<cdc::Smcr>,
    },
}

impl Path {
    /// SMC-D: the peer's element.
    pub fn element(&self) -> Option<&PeerElement> {
        match self {
            Self::Copied { peer, .. } | Self::Mapped { peer, .. } => Some(peer),
            Self::Rdma { .. } => None,
        }
    }

    /// The connection's rings and its sender, with `receive` as the ring that the peer writes.
    pub(super) fn params(&self, receive: &Buffer) -> Option<Params> {
        let dmb = Ring::of_dmb(receive.size.bytes())?;
        let whole = Ring::new(receive.size.bytes())?;
        let ring = if matches!(self, Self::Rdma { .. }) { whole } else { dmb };
        let (peer_ring, sender) = match self {
            Self::Copied { send, peer, .. } => {
                (peer.ring_len(), Sender::Copied { ring: Ring::new(send.size.bytes())? })
            }
            Self::Mapped { peer, .. } => (peer.ring_len(), Sender::Mapped),
            Self::Rdma { send, size, token, .. } => {
                let ring = Ring::new(send.size.bytes())?;
                (size.bytes(), Sender::Rdma { ring, token: *token, autocork: AUTOCORK })
            }
        };
        Some(Params { ring, peer_ring: Ring::new(peer_ring)?, sender })
    }
}
