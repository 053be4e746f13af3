// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a handshake ends without SMC: plain TCP for a [`Reason`], or no connection for a [`Failure`].
//!
//! Invariant: a `Reason` leaves the TCP connection as good as new, both sides having agreed on it or
//! being told; after a `Failure` nobody knows what the peer believes, and the connection must be
//! reset (`smc_connect_decline_fallback`: a reason above zero, or an error below).

use std::fmt;

use smc_wire::clc::{Diagnosis, Message};

/// Why a connection goes on as plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// What this side found; [`Diagnosis::PEERDECL`] if the peer declined.
    pub diagnosis: Diagnosis,
    /// What the peer said when it declined.
    pub peer: Option<Diagnosis>,
}

impl Reason {
    /// The peer declined and said why.
    pub(crate) fn declined(peer: Diagnosis) -> Self {
        Self { diagnosis: Diagnosis::PEERDECL, peer: Some(peer) }
    }
}

impl From<Diagnosis> for Reason {
    fn from(diagnosis: Diagnosis) -> Self {
        Self { diagnosis, peer: None }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.diagnosis)?;
        match self.peer {
            Some(peer) => write!(f, ": {peer}"),
            None => Ok(()),
        }
    }
}

/// A type of CLC message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What a client offers.
    Proposal,
    /// What the server takes of it.
    Accept,
    /// The client's answer to that.
    Confirm,
    /// Stay on TCP.
    Decline,
}

impl Kind {
    /// A message's type.
    pub(crate) fn of(message: &Message) -> Self {
        match message {
            Message::Proposal(_) => Self::Proposal,
            Message::Accept(_) => Self::Accept,
            Message::Confirm(_) => Self::Confirm,
            Message::Decline(_) => Self::Decline,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a connection is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The peer did not send what it should have in time (`ETIMEDOUT`).
    #[error("no CLC {0} from the peer in time")]
    Timeout(Kind),
    /// The TCP connection ended during the handshake (`ECONNRESET`).
    #[error("the peer ended the TCP connection during the handshake")]
    Reset,
    /// What came is not the message that it should be (`EPROTO`).
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] smc_wire::Error),
    /// Another message was due (`EPROTO`).
    #[error("the peer sent a CLC {came} where a {due} was due")]
    OutOfTurn {
        /// What came.
        came: Kind,
        /// What was due.
        due: Kind,
    },
    /// A message contradicts one before it (`EPROTO`).
    #[error("the peer's {0} is not what was agreed on")]
    Lie(&'static str),
    /// The peer's DMB could not be attached after both sides agreed on it.
    #[error("the peer's buffer could not be attached")]
    Attach,
    /// A server found in the Confirm what it would have declined before (`ECONNABORTED`); the client
    /// is established since it sent that.
    #[error("found after the client was through: {0}")]
    Late(Diagnosis),
    /// The link group, or the device under it, went away during the handshake (`ECONNABORTED`).
    #[error("the link group ended during the handshake")]
    GroupGone,
}

/// What a step of a handshake may end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Say so to the peer and go on with TCP.
    Decline(Diagnosis),
    /// Go on with TCP: the peer knows.
    Fallback(Reason),
    /// Reset the connection.
    Fail(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure)
    }
}

impl From<Diagnosis> for End {
    fn from(diagnosis: Diagnosis) -> Self {
        Self::Decline(diagnosis)
    }
}
