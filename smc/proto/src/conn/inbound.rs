// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the peer says: cursors and flags (`smc_cdc.c`).
//!
//! Invariant: both cursors are judged before either is taken; a lie aborts this connection and
//! changes nothing else.

use smc_wire::cdc::{ConnectionState, Cursor, ProducerFlags, Smcd, Smcr};

use super::Connection;
use super::close::Event;
use super::error::{Error, Lie};
use super::wish::{Due, Ready};

/// One word from the peer, in either form.
struct Word {
    prod: Cursor,
    cons: Cursor,
    flags: ProducerFlags,
    state: ConnectionState,
    /// Cursors that are behind may be a repetition.
    stale: bool,
}

impl Connection {
    /// SMC-D: what the peer last wrote into our DMB's CDC area. The [module](super) says how the two
    /// halves are read; the rest of the area is not looked at (nor by `smcd_cdc_rx_tsklet`).
    ///
    /// Cursors that are behind the last ones cannot come from an area that is read anew: they are
    /// lies, and so is all that [`Lie`] names.
    pub fn handle_cdc_smcd(&mut self, prod: u64, cons: u64) {
        let Smcd { prod, cons, flags, state } = Smcd::parse_halves(prod, cons);
        self.handle_word(&Word { prod, cons, flags, state, stale: false });
    }

    /// SMC-R: a CDC message for this connection's alert token, received on any link.
    ///
    /// An old one is dropped; after a failover the peer repeats itself, so cursors behind the last
    /// ones say nothing (`smc_cdc_cursor_to_host`).
    pub fn handle_cdc_smcr(&mut self, message: &Smcr) {
        let &Smcr { seqno, prod, cons, flags, state, .. } = message;
        let ahead = seqno.wrapping_sub(self.rx.seqno).cast_signed();
        if flags.contains(ProducerFlags::FAILOVER_VALIDATION) {
            if ahead > 0 {
                let lie = Lie::Validation { claimed: seqno, received: self.rx.seqno };
                self.kill(Error::Protocol(lie), true);
            }
            return;
        }
        if ahead < 0 {
            return;
        }
        self.rx.seqno = seqno;
        self.handle_word(&Word { prod, cons, flags, state, stale: true });
    }

    #[inline]
    fn handle_word(&mut self, word: &Word) {
        if self.killed || self.finished {
            return;
        }
        let judged = self.tx.judge(word.cons, word.stale).and_then(|credit| {
            let news = self.rx.judge(word.prod, word.stale)?;
            Ok((credit, news))
        });
        let (credit, news) = match judged {
            Ok(judged) => judged,
            Err(lie) => return self.kill(Error::Protocol(lie), true),
        };
        let asks = |flags: ProducerFlags| flags.contains(ProducerFlags::CONSUMER_UPDATE_REQUESTED);
        let stops = asks(word.flags) && !asks(self.rx.flags);
        self.rx.flags = word.flags;
        if credit > 0 {
            self.credited(credit);
        }
        if news > 0 {
            self.rx.arrived(news);
        }
        // Who waits for more bytes than there are (SO_RCVLOWAT) need not wait for a peer that sends no more of them.
        if news > 0 || stops && self.rx.unread > 0 {
            self.wake |= Ready::READABLE;
        }
        if word.flags.0 != 0 {
            self.handle_producer_flags(word.prod);
        }
        if self.rx.state != word.state {
            self.handle_state(word.state);
        }
    }

    fn credited(&mut self, credit: u32) {
        self.opening(|conn| conn.tx.credit(credit));
        if self.tx.is_limited() {
            // The limit was lowered: the peer has answered, which was not enough.
            self.want_publish();
        }
        self.want_transmit();
        self.finish_closing(false);
    }

    fn handle_producer_flags(&mut self, prod: Cursor) {
        let flags = self.rx.flags;
        if flags.contains(ProducerFlags::URGENT_PRESENT) {
            // An area may be read between its two halves: the flag can be seen after its byte.
            if self.rx.unread > 0 && prod == self.rx.prod && !self.rx.mark.is_at(prod) {
                self.urgent_arrived();
            }
        } else if flags.contains(ProducerFlags::URGENT_PENDING) {
            self.rx.mark.announced();
        }
        if flags.contains(ProducerFlags::CONSUMER_UPDATE_REQUESTED) && self.rx.to_confirm > 0 {
            self.want_publish();
        }
    }

    /// The peer has closed further. Nothing is taken back, and bits without a name say nothing.
    fn handle_state(&mut self, state: ConnectionState) {
        let news = state.without(self.rx.state);
        self.rx.state |= news;
        let event = if news.contains(ConnectionState::ABORTED) {
            Event::PeerAborted
        } else if news.contains(ConnectionState::CLOSED) {
            Event::PeerClosed
        } else if news.contains(ConnectionState::DONE_WRITING) {
            Event::PeerDone
        } else {
            return;
        };
        if event == Event::PeerAborted {
            self.error.get_or_insert(Error::Reset);
        }
        self.trailing = self.rx.flags.contains(ProducerFlags::WRITE_BLOCKED);
        self.step(event);
        if self.is_mute() {
            // A CDC that is due may say how this side has closed.
            self.due.remove(Due::TRANSMIT);
        }
        self.read_shut = true;
        self.wake |= Ready::READABLE | Ready::WRITABLE | Ready::READ_CLOSED;
        self.finish_closing(false);
    }

    /// Whether the peer closed or aborted (`smc_cdc_rxed_any_close`).
    pub(super) fn peer_closed(&self) -> bool {
        self.rx.state.intersects(ConnectionState::CLOSED | ConnectionState::ABORTED)
    }
}
