// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Wishes, one after another.
//!
//! Invariant: the order is: fetch an urgent byte; failover validation; writes; the CDC that publishes
//! them; wake-ups; TCP; release. What goes to the peer waits while its link is full, and TCP and
//! release wait with it.

use smc_wire::cdc::{ConnectionState, Smcd};

use super::Connection;
use super::close::{Event, State};
use super::wish::{Due, How, Ready, Wish, Write};

impl Connection {
    /// The next thing to do, or none.
    #[inline]
    pub fn poll_wish(&mut self) -> Option<Wish> {
        if self.due.is_empty() && self.wake.is_empty() { None } else { self.next_wish() }
    }

    /// One function with all that is inlined into it: a wish is written once, where the caller has it.
    #[inline(never)]
    fn next_wish(&mut self) -> Option<Wish> {
        if self.finished {
            return None;
        }
        if self.due.take(Due::FETCH) {
            return Some(Wish::FetchUrgent { at: self.rx.mark.offset(self.rx.ring) });
        }
        if !self.link.is_full {
            if self.due.take(Due::VALIDATE) {
                let (message, receipt) = self.validation();
                return Some(Wish::PublishSmcr(message, receipt));
            }
            if self.due.intersects(Due::TRANSMIT)
                && let Some(write) = self.transmit()
            {
                return Some(Wish::Write(write));
            }
            if self.due.take(Due::PUBLISH) {
                return Some(self.publish());
            }
        }
        if !self.wake.is_empty() {
            return Some(Wish::Wake(std::mem::take(&mut self.wake)));
        }
        if self.due.is_empty() || self.due.intersects(Due::OUTBOUND) {
            return None;
        }
        self.poll_end()
    }

    /// The next piece to copy. After the last one a CDC is due.
    #[inline]
    fn transmit(&mut self) -> Option<Write> {
        let before = self.tx.prod;
        let write = self.tx.next_write();
        if self.tx.prod != before {
            self.due.insert(Due::PUBLISH);
        } else if self.tx.unsent > 0 {
            self.found_peer_full();
        }
        if self.tx.unsent == 0 || self.tx.free() == 0 {
            self.due.remove(Due::TRANSMIT);
        }
        write
    }

    #[inline]
    fn publish(&mut self) -> Wish {
        let wish = if self.is_smcr() {
            let (message, receipt) = self.message();
            Wish::PublishSmcr(message, receipt)
        } else {
            Wish::PublishSmcd(Smcd {
                prod: self.tx.prod,
                cons: self.rx.cons,
                flags: self.producer_flags(),
                state: self.sent_state,
            })
        };
        self.said_final =
            self.sent_state.intersects(ConnectionState::CLOSED | ConnectionState::ABORTED);
        self.rx.published();
        self.opening(|conn| conn.tx.published());
        if self.state == State::PeerAbortWait {
            self.step(Event::AbortSent);
        }
        wish
    }

    /// What is left to do when the connection ends.
    #[cold]
    fn poll_end(&mut self) -> Option<Wish> {
        let tcp = (self.due.take(Due::SHUT_TCP_READ), self.due.take(Due::SHUT_TCP_WRITE));
        if self.due.take(Due::ABORT_TCP) {
            return Some(Wish::AbortTcp);
        }
        match tcp {
            (true, true) => return Some(Wish::ShutdownTcp(How::Both)),
            (true, false) => return Some(Wish::ShutdownTcp(How::Read)),
            (false, true) => return Some(Wish::ShutdownTcp(How::Write)),
            (false, false) => {}
        }
        if self.link.pending > 0 || !self.due.take(Due::RELEASE) {
            return None;
        }
        self.finished = true;
        self.wake = Ready::NOTHING;
        Some(Wish::Release)
    }
}
