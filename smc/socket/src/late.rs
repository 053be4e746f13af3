// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a peer may say of a handshake after this side has gone on as TCP.
//!
//! Invariant: takes at most one CLC message out of the stream, before the application has read from it.
//! No lock is held, so a child of fork can use its copy.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use smc_proto::Instant;
use smc_proto::endpoint::{CLC_WAIT_SHORT, Late};

use crate::clock::{self, timespec};
use crate::tcp::{self, Front};

/// Some thread looks just now; a bit beside the state.
const BUSY: u8 = 4;

/// The peer's last word on a connection that is TCP, until it is known whether there is one.
#[derive(Debug)]
pub struct LateWord {
    state: AtomicU8,
    /// Since when this side is on TCP.
    made: Instant,
    /// Since when there is something that may be the word's begin; 0: there is not.
    partial: AtomicU64,
}

impl LateWord {
    pub(crate) fn new(late: Late) -> Self {
        let state = match late {
            Late::Nothing => 0,
            Late::Decline => 1,
            Late::Answer => 2,
        };
        Self { state: AtomicU8::new(state), made: clock::now(), partial: AtomicU64::new(0) }
    }

    /// The same word as a child of fork has it: whoever looks just now does not do so there.
    #[must_use]
    pub fn of_child(&self) -> Self {
        let state = AtomicU8::new(self.state.load(Ordering::Acquire) & !BUSY);
        Self { state, made: self.made, partial: AtomicU64::new(0) }
    }

    /// Whether all that comes is the application's.
    pub fn is_over(&self) -> bool {
        self.state.load(Ordering::Acquire) == 0
    }

    /// How long this side is on TCP.
    pub fn age(&self) -> Duration {
        clock::now().since(self.made)
    }

    /// Whether bytes are there that may be a part of it: look again soon, though TCP says nothing new.
    pub fn is_partial(&self) -> bool {
        self.partial.load(Ordering::Relaxed) != 0
    }

    /// Takes it out of the stream, if it has come. True: all that comes now is the application's.
    pub fn take(&self, tcp: impl AsFd) -> bool {
        let late = match self.state.load(Ordering::Acquire) {
            0 => return true,
            1 => Late::Decline,
            2 => Late::Answer,
            _ => return false,
        };
        let state = if late == Late::Decline { 1 } else { 2 };
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        if self.state.compare_exchange(state, state | BUSY, success, failure).is_err() {
            return false;
        }
        let over = self.look(late, &tcp);
        self.state.store(if over { 0 } else { state }, Ordering::Release);
        over
    }

    fn look(&self, late: Late, tcp: &impl AsFd) -> bool {
        let mut fds = [PollFd::new(tcp, PollFlags::IN)];
        let zero = timespec(Duration::ZERO);
        let said = poll(&mut fds, Some(&zero));
        let [fd] = fds;
        // An error is the application's to take.
        if said.is_err() || fd.revents().contains(PollFlags::ERR) {
            return said.is_ok();
        }
        let mut buffer = [0; tcp::LOOK];
        let front = match tcp::peek(tcp, &mut buffer) {
            Front::Bytes(n) => buffer.get(..n).unwrap_or(&buffer),
            Front::Nothing => return false,
            Front::End => return true,
        };
        match late.len_in(front) {
            Some(0) => true,
            Some(len) => tcp::eat(tcp, len),
            None => self.is_no_word(),
        }
    }

    /// The peer sends the word in one piece: what is not whole after a while is data.
    fn is_no_word(&self) -> bool {
        let now = clock::now();
        match self.partial.load(Ordering::Relaxed) {
            0 => {
                self.partial.store(now.0.max(1), Ordering::Relaxed);
                false
            }
            since => now.since(Instant(since)) >= CLC_WAIT_SHORT,
        }
    }
}
