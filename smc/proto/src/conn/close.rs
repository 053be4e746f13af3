// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The states of a connection and the table of how they are left (RFC 7609, 4.8; `smc_close.c`).
//!
//! Invariant: at most one row of [`ROWS`] holds for a state and an event; where none does, the event
//! changes nothing.
//!
//! ```text
//!                                    ┌──────────┐
//!            SHUT_WR / done          │          │          rx done or closed
//!            close / final           │  ACTIVE  │
//!        ┌───────────────────────────┤          ├──────────────────────────┐
//!        ▼                           └──────────┘                          ▼
//! ┌─────────────────┐                                            ┌───────────────┐
//! │ PEERCLOSEWAIT1  │                                            │ APPCLOSEWAIT1 │
//! └──┬─────┬────────┘                                            └──┬─────────┬──┘
//!    │     │ rx done                                    SHUT_WR     │         │
//!    │     ▼                                             / done     ▼         │
//!    │  ┌─────────────────┐                              ┌───────────────┐    │
//!    │  │ PEERCLOSEWAIT2  │                              │ APPCLOSEWAIT2 │    │
//!    │  └──┬──────────────┘                              └──┬────────────┘    │
//!    │     │                                                │                 │
//!    └──┬──┘ rx closed                                      └──┬──────────────┘ close / final
//!       │                                                      │
//!       ├─ released, and final sent ──▶ CLOSED ◀── peer closed ┤
//!       │                                 ▲  ▲                 │
//!       │ else                            │  │                 │ else
//!       ▼                                 │  │                 ▼
//! ┌──────────────────┐  close / final,    │  │  rx closed ┌──────────────────┐
//! │ APPFINCLOSEWAIT  ├────────────────────┘  └────────────┤ PEERFINCLOSEWAIT │
//! └──────────────────┘  if not sent yet                   └──────────────────┘
//! ```
//! "final" is CDC with `closed`, or with `aborted` if there are bytes that were not read. A peer's
//! `aborted` leads to PROCESSABORT, or to CLOSED where nobody waits for the peer's word; our own abort
//! leads through PEERABORTWAIT to CLOSED.

/// Where a connection stands (`enum smc_state`); the numbers are those that `smcss` gets to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Data flows both ways, as far as this side knows.
    Active = 1,
    /// No connection yet: a socket before and during its handshake.
    Init = 2,
    /// Over.
    Closed = 7,
    /// A listener.
    Listen = 10,
    /// This side is done with writing or closed, and the peer has said nothing.
    PeerCloseWait1 = 20,
    /// The same, and the peer is done with writing.
    PeerCloseWait2 = 21,
    /// The peer is done with writing or closed, and this side has said nothing.
    AppCloseWait1 = 22,
    /// The same, and this side is done with writing.
    AppCloseWait2 = 23,
    /// Both are done, and the application has to close.
    AppFinCloseWait = 24,
    /// Both are done, and the peer has to close.
    PeerFinCloseWait = 25,
    /// This side aborted, and the CDC that says so has to go out.
    PeerAbortWait = 26,
    /// The peer aborted, and the application has to close.
    ProcessAbort = 27,
}

/// What may move a connection from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The application closed or shut down both directions, and waited for its bytes to be sent.
    Close,
    /// The application shut down writing, and waited for its bytes to be sent.
    ShutdownWrite,
    /// CDC came with `done writing`.
    PeerDone,
    /// CDC came with `closed`.
    PeerClosed,
    /// CDC came with `aborted`.
    PeerAborted,
    /// The link group ends, the application or the protocol aborts.
    Terminate,
    /// The CDC of an abort went out, or cannot go out.
    AbortSent,
}

/// What a row tells the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tell {
    /// Nothing.
    Nothing,
    /// CDC with `done writing`.
    Done,
    /// CDC with `closed`, or `aborted` if there are unread bytes (`smc_close_final`).
    Final,
    /// [`Tell::Final`] if only `done writing` was sent so far.
    FinalAfterDone,
    /// CDC with `aborted`.
    Abort,
}

/// The next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// The same.
    Same,
    /// Always this one.
    To(State),
    /// The first if the peer closed or aborted, else the second.
    IfPeerClosed(State, State),
    /// The first if the application has closed and `closed` or `aborted` was sent, else the second.
    IfReleased(State, State),
    /// The first if `aborted` was sent, else the second.
    IfAborted(State, State),
    /// The first if `done writing` was sent and neither `closed` nor `aborted`, else the second.
    IfOnlyDone(State, State),
}

/// What [`Next`] and [`Tell`] depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// The peer sent `closed` or `aborted`.
    pub peer_closed: bool,
    /// The application has closed.
    pub released: bool,
    /// `done writing` was sent.
    pub sent_done: bool,
    /// `closed` or `aborted` was sent.
    pub sent_final: bool,
    /// `aborted` was sent.
    pub sent_abort: bool,
}

