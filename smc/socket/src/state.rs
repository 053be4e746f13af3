// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a process and its children have in common of a connection.
//!
//! Invariant: plain values without addresses, so they mean the same in each of them.
#![expect(unsafe_code, reason = "says that the state is plain")]

use smc_proto::conn::{Connection, Gone, Params};
use smc_ring::Plain;

/// A connection's state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) conn: Connection,
    pub(crate) common: Common,
}

/// What is known beside the machine.
#[derive(Debug)]
pub(crate) struct Common {
    /// The halves of our area that the machine has been told.
    pub(crate) seen: (u64, u64),
    /// The peer is dead: its area says nothing any more.
    pub(crate) peer_dead: bool,
    /// Our area says that a process looks by itself.
    pub(crate) watched: bool,
    /// Directions that the machine has shut down in TCP.
    pub(crate) tcp_shut: (bool, bool),
    /// TCP's end is our own doing.
    pub(crate) tcp_ended: bool,
    /// The rings are not touched any more.
    pub(crate) released: bool,
    /// SO_RCVLOWAT, at least 1.
    pub(crate) low_water: u32,
}

// SAFETY: numbers, flags and enumerations of them; the machine has no allocation and no reference.
unsafe impl Plain for State {}

impl State {
    /// A connection in its first state.
    pub(crate) fn new(params: &Params) -> Self {
        let common = Common {
            seen: (0, 0),
            peer_dead: false,
            watched: false,
            tcp_shut: (false, false),
            tcp_ended: false,
            released: false,
            low_water: 1,
        };
        Self { conn: Connection::new(params), common }
    }

    /// In place of one that a killed process left half changed: it tells the peer, unless the rings are given back
    /// already and another connection's perhaps.
    pub(crate) fn aborted(params: &Params, released: bool) -> Self {
        if released {
            return Self::over(params);
        }
        let mut state = Self::new(params);
        state.conn.abort();
        // What was said in our area is not known.
        state.common.watched = true;
        state
    }

    /// A connection that is over for this process: it says nothing to the peer, and touches neither TCP nor rings.
    pub(crate) fn over(params: &Params) -> Self {
        let mut state = Self::new(params);
        state.conn.handle_gone(Gone::Unreachable);
        while state.conn.poll_wish().is_some() {}
        (state.common.peer_dead, state.common.tcp_ended) = (true, true);
        state.common.released = true;
        state
    }
}
