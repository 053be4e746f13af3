// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One side of a connection, as its application has it.
//!
//! Invariant: has rings only while it is [`Phase::Smc`]; what the application is told is judged by
//! the [`Stream`]s at once.

use smc_proto::Instant;
use smc_proto::conn::Connection;
use smc_proto::conn::close::State;
use smc_proto::endpoint::{CLC_WAIT_SHORT, Established, Late, Path};
use smc_proto::id::ConnId;
use smc_proto::smcr::{Route, RtokenIndex};
use smc_wire::id::DmbToken;

use crate::model::Stream;

/// Where a side stands.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its handshake is under way; the application waits.
    Handshake,
    /// On SMC.
    Smc(Box<Smc>),
    /// On TCP, with these bytes to read.
    Plain(Vec<u8>),
    /// No connection any more.
    Over,
}

/// A side on SMC.
#[derive(Debug)]
pub(crate) struct Smc {
    pub(crate) conn: Connection,
    pub(crate) established: Established,
    /// The state when it was looked at last.
    pub(crate) state: State,
    /// SMC-R: how bytes reach the peer now.
    pub(crate) route: Option<Route>,
    /// A copied sender's send ring.
    pub(crate) send: Vec<u8>,
    /// What [`Established`] took was given back.
    pub(crate) released: bool,
}

impl Smc {
    /// A connection as the handshake settled it.
    pub(crate) fn new(established: Established) -> Self {
        let conn = Connection::new(&established.params);
        let state = conn.state();
        let (send, route) = match &established.path {
            Path::Copied { send, .. } => (send.size.bytes(), None),
            Path::Mapped { .. } => (0, None),
            Path::Rdma { send, route, .. } => (send.size.bytes(), Some(*route)),
        };
        Self { conn, established, state, route, send: vec![0; send as usize], released: false }
    }

    /// SMC-R: the peer's RMB, and where the ring begins in it.
    pub(crate) fn remote(&self) -> Option<(RtokenIndex, u32)> {
        match &self.established.path {
            Path::Rdma { index, offset, .. } => Some((*index, *offset)),
            _ => None,
        }
    }

    /// What the peer writes.
    pub(crate) fn token(&self) -> DmbToken {
        self.established.receive.dmb.token
    }
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    /// The end it is at.
    pub(crate) host: usize,
    /// What its endpoint calls it; 0 before it is accepted.
    pub(crate) id: ConnId,
    pub(crate) phase: Phase,
    /// What TCP brought and nobody has taken.
    pub(crate) tcp: Vec<u8>,
    /// What of the handshake may still come before the data of a connection on TCP; and since when
    /// something that may be its begin is there.
    pub(crate) late: (Late, Option<Instant>),
    /// The application has closed.
    pub(crate) closed: bool,
    /// The application was told of the end of what it receives.
    pub(crate) ended: bool,
}

impl Socket {
    /// A side whose handshake begins.
    pub(crate) fn new(host: usize, id: ConnId) -> Self {
        let (late, closed, ended) = ((Late::Nothing, None), false, false);
        Self { host, id, phase: Phase::Handshake, tcp: Vec::new(), late, closed, ended }
    }

    /// On TCP: takes the peer's late word out of what has come. Whether the data may be read; what was
    /// taken out.
    pub(crate) fn take_late(&mut self, now: Instant) -> (bool, usize) {
        let Phase::Plain(inbox) = &mut self.phase else { return (true, 0) };
        let (late, since) = self.late;
        if late == Late::Nothing || inbox.is_empty() {
            return (late == Late::Nothing, 0);
        }
        let since = since.unwrap_or(now);
        let len = match late.len_in(inbox) {
            None if now.since(since) < CLC_WAIT_SHORT => {
                self.late.1 = Some(since);
                return (false, 0);
            }
            len => len.unwrap_or(0),
        };
        inbox.drain(..len);
        self.late = (Late::Nothing, None);
        (true, len)
    }

    /// The side on SMC, if it is.
    pub(crate) fn smc(&mut self) -> Option<&mut Smc> {
        match &mut self.phase {
            Phase::Smc(smc) => Some(smc),
            _ => None,
        }
    }
}

/// A connection of a script: side 0 connected, side 1 accepted.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) sides: [Socket; 2],
    /// What each side sends.
    pub(crate) streams: [Stream; 2],
}

impl Pair {
    /// Both directions may end in a reset from now on.
    pub(crate) fn break_for(&mut self, why: &'static str) {
        for stream in &mut self.streams {
            stream.break_for(why);
        }
    }
}
