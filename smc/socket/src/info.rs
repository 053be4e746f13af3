// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a socket tells of itself, for `smcss` and statistics.
//!
//! Invariant: plain values, taken at one moment; asking changes nothing.

use smc_proto::conn;
use smc_proto::conn::close::State;
use smc_proto::group::Version;
use smc_proto::id::{ConnId, GroupId};
use smc_proto::smcd::dmb::PeerElement;
use smc_wire::id::{DmbToken, Eid};

use crate::channel::{Channel, Inner};
use crate::socket::{Handshake, Socket};
use crate::types::Role;

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its number in this process.
    pub id: ConnId,
    /// Which side it is.
    pub role: Role,
    /// How its handshake stands, with the reason of a fallback.
    pub handshake: Handshake,
    /// The connection, if it is one of SMC.
    pub smc: Option<Smc>,
}

/// A connection of SMC-D.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smc {
    /// Its state, as `smcss` numbers them.
    pub state: State,
    /// Its link group, a number of this process.
    pub group: GroupId,
    /// The link group began with it.
    pub first_contact: bool,
    /// The version of SMC that was agreed on.
    pub version: Version,
    /// The enterprise id of version 2.
    pub eid: Option<Eid>,
    /// Our DMB.
    pub token: DmbToken,
    /// The peer's.
    pub peer_token: DmbToken,
    /// Cursors, flags and rings.
    pub cursors: conn::Info,
    /// Bytes that came and were not read.
    pub unread: u32,
    /// Bytes that the peer has not read, as far as it has said.
    pub unfinished: u32,
    /// Bytes that were sent, and calls that sent some.
    pub sent: (u64, u64),
    /// Bytes that were received, and calls that received some.
    pub received: (u64, u64),
}

impl Smc {
    fn of(channel: &Channel, inner: &Inner<'_>) -> Self {
        let established = &channel.established;
        let [sent, received] = inner.local.tally.traffic();
        let peer = established.path.element().map(PeerElement::token);
        Self {
            state: inner.conn.state(),
            group: established.group,
            first_contact: established.first_contact,
            version: established.version,
            eid: established.eid,
            token: established.receive.dmb.token,
            peer_token: peer.unwrap_or_default(),
            cursors: inner.conn.info(),
            unread: inner.conn.unread(),
            unfinished: inner.conn.unfinished(),
            sent,
            received,
        }
    }
}

impl Socket {
    /// All that can be said of it.
    pub fn info(&self) -> Info {
        let smc = self.channel().and_then(|channel| self.with(|inner| Smc::of(channel, inner)));
        Info {
            id: self.shared.id,
            role: self.role(),
            handshake: self.handshake(),
            // Without a connection there is nothing to be said.
            smc: smc.ok(),
        }
    }
}
