// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why bytes are not the message they should be.
//!
//! Invariant: names the field as the specification does, what it held and what is allowed.

/// Why a message could not be parsed or emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end before the message does, or the buffer is too small for it.
    #[error("{what}: {need} bytes needed, {have} there")]
    Short {
        /// The message or area.
        what: &'static str,
        /// Bytes that it needs.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A field holds what the protocol does not allow.
    #[error("{field} is {value:#x}, allowed: {allowed}")]
    Field {
        /// The field, as `message.field`.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        allowed: &'static str,
    },
}
