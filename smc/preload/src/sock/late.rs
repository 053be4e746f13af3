// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection that goes on as TCP before it is known whether the peer has one more word of the
//! handshake to say.
//!
//! Invariant: the program writes as on any TCP connection; it reads, and is told that it can read, only
//! when that word, if it came, is out of the stream.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::Shutdown;
use smc_socket::{LateWord, Ready, Socket};

use super::{Route, Sock, Stage, end_of};
use crate::fallen::Why;
use crate::table::File;

/// How long a connection that the program has closed is kept for the word: data that comes meets a
/// reset then, as it does with TCP, but the word itself must not.
const KEPT: Duration = Duration::from_secs(1);
/// How often a word of which a part is there is looked at.
const PART: Duration = Duration::from_millis(10);

impl Sock {
    /// The handshake has ended so.
    pub(super) fn settle_late(&self, file: &Arc<File>, engine: &Socket, why: Why) {
        if let Some(word) = engine.late_word() {
            // Whoever is second has the same.
            let _ = self.late.set(Arc::clone(word));
        }
        if self.move_on(Stage::Handshake, Stage::Late) {
            self.shut_as_noted();
            self.say_why(why);
            if self.is_closed() {
                self.end_sending();
            }
            self.tell_settled(file);
        }
    }

    /// What a child of fork has of it. The parent's other threads may look just now.
    pub(super) fn late_of_child(&self) -> Option<Arc<LateWord>> {
        self.late.get().map(|word| Arc::new(word.of_child()))
    }

    /// The program has closed: the peer is to see the end of what was sent. If another process may have the
    /// connection, that is its end when both have closed.
    pub(super) fn end_sending(&self) {
        if !self.has_forked.load(Ordering::Relaxed) {
            // It may be over already.
            let _ = rustix::net::shutdown(&self.number, Shutdown::Write);
        }
    }

    /// Takes the word, if it has come; then this is TCP for good.
    pub(super) fn hear_out(&self, file: &Arc<File>) {
        if self.late.get().is_none_or(|word| word.take(&self.number)) {
            // Why was said when it was decided.
            self.become_tcp(file, Why::from(0));
        }
    }

    /// Waits until the program may read.
    ///
    /// # Errors
    /// EAGAIN after the time; EINTR.
    pub(super) fn wait_for_word(
        &self,
        file: &Arc<File>,
        timeout: Option<Duration>,
    ) -> io::Result<Route<'_>> {
        let end = end_of(timeout);
        loop {
            match self.advance(file) {
                Route::Late => {}
                route => return Ok(route),
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(Errno::AGAIN.into());
            }
            // With a part there TCP is readable, which says nothing.
            let part = self.late_in_part();
            let events = if part { PollFlags::empty() } else { PollFlags::IN };
            let left = [left, part.then_some(PART)].into_iter().flatten().min();
            let mut fds = [PollFd::new(&self.number, events)];
            poll(&mut fds, left.and_then(|left| Timespec::try_from(left).ok()).as_ref())?;
        }
    }

    /// Whether a part of the word may be there, of which TCP says nothing more.
    pub(crate) fn late_in_part(&self) -> bool {
        self.stage() == Stage::Late && self.late.get().is_some_and(|word| word.is_partial())
    }

    /// Whether the program has closed, and the word may still come.
    pub(crate) fn is_kept_for_word(&self) -> bool {
        self.stage() == Stage::Late && self.late.get().is_some_and(|word| word.age() < KEPT)
    }

    /// What can be done meanwhile.
    pub(super) fn late_readiness(&self) -> Ready {
        let mut fds = [PollFd::new(&self.number, PollFlags::OUT | PollFlags::RDHUP)];
        let said = match poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) => fds.iter().fold(PollFlags::empty(), |all, fd| all | fd.revents()),
            Err(_) => PollFlags::empty(),
        };
        let table = [
            (PollFlags::OUT, Ready::WRITABLE),
            (PollFlags::RDHUP, Ready::READ_CLOSED),
            (PollFlags::HUP, Ready::HANG_UP),
            (PollFlags::ERR, Ready::ERROR),
        ];
        let has = table.into_iter().filter(|(flag, _)| said.contains(*flag));
        has.fold(Ready::NOTHING, |all, (_, ready)| all | ready)
    }

    /// TCP says something: it is not known what is new, so all is looked at again.
    pub(super) fn tell_late(&self) {
        if self.stage() == Stage::Late {
            self.tell(Ready::WRITABLE | Ready::HANG_UP | Ready::ERROR | Ready::READ_CLOSED);
        }
    }
}