impl Next {
    /// The state behind `from`.
    pub const fn resolve(self, from: State, facts: Facts) -> State {
        let (holds, then, or) = match self {
            Self::Same => (true, from, from),
            Self::To(state) => (true, state, state),
            Self::IfPeerClosed(then, or) => (facts.peer_closed, then, or),
            Self::IfReleased(then, or) => (facts.released && facts.sent_final, then, or),
            Self::IfAborted(then, or) => (facts.sent_abort, then, or),
            Self::IfOnlyDone(then, or) => (facts.sent_done && !facts.sent_final, then, or),
        };
        if holds { then } else { or }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The states in which it holds.
    pub from: &'static [State],
    /// The event for which it holds.
    pub event: Event,
    /// What the peer is told.
    pub tell: Tell,
    /// The next state.
    pub next: Next,
}

const fn row(from: &'static [State], event: Event, tell: Tell, next: Next) -> Row {
    Row { from, event, tell, next }
}

use Event::{AbortSent, Close, PeerAborted, PeerClosed, PeerDone, ShutdownWrite, Terminate};
use Next::{IfAborted, IfOnlyDone, IfPeerClosed, IfReleased, Same, To};
use State::{
    Active, AppCloseWait1, AppCloseWait2, AppFinCloseWait, Closed, Init, Listen, PeerAbortWait,
    PeerCloseWait1, PeerCloseWait2, PeerFinCloseWait, ProcessAbort,
};
use Tell::{Abort, Done, Final, FinalAfterDone, Nothing};

/// The table.
///
/// Before `Close` and `ShutdownWrite` in ACTIVE, APPCLOSEWAIT1 and APPCLOSEWAIT2 the connection waits
/// until its bytes are sent (at most the linger time, and not if the peer has closed). A `Close` in
/// ACTIVE also shuts down TCP, before the peer can, so that the peer has no TIME_WAIT. A listener's
/// `Close` kills its children, which is the listener's owner's part.
///
/// Three things are not the kernel's, the first two because it leaves an end waiting for ever:
///
/// * APPCLOSEWAIT2 answers `aborted`. The kernel goes to CLOSED silently, and the peer, which aborts
///   from PEERCLOSEWAIT2 (a close with unread bytes after both sides shut down writing), waits for a
///   word that never comes.
/// * So who has sent `aborted` and knows that the peer is done with writing waits for nothing more:
///   [`IfAborted`].
/// * The kernel's rows of `PeerAborted` with [`IfOnlyDone`] always give CLOSED, as
///   `smc_cdc_msg_recv_action` marks `aborted` as sent before the table is asked. PROCESSABORT, which
///   the source means, answers with an abort at the close.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row(&[Init, Listen],                   Close,         Nothing,        To(Closed)),
    row(&[Active],                         Close,         Final,          To(PeerCloseWait1)),
    row(&[AppCloseWait1, AppCloseWait2],   Close,         Final,          IfPeerClosed(Closed, PeerFinCloseWait)),
    row(&[PeerCloseWait1],                 Close,         FinalAfterDone, Same),
    row(&[PeerCloseWait2],                 Close,         FinalAfterDone, IfAborted(Closed, PeerCloseWait2)),
    row(&[AppFinCloseWait],                Close,         FinalAfterDone, To(Closed)),
    row(&[ProcessAbort],                   Close,         Abort,          To(Closed)),
    row(&[PeerAbortWait],                  Close,         Nothing,        To(Closed)),

    row(&[Active],                         ShutdownWrite, Done,           To(PeerCloseWait1)),
    row(&[AppCloseWait1],                  ShutdownWrite, Done,           To(AppCloseWait2)),

    row(&[Init, Active],                   PeerDone,      Nothing,        To(AppCloseWait1)),
    row(&[PeerCloseWait1],                 PeerDone,      Nothing,        IfAborted(Closed, PeerCloseWait2)),

    row(&[Init, Active],                   PeerClosed,    Nothing,        To(AppCloseWait1)),
    row(&[PeerCloseWait1, PeerCloseWait2], PeerClosed,    Nothing,        IfReleased(Closed, AppFinCloseWait)),
    row(&[PeerFinCloseWait],               PeerClosed,    Nothing,        To(Closed)),

    row(&[Init, Active, AppCloseWait1, AppFinCloseWait],
                                           PeerAborted,   Nothing,        To(ProcessAbort)),
    row(&[PeerCloseWait1, PeerCloseWait2], PeerAborted,   Nothing,        IfOnlyDone(ProcessAbort, Closed)),
    row(&[AppCloseWait2],                  PeerAborted,   Abort,          To(Closed)),
    row(&[PeerFinCloseWait, PeerAbortWait],
                                           PeerAborted,   Nothing,        To(Closed)),

    row(&[Active, AppCloseWait1, AppCloseWait2, AppFinCloseWait, PeerCloseWait1, PeerCloseWait2,
          PeerFinCloseWait, ProcessAbort], Terminate,     Abort,          To(PeerAbortWait)),
    row(&[PeerAbortWait],                  AbortSent,     Nothing,        To(Closed)),
];

impl State {
    /// All states.
    pub const ALL: [Self; 12] = [
        Active,
        Init,
        Closed,
        Listen,
        PeerCloseWait1,
        PeerCloseWait2,
        AppCloseWait1,
        AppCloseWait2,
        AppFinCloseWait,
        PeerFinCloseWait,
        PeerAbortWait,
        ProcessAbort,
    ];

    /// The row for an event, if it has an effect here.
    pub fn row(self, event: Event) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.event == event && row.from.contains(&self))
    }

    /// Whether the application may send (`smc_sendmsg`).
    pub const fn may_send(self) -> bool {
        matches!(self, Active | AppCloseWait1)
    }

    /// Whether a shutdown is allowed (`smc_shutdown`).
    pub const fn may_shut_down(self) -> bool {
        !matches!(self, Init | Listen | Closed | PeerFinCloseWait | PeerAbortWait | ProcessAbort)
    }
}

impl Event {
    /// All events.
    pub const ALL: [Self; 7] =
        [Close, ShutdownWrite, PeerDone, PeerClosed, PeerAborted, Terminate, AbortSent];
}
