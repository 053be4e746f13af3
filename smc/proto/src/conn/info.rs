// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a connection tells of itself.
//!
//! Invariant: getters change nothing, but for the error, which is told once.

use smc_wire::cdc::{ConnectionState, Cursor, ProducerFlags};

use super::Connection;
use super::close::State;
use super::error::Error;
use super::wish::Ready;

/// Cursors and flags, as `smcss --debug` shows them (`struct smc_diag_conninfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Bytes in the send ring.
    pub send_ring: u32,
    /// Bytes in our ring.
    pub ring: u32,
    /// Bytes in the peer's ring.
    pub peer_ring: u32,
    /// The peer's producer cursor.
    pub rx_prod: Cursor,
    /// The peer's consumer cursor.
    pub rx_cons: Cursor,
    /// Our producer cursor.
    pub tx_prod: Cursor,
    /// Our consumer cursor.
    pub tx_cons: Cursor,
    /// The peer's flags as a writer, without those that were obeyed.
    pub rx_flags: ProducerFlags,
    /// How far the peer has closed.
    pub rx_state: ConnectionState,
    /// Our flags as a writer.
    pub tx_flags: ProducerFlags,
    /// How far this side has closed.
    pub tx_state: ConnectionState,
    /// End of the application's bytes in the send ring.
    pub tx_prep: Cursor,
    /// End of the bytes that were sent.
    pub tx_sent: Cursor,
    /// End of the bytes whose room is free again.
    pub tx_fin: Cursor,
}

impl Connection {
    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// What ended the connection before its time; told once (SO_ERROR).
    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// What ended the connection before its time, if it was not told yet.
    pub fn error(&self) -> Option<Error> {
        self.error
    }

    /// Whether a read with no byte to give shall give the end of the stream.
    pub fn is_read_shut(&self) -> bool {
        self.read_shut || self.state == State::PeerFinCloseWait
    }

    /// What the application can do without waiting (`smc_poll`).
    pub fn readiness(&self) -> Ready {
        let over = self.state == State::Closed;
        let readable = self.unread() > 0 || self.read_shut || self.state == State::AppCloseWait1;
        Ready::READABLE.when(readable)
            | Ready::WRITABLE.when(self.tx.is_open() || self.write_shut)
            | Ready::URGENT.when(self.rx.mark.is_present())
            | Ready::ERROR.when(self.error.is_some())
            | Ready::HANG_UP.when(over || (self.read_shut && self.write_shut))
            | Ready::READ_CLOSED.when(self.read_shut)
    }

    /// Bytes that can be read, over all marks (SIOCINQ).
    pub fn unread(&self) -> u32 {
        if self.killed { 0 } else { self.rx.unread_in_stream() }
    }

    /// Bytes that take room in the send ring (SIOCOUTQ).
    pub fn unfinished(&self) -> u32 {
        self.tx.unsent + self.tx.inflight
    }

    /// Bytes that were not sent yet (SIOCOUTQNSD).
    pub fn unsent(&self) -> u32 {
        self.tx.unsent
    }

    /// Bytes that are free in the peer's ring.
    pub fn peer_free(&self) -> u32 {
        self.tx.free()
    }

    /// Whether the stream is at the urgent mark (SIOCATMARK).
    pub fn is_at_mark(&self) -> bool {
        self.rx.mark.is_at_mark()
    }

    /// Whether the peer will not write our ring any more, so that after
    /// [`Wish::Release`](super::Wish::Release) it may serve another connection; if not, it has to be
    /// given back to its device.
    ///
    /// That is so once the peer has said that it closed or aborted, unless it was blocked then (after
    /// its linger time it may go on with bytes that have waited) or the link was switched (it may
    /// repeat itself). Linux reuses the ring in any case, also that of a connection which it aborted
    /// itself; the old peer may then write into the new connection.
    pub fn is_ring_reusable(&self) -> bool {
        !self.killed && self.peer_closed() && !self.trailing && !self.link.was_switched()
    }

    /// All cursors and flags.
    pub fn info(&self) -> Info {
        let (tx, rx) = (&self.tx, &self.rx);
        Info {
            send_ring: tx.ring.len(),
            ring: rx.ring.len(),
            peer_ring: tx.peer.len(),
            rx_prod: rx.prod,
            rx_cons: tx.cons,
            tx_prod: tx.prod,
            tx_cons: rx.cons,
            rx_flags: rx.flags,
            rx_state: rx.state,
            tx_flags: self.producer_flags(),
            tx_state: self.sent_state,
            tx_prep: tx.ring.advance(tx.sent, tx.unsent),
            tx_sent: tx.sent,
            tx_fin: tx.ring.retreat(tx.sent, tx.inflight),
        }
    }
}
