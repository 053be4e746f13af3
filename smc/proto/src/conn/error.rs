// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What goes wrong with a connection.
//!
//! Invariant: each error names its errno, as Linux gives it.

use smc_wire::cdc::Cursor;

/// Why a connection ended before its time; the application gets it once, as from `SO_ERROR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The peer aborted: ECONNRESET.
    #[error("the peer aborted the connection")]
    Reset,
    /// The link group or the device is gone, or the application aborted: ECONNABORTED.
    #[error("the connection's way to the peer is gone")]
    Aborted,
    /// The peer broke the protocol, so this side aborted: ECONNABORTED.
    #[error("the connection was aborted: {0}")]
    Protocol(#[from] Lie),
}

/// What a peer wrote that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// The producer cursor is not in our ring, or not within the space that we gave.
    #[error(
        "producer cursor {}:{} after {}:{} in a ring of {ring} bytes, allowed: {allowed} bytes ahead",
        is.wrap, is.count, was.wrap, was.count
    )]
    Producer {
        /// The last one that was taken.
        was: Cursor,
        /// What the peer wrote.
        is: Cursor,
        /// Our ring's length.
        ring: u32,
        /// Bytes that the peer knew to be free.
        allowed: u32,
    },
    /// The consumer cursor is not in the peer's ring, or beyond what was sent.
    #[error(
        "consumer cursor {}:{} after {}:{} in a ring of {ring} bytes, allowed: {allowed} bytes ahead",
        is.wrap, is.count, was.wrap, was.count
    )]
    Consumer {
        /// The last one that was taken.
        was: Cursor,
        /// What the peer wrote.
        is: Cursor,
        /// The peer's ring's length.
        ring: u32,
        /// Bytes that were sent and not consumed yet.
        allowed: u32,
    },
    /// After a link's failure the peer claims a message as received that never came here.
    #[error("failover validation of message {claimed}, the last one received is {received}")]
    Validation {
        /// The last sequence number that was completed, as the peer says.
        claimed: u16,
        /// The last one that came.
        received: u16,
    },
}

/// Why nothing can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// This side is done with writing, or the connection is over: EPIPE.
    #[error("this side of the connection is shut down for writing")]
    Shutdown,
    /// The peer closed or aborted: ECONNRESET.
    #[error("the peer closed the connection")]
    Reset,
}

/// The connection is not in a state in which it can be shut down: ENOTCONN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed already")]
pub struct NotConnected;

/// Why there is no urgent byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoUrgent {
    /// None came, it was read, or it is in the stream (`SO_OOBINLINE`): EINVAL.
    #[error("there is no urgent byte")]
    Absent,
    /// It was announced and has not come yet: EAGAIN.
    #[error("the urgent byte has not come yet")]
    NotYet,
}
