// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The way out: a send ring, the peer's ring, and how far each is used (`smc_tx.c`).
//!
//! Invariant: `unsent + inflight <= send ring`, `unconsumed <= peer ring`, and the bytes between the
//! peer's consumer cursor and our producer cursor are exactly `unconsumed`.
//!
//! ```text
//!  send ring   ──┬─────────────┬────────────┬──────   room = ring - inflight - unsent
//!                │  inflight   │   unsent   │
//!             (fin)          sent        (prep)
//!  peer's ring ──┬─────────────┬───────────────────   free = peer ring - unconsumed
//!                │ unconsumed  │
//!              cons          prod
//! ```
//! `fin`, `sent` and `prep` are the kernel's `tx_curs_*`. A mapped sender's two rings are one, and its
//! `inflight` is `unconsumed`.

use smc_wire::cdc::Cursor;

use super::cursor::{Chunks, Ring};
use super::error::Lie;
use super::params::{Params, Sender};
use super::urgent::Outgoing;
use super::wish::Write;

/// Where room in the send ring comes back from: [`Sender`] without what else it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Copied,
    Mapped,
    Rdma,
}

/// Cursors and amounts of the sending side.
#[derive(Debug)]
pub(super) struct Tx {
    pub(super) kind: Kind,
    pub(super) ring: Ring,
    pub(super) peer: Ring,
    /// Our producer cursor in the peer's ring.
    pub(super) prod: Cursor,
    /// The peer's consumer cursor.
    pub(super) cons: Cursor,
    /// The first unsent byte of the send ring.
    pub(super) sent: Cursor,
    /// Bytes that the application gave and that are not in the peer's ring.
    pub(super) unsent: u32,
    /// Bytes that were sent and still take room in the send ring.
    pub(super) inflight: u32,
    /// Bytes in the peer's ring.
    pub(super) unconsumed: u32,
    /// Bytes behind `prod` that a broken link may have carried over nevertheless.
    pub(super) replay: u32,
    /// A mapped sender's bytes in the peer's ring are no more than so many.
    pub(super) limit: u32,
    /// Bytes ever sent, modulo 2^32.
    pub(super) total: u32,
    pub(super) urgent: Outgoing,
}

impl Tx {
    pub(super) fn new(params: &Params) -> Self {
        let (kind, ring) = match params.sender {
            Sender::Copied { ring } => (Kind::Copied, ring),
            Sender::Mapped => (Kind::Mapped, params.peer_ring),
            Sender::Rdma { ring, .. } => (Kind::Rdma, ring),
        };
        Self {
            kind,
            ring,
            peer: params.peer_ring,
            prod: Cursor::START,
            cons: Cursor::START,
            sent: Cursor::START,
            unsent: 0,
            inflight: 0,
            unconsumed: 0,
            replay: 0,
            limit: u32::MAX,
            total: 0,
            urgent: Outgoing::None,
        }
    }

    /// Bytes that the application may write into the send ring (`sndbuf_space`).
    pub(super) const fn room(&self) -> u32 {
        let ring = self.ring.len();
        let most = if self.limit < ring { self.limit } else { ring };
        most.saturating_sub(self.inflight + self.unsent)
    }

    /// Whether the limit alone keeps the application from writing more: the peer's reading ends that.
    pub(super) fn is_limited(&self) -> bool {
        self.kind == Kind::Mapped && self.limit < self.ring.len() && self.room() == 0
    }

    /// Where they are.
    pub(super) fn room_chunks(&self) -> Chunks {
        let prep = self.ring.advance(self.sent, self.unsent);
        self.ring.chunks(prep.count, self.room())
    }

    /// Whether the application may write: there is room, and no urgent byte waits for the peer.
    pub(super) fn is_open(&self) -> bool {
        self.urgent == Outgoing::None && self.room() > 0
    }

    /// Bytes that fit into the peer's ring (`peer_rmbe_space`).
    pub(super) const fn free(&self) -> u32 {
        self.peer.len() - self.unconsumed
    }

