// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors: of setting up a stack, and errno values as TCP gives them.
//!
//! Invariant: an application sees no error number that TCP does not give.

use std::io;

use rustix::io::Errno;
use smc_proto::config::ConfigError;
use smc_proto::conn::{NoUrgent, SendError};
use smc_proto::handshake::reason::Failure;

/// Why there is no stack.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A value of the configuration is out of its bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no memory for connections.
    #[error(transparent)]
    Memory(#[from] smc_ring::MapError),
    /// There are no descriptors.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The enterprise id cannot be used.
    #[error("the EID {eid:?} cannot be used: {why}")]
    Eid {
        /// The id.
        eid: String,
        /// Why.
        why: smc_wire::Error,
    },
}

/// The connection was lost: EPIPE and ECONNABORTED of SMC are ECONNRESET of TCP here.
pub(crate) fn lost() -> io::Error {
    Errno::CONNRESET.into()
}

/// Nothing can be done without waiting.
pub(crate) fn would_block() -> io::Error {
    Errno::AGAIN.into()
}

/// The socket is not, or not any more, one of SMC.
pub(crate) fn not_connected() -> io::Error {
    Errno::NOTCONN.into()
}

/// Why nothing can be sent. After the peer has closed, TCP too says EPIPE: its second segment has met
/// a reset.
pub(crate) fn sending(error: SendError) -> io::Error {
    match error {
        SendError::Shutdown | SendError::Reset => Errno::PIPE.into(),
    }
}

/// Why there is no urgent byte.
pub(crate) fn urgent(error: NoUrgent) -> io::Error {
    match error {
        NoUrgent::Absent => Errno::INVAL.into(),
        NoUrgent::NotYet => would_block(),
    }
}

/// What a failed handshake looks like to who waits for the connection.
pub(crate) fn handshake(failure: Failure) -> io::Error {
    match failure {
        Failure::Timeout(_) => Errno::TIMEDOUT.into(),
        _ => lost(),
    }
}
