// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-R: CDC messages under way, and the move to another link (`smc_core.c`, RFC 7609, 4.6).
//!
//! Invariant: a completion counts only for the link on which its message was posted.

use smc_wire::cdc::Smcr;
use smc_wire::id::AlertToken;

use super::Connection;
use super::params::{Params, Sender};
use super::wish::{Due, Receipt};

/// What the connection knows of its link.
#[derive(Debug)]
pub(super) struct Link {
    /// The peer's name for the connection.
    token: AlertToken,
    /// Most bytes that are held back while a message is under way.
    autocork: u32,
    /// Number of the last message that was posted.
    seqno: u16,
    /// Number of the last message that was completed.
    completed: u16,
    /// Counts the links.
    number: u16,
    /// Messages under way (`cdc_pend_tx_wr`).
    pub(super) pending: u16,
    /// The link takes no message now.
    pub(super) is_full: bool,
}

impl Link {
    pub(super) fn new(params: &Params) -> Self {
        let (token, autocork) = match params.sender {
            // smc_should_autocork(): at most half the send ring.
            Sender::Rdma { ring, token, autocork } => (token, autocork.min(ring.len() / 2)),
            Sender::Copied { .. } | Sender::Mapped => (AlertToken(0), 0),
        };
        Self { token, autocork, seqno: 0, completed: 0, number: 0, pending: 0, is_full: false }
    }

    pub(super) fn was_switched(&self) -> bool {
        self.number != 0
    }

    fn receipt(&mut self, sent: u32, seqno: u16) -> Receipt {
        self.pending = self.pending.saturating_add(1);
        Receipt { sent, seqno, link: self.number }
    }
}

/// Whether few bytes should wait for the completion of a message that is under way
/// (`smc_should_autocork`): they then go out together, with no timer and no loss of time.
pub(super) fn holds_back(conn: &Connection) -> bool {
    conn.link.pending > 0 && conn.tx.unsent <= conn.link.autocork
}

impl Connection {
    /// SMC-R: a CDC message is completed, and with it all writes before it.
    pub fn handle_completion(&mut self, receipt: Receipt) {
        if receipt.link != self.link.number {
            return;
        }
        self.link.completed = receipt.seqno;
        self.opening(|conn| conn.tx.completed(receipt.sent));
        self.handle_flushed(receipt);
    }

    /// SMC-R: a CDC message failed with its link, on which the connection may stay for a moment.
    pub fn handle_flushed(&mut self, receipt: Receipt) {
        if receipt.link != self.link.number {
            return;
        }
        self.link.pending = self.link.pending.saturating_sub(1);
        if self.link.pending == 0 {
            self.want_transmit();
        }
    }

    /// SMC-R: whether the link takes a message, and the writes before it, now. Until it does, nothing
    /// is wished that would go there. To be said before wishes are asked for.
    pub fn handle_slots(&mut self, free: bool) {
        self.link.is_full = !free;
    }

    /// SMC-R: the connection was moved to another link, as its own broke (`smc_switch_cursor`).
    ///
    /// The peer is told the last completed message, then gets all bytes again that it may not have,
    /// and a CDC. Linux does so in ACTIVE only and sends CDC only if there are bytes; a last message
    /// that was lost with the link (an update, a close) is then never repeated.
    pub fn switch_link(&mut self) {
        if !self.is_smcr() || self.finished {
            return;
        }
        self.link.number = self.link.number.wrapping_add(1);
        self.link.pending = 0;
        self.link.is_full = false;
        self.opening(|conn| conn.tx.rewind());
        self.due.insert(Due::VALIDATE);
        self.due.insert(Due::PUBLISH);
        self.want_transmit();
    }

    /// The message that tells the peer of the move. It carries no cursors, and as it comes before all
    /// writes on the new link, its completion says nothing new.
    pub(super) fn validation(&mut self) -> (Smcr, Receipt) {
        let completed = self.link.completed;
        let receipt = self.link.receipt(self.tx.total, completed);
        (Smcr::validation(completed, self.link.token), receipt)
    }

    /// The next CDC message.
    pub(super) fn message(&mut self) -> (Smcr, Receipt) {
        self.link.seqno = self.link.seqno.wrapping_add(1);
        let message = Smcr {
            seqno: self.link.seqno,
            token: self.link.token,
            prod: self.tx.prod,
            cons: self.rx.cons,
            flags: self.producer_flags(),
            state: self.sent_state,
        };
        (message, self.link.receipt(self.tx.total, self.link.seqno))
    }
}
