// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a handshake settled about a connection.
//!
//! Invariant: plain values; the rings' lengths are bounded by [`Ring`].

use smc_wire::id::AlertToken;

use super::cursor::Ring;

/// What [`Connection::new`](super::Connection::new) needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// The ring that the peer writes: our DMB's or RMB's.
    pub ring: Ring,
    /// The ring that we write, as the peer announced it.
    pub peer_ring: Ring,
    /// How bytes get there.
    pub sender: Sender,
}

/// How bytes get into the peer's ring, which decides when room in the send ring comes back.
///
/// Each side decides for itself; the peer sees no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// SMC-D with a send ring of our own: bytes are copied by `move_data`, and their room is free
    /// again when the CDC behind them was written (`smcd_cdc_msg_send`).
    Copied {
        /// The send ring.
        ring: Ring,
    },
    /// SMC-D with the peer's DMB mapped ("nocopy"): the application's bytes go straight into the
    /// peer's ring, and their room is free when the peer has consumed them.
    ///
    /// The mapping must hold the whole peer ring, `peer_ring` + 32 bytes: Linux does not compare.
    Mapped,
    /// SMC-R: bytes are written by RDMA, and their room is free when the CDC behind them was
    /// completed (`smc_cdc_tx_handler`).
    Rdma {
        /// The send ring.
        ring: Ring,
        /// The peer's token for the connection, for each CDC message.
        token: AlertToken,
        /// At most this much is held back while a CDC message is under way
        /// (`net.smc.autocorking_size`); see [`AUTOCORK`].
        autocork: u32,
    },
}

/// Linux's `net.smc.autocorking_size`: 64 KiB.
pub const AUTOCORK: u32 = 64 << 10;