    /// Whether all that the application gave fits into the peer's ring.
    pub(super) const fn drains(&self) -> bool {
        self.unsent <= self.free()
    }

    /// The application wrote `n` more bytes, at most the room.
    pub(super) const fn commit(&mut self, n: u32) {
        self.unsent += n;
    }

    /// The next piece that has to be copied, which then counts as sent.
    ///
    /// A mapped sender has nothing to copy: all that it may send is sent at once.
    pub(super) fn next_write(&mut self) -> Option<Write> {
        let n = self.unsent.min(self.free());
        if self.kind == Kind::Mapped {
            self.advance(n);
            return None;
        }
        if n == 0 {
            return None;
        }
        let (from, to) = (self.sent.count, self.prod.count);
        let len = n.min(self.ring.len() - from).min(self.peer.len() - to);
        self.advance(len);
        Some(Write { from, to, len })
    }

    fn advance(&mut self, n: u32) {
        self.sent = self.ring.advance(self.sent, n);
        self.prod = self.peer.advance(self.prod, n);
        self.unsent -= n;
        self.inflight += n;
        self.unconsumed += n;
        self.replay = self.replay.saturating_sub(n);
        self.total = self.total.wrapping_add(n);
        if self.unsent == 0 && self.urgent == Outgoing::Staged {
            self.urgent = Outgoing::Due;
        }
    }

    /// A CDC behind all that was sent is written: a copied sender's room is free again.
    pub(super) const fn published(&mut self) {
        if matches!(self.kind, Kind::Copied) {
            self.inflight = 0;
        }
        self.urgent.published();
    }

    /// The CDC message behind the first `total` bytes is completed.
    pub(super) const fn completed(&mut self, total: u32) {
        let left = self.total.wrapping_sub(total);
        if left < self.inflight {
            self.inflight = left;
        }
    }

    /// Bytes by which the peer's consumer cursor `is` is ahead of the last one, 0 if it is behind and
    /// `stale` messages are to be expected.
    ///
    /// # Errors
    /// [`Lie::Consumer`]
    pub(super) fn judge(&self, is: Cursor, stale: bool) -> Result<u32, Lie> {
        if is == self.cons {
            return Ok(0);
        }
        let allowed = self.unconsumed + self.replay;
        match self.peer.distance(self.cons, is) {
            Some(credit) if credit <= allowed => Ok(credit),
            None if stale && self.peer.repeats(is, self.cons) => Ok(0),
            _ => Err(Lie::Consumer { was: self.cons, is, ring: self.peer.len(), allowed }),
        }
    }

    /// The peer consumed `n` more bytes, as judged.
    pub(super) fn credit(&mut self, n: u32) {
        if n > self.unconsumed {
            self.skip(n - self.unconsumed);
        }
        self.cons = self.peer.advance(self.cons, n);
        self.unconsumed -= n;
        if self.kind == Kind::Mapped {
            self.inflight -= n;
        }
        if self.unconsumed == 0 && self.urgent == Outgoing::Sent {
            self.urgent = Outgoing::None;
        }
    }

    /// `n` bytes that were to be sent again had arrived.
    fn skip(&mut self, n: u32) {
        self.sent = self.ring.advance(self.sent, n);
        self.prod = self.peer.advance(self.prod, n);
        self.unsent -= n;
        self.unconsumed += n;
        self.replay -= n;
        if self.unsent == 0 && self.urgent == Outgoing::Staged {
            self.urgent = Outgoing::Sent;
        }
    }

    /// The link broke: goes back to what was completed, but not behind what the peer has consumed,
    /// which must have arrived (`smc_switch_cursor`).
    pub(super) fn rewind(&mut self) {
        let n = self.inflight.min(self.unconsumed);
        self.sent = self.ring.retreat(self.sent, n);
        self.prod = self.peer.retreat(self.prod, n);
        self.unsent += n;
        self.unconsumed -= n;
        self.replay += n;
        self.inflight = 0;
        if n > 0 && self.urgent != Outgoing::None {
            self.urgent = Outgoing::Staged;
        }
    }
}
