// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a connection ends: shutdown, close, abort, and the loss of what it runs on.
//!
//! Invariant: every change of state goes through the table of [`close`](super::close).

use std::time::Duration;

use smc_wire::cdc::ConnectionState;

use super::Connection;
use super::close::{Event, Facts, State, Tell};
use super::error::{Error, NotConnected};
use super::wish::{Due, How, Ready};
use crate::Instant;

/// How long a close waits for its bytes to be sent if the application did not say (SO_LINGER):
/// `SMC_MAX_STREAM_WAIT_TIMEOUT`. A process that exits does not wait at all.
pub const LINGER: Duration = Duration::from_secs(2);

/// A close or shutdown that waits for bytes to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    event: Event,
    /// What of TCP is shut down afterwards.
    tcp: Option<How>,
    deadline: Instant,
}

/// Why a connection can go no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// The link group is terminated from this side; the peer can still be told
    /// (`smc_lgr_terminate`).
    Group,
    /// The peer or the way to it is gone: its shutdown event came, its device vanished, its buffer
    /// cannot be written, or there is no link left. Nothing can be told any more.
    Unreachable,
}

impl Connection {
    /// Shuts down one or both directions, after the bytes that were committed are sent, but no later
    /// than `linger` from `now` (see [`LINGER`]). SHUT_RD concerns nobody but this side.
    ///
    /// # Errors
    /// [`NotConnected`] once the connection is over or the application has shut down all of it.
    pub fn shutdown(
        &mut self,
        now: Instant,
        how: How,
        linger: Duration,
    ) -> Result<(), NotConnected> {
        if !self.state.may_shut_down() {
            return Err(NotConnected);
        }
        let event = match how {
            How::Read => {
                self.shut(how);
                return Ok(());
            }
            How::Write => Event::ShutdownWrite,
            How::Both => Event::Close,
        };
        self.begin_closing(event, Some(how), now.after(linger), linger.is_zero());
        Ok(())
    }

    /// Closes, after the bytes that were committed are sent, but no later than `linger` from `now`
    /// (see [`LINGER`]). If the application has not read all bytes, the peer is told of an abort.
    ///
    /// The application is gone afterwards; [`Wish::Release`](super::Wish::Release) comes when the
    /// peer has closed as well.
    pub fn close(&mut self, now: Instant, linger: Duration) {
        self.released = true;
        if matches!(self.state, State::Closed) {
            self.due.insert(Due::RELEASE);
            return;
        }
        self.begin_closing(Event::Close, None, now.after(linger), linger.is_zero());
    }

    /// A close takes the place of a shutdown that still waits, never the other way round.
    fn begin_closing(&mut self, event: Event, tcp: Option<How>, deadline: Instant, at_once: bool) {
        let old = self.closing;
        let event =
            if old.is_some_and(|old| old.event == Event::Close) { Event::Close } else { event };
        self.closing = Some(Closing { event, tcp: tcp.max(old.and_then(|old| old.tcp)), deadline });
        self.write_shut = true;
        self.want_transmit();
        self.finish_closing(at_once);
    }

    /// Goes on with a close once its bytes are sent, or can all be sent now; or if it must not wait.
    pub(super) fn finish_closing(&mut self, at_once: bool) {
        let Some(closing) = self.closing else { return };
        let waits =
            matches!(self.state, State::Active | State::AppCloseWait1 | State::AppCloseWait2);
        if waits && !at_once && !self.tx.drains() && !self.peer_closed() {
            return;
        }
        self.closing = None;
        let was = self.state;
        self.step(closing.event);
        // Closing TCP first spares the peer TIME_WAIT.
        let early = was == State::Active && closing.event == Event::Close;
        match closing.tcp {
            Some(how) => self.shut(how),
            None if early => self.shut(How::Both),
            None => self.read_shut = true,
        }
    }

    fn shut(&mut self, how: How) {
        if how != How::Write {
            self.read_shut = true;
            self.due.insert(Due::SHUT_TCP_READ);
        }
        if how != How::Read {
            self.write_shut = true;
            self.due.insert(Due::SHUT_TCP_WRITE);
        }
        self.wake |= Ready::READABLE | Ready::WRITABLE;
    }

    /// Says when [`handle_timeout`](Self::handle_timeout) is to be called: the end of a linger time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.closing.map(|closing| closing.deadline)
    }

    /// The time is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closing.is_some_and(|closing| closing.deadline <= now) {
            self.finish_closing(true);
        }
    }

    /// Aborts: the peer gets ECONNRESET, the application ECONNABORTED.
    pub fn abort(&mut self) {
        self.kill(Error::Aborted, true);
    }

    /// What the connection runs on is gone; the application gets ECONNABORTED (`smc_conn_kill`).
    ///
    /// The rings are not handed out any more, unread bytes included.
    pub fn handle_gone(&mut self, why: Gone) {
        self.kill(Error::Aborted, why == Gone::Group);
    }

    /// Ends the connection from this side; `tell` the peer if it can be told.
    #[cold]
    pub(super) fn kill(&mut self, error: Error, tell: bool) {
        if self.finished {
            return;
        }
        if !self.killed {
            self.killed = true;
            self.closing = None;
            // A CDC that is due may say how this side has closed.
            self.due.remove(Due::TRANSMIT);
            self.due.remove(Due::FETCH);
            self.due.insert(Due::ABORT_TCP);
            self.due.insert(Due::RELEASE);
            self.error.get_or_insert(error);
            self.read_shut = true;
            self.write_shut = true;
            self.wake |= Ready::READABLE | Ready::WRITABLE | Ready::ERROR | Ready::HANG_UP;
            self.step(Event::Terminate);
        }
        if !tell {
            self.link.pending = 0;
        }
        // A peer that was told the end has closed perhaps, and its ring serves another connection;
        // but not if it knows that bytes are missing.
        let knows = self.said_final && self.tx.unsent == 0;
        if !tell || knows {
            self.due.remove(Due::OUTBOUND);
            self.step(Event::AbortSent);
        }
    }

    /// Takes the table's row for an event.
    pub(super) fn step(&mut self, event: Event) {
        let Some(row) = self.state.row(event) else { return };
        match row.tell {
            Tell::Nothing => {}
            Tell::Done => self.say(ConnectionState::DONE_WRITING),
            Tell::Final => self.say_final(),
            Tell::FinalAfterDone => {
                if self.facts().sent_done && !self.facts().sent_final {
                    self.say_final();
                }
            }
            Tell::Abort => self.say(ConnectionState::ABORTED),
        }
        self.state = row.next.resolve(self.state, self.facts());
        if self.state == State::Closed {
            self.wake |= Ready::HANG_UP;
            if self.released {
                self.due.insert(Due::RELEASE);
            }
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            peer_closed: self.peer_closed(),
            released: self.released,
            sent_done: self.sent_state.contains(ConnectionState::DONE_WRITING),
            sent_abort: self.sent_state.contains(ConnectionState::ABORTED),
            sent_final: self
                .sent_state
                .intersects(ConnectionState::CLOSED | ConnectionState::ABORTED),
        }
    }

    fn say(&mut self, state: ConnectionState) {
        self.sent_state |= state;
        self.due.insert(Due::PUBLISH);
    }

    fn say_final(&mut self) {
        let unread = self.rx.unread > 0;
        self.say(if unread { ConnectionState::ABORTED } else { ConnectionState::CLOSED });
    }
}
