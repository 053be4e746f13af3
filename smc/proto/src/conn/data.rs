// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The application's side of the data: room and commit, readable and consume, urgent bytes.
//!
//! Invariant: what is handed out lies within the caller's rings; more than was handed out is never
//! taken.

use super::cursor::Chunks;
use super::error::{NoUrgent, SendError};
use super::rx::update_limit;
use super::tx::Kind;
use super::urgent::Outgoing;
use super::wish::{Due, Ready};
use super::{Connection, link};

/// Flags of a send, as `sendmsg(2)` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendFlags {
    /// MSG_MORE: more will follow soon.
    pub more: bool,
    /// MSG_OOB: the last byte is urgent. Only with the last piece of the application's buffer.
    pub oob: bool,
}

impl Connection {
    /// Where in the send ring the application's next bytes go: nothing while the ring is full or an
    /// urgent byte waits to be consumed. [`Ready::WRITABLE`] is woken when that changes.
    ///
    /// # Errors
    /// [`SendError::Shutdown`] or [`SendError::Reset`]; a pending [`take_error`](Self::take_error)
    /// goes before them (`sk_stream_error`).
    pub fn send_room(&self) -> Result<Chunks, SendError> {
        if self.is_send_over() {
            return Err(SendError::Shutdown);
        }
        if self.peer_closed() {
            return Err(SendError::Reset);
        }
        if !self.tx.is_open() {
            return Ok(Chunks::default());
        }
        Ok(self.tx.room_chunks())
    }

    /// Whether this side sends no more; the peer may have closed besides.
    pub(super) fn is_send_over(&self) -> bool {
        self.killed || self.write_shut || !self.state.may_send() || self.error.is_some()
    }

    /// The application wrote `n` bytes where [`send_room`](Self::send_room) said; at most that many
    /// are taken.
    ///
    /// They go out at once unless the socket is corked or `more` is set while there is room left, or,
    /// with SMC-R, a CDC message is under way and they are few (`smc_tx_should_cork`). Linux holds an
    /// urgent byte back too, and then nothing can follow it; here it is never held back.
    pub fn commit(&mut self, n: u32, flags: SendFlags) {
        let Ok(room) = self.send_room() else { return };
        let n = n.min(room.total());
        self.tx.commit(n);
        if flags.oob && n > 0 {
            self.tx.urgent = Outgoing::Staged;
        } else if link::holds_back(self) || self.is_corked(flags.more) {
            return;
        }
        self.want_transmit();
    }

    fn is_corked(&self, more: bool) -> bool {
        (more || self.options.cork) && self.tx.room() > 0
    }

    /// Sends what is held back: TCP_NODELAY was set, or a cork taken off.
    pub fn flush(&mut self) {
        self.want_transmit();
    }

    /// Holds bytes back until the send ring is full (TCP_CORK), or sends them and all to come.
    pub fn set_cork(&mut self, on: bool) {
        self.options.cork = on;
        if !on {
            self.flush();
        }
    }

    /// A mapped sender, which has no send ring, leaves no more than `bytes` in the peer's that the peer has not read
    /// (SO_SNDBUF). Once so many are there, it asks the peer to say what is read.
    ///
    /// Linux, which does not keep a request (`keeps` is false), forgets it with the next CDC that it sends, and says
    /// nothing by itself of bytes below its own threshold, nor of what it has read before it heard of a limit. So
    /// there the limit is above the threshold, and lets one more byte through if it was lowered.
    pub fn limit_sending(&mut self, bytes: u32, keeps: bool) {
        let was = self.tx.is_limited();
        let least = match keeps {
            true => 1,
            false => update_limit(self.tx.peer).max(self.unfinished()).saturating_add(1),
        };
        self.opening(|conn| conn.tx.limit = bytes.max(least));
        if !was && self.tx.is_limited() {
            self.want_transmit();
            self.want_publish();
        }
    }

    /// Whether urgent bytes that come from now on stay in the stream (SO_OOBINLINE).
    pub fn set_oob_inline(&mut self, on: bool) {
        self.options.oob_inline = on;
    }

    /// Where in our ring the bytes are that the next read may give, when `peeked` of them have been
    /// seen already (MSG_PEEK, or spliced and not consumed).
    ///
    /// A read stops before an urgent byte, and behind one that is inline.
    pub fn readable(&self, peeked: u32) -> Chunks {
        if self.killed { Chunks::default() } else { self.rx.chunks(peeked) }
    }

    /// The application has read the first `n` bytes of what was [`readable`](Self::readable); at most
    /// that many are taken.
    pub fn consume(&mut self, n: u32) {
        if self.killed {
            return;
        }
        let n = n.min(self.rx.chunks(0).total());
        let force = self.rx.consume(n);
        self.update_consumer(force);
    }

    /// Publishes what was consumed, if the peer does not know it: this side is going to wait.
    ///
    /// A peer then knows exactly what was read should this process die. Linux has no such need: its
    /// sockets are closed by the kernel.
    pub fn confirm(&mut self) {
        if self.rx.to_confirm > 0 && !self.killed {
            self.update_consumer(true);
        }
    }

    /// Publishes the consumer cursor if that is due.
    pub(super) fn update_consumer(&mut self, force: bool) {
        if force || self.rx.update_is_due() {
            self.want_publish();
        }
        self.rx.drained();
    }

    /// The urgent byte that is kept aside (`recv` with MSG_OOB); it stays if `peek` is set.
    ///
    /// # Errors
    /// [`NoUrgent`]
    pub fn take_urgent(&mut self, peek: bool) -> Result<u8, NoUrgent> {
        self.rx.mark.take(peek)
    }

    /// The outcome of [`Wish::FetchUrgent`](super::Wish::FetchUrgent).
    pub fn handle_urgent_byte(&mut self, byte: u8) {
        self.rx.mark.fetched(byte);
        self.wake |= Ready::URGENT;
    }

    /// The peer's bytes up to `unread` include a new urgent one, the last.
    pub(super) fn urgent_arrived(&mut self) {
        let inline = self.options.oob_inline;
        self.rx.mark.arrived(self.rx.prod, self.rx.unread, inline);
        if inline {
            self.wake |= Ready::URGENT;
            return;
        }
        self.due.insert(Due::FETCH);
        // With no byte before it, it is passed at once: the peer waits for that. The kernel passes
        // it when the application tries to read, so a sender hangs whose peer waits for bytes.
        if self.rx.consume(0) {
            self.update_consumer(true);
        }
    }

    /// Runs `change` and wakes writers if they may go on after it.
    pub(super) fn opening(&mut self, change: impl FnOnce(&mut Self)) {
        let was = self.tx.is_open();
        change(self);
        if !was && self.tx.is_open() {
            self.wake |= Ready::WRITABLE;
            self.room_came();
        }
    }

    /// Whether this end sends through RDMA.
    pub(super) fn is_smcr(&self) -> bool {
        self.tx.kind == Kind::Rdma
    }
}
