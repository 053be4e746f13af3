// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A socket's handshake, as its user drives it.
//!
//! Invariant: takes CLC messages and nothing else out of the TCP stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::clock::{self, Deadline};
use crate::control::Fed;
use crate::few;
use crate::late::LateWord;
use crate::shared::Outcome;
use crate::socket::{Handshake, Socket};
use crate::tcp;
use crate::types::Tcp;
use crate::wakeup::Wakeup;

/// While a handshake waits for another one of the same stack, nothing on TCP tells of it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Socket {
    /// Goes on with the handshake as far as it can be without waiting.
    pub fn advance(&self) -> Handshake {
        if let Some(core) = self.home.own() {
            core.advance(&self.shared);
        }
        self.handshake()
    }

    /// Gives up waiting for the server's answer, as nobody can accept now; the connection goes on as TCP.
    pub fn withdraw(&self) -> Handshake {
        if let Some(core) = self.home.own() {
            core.control(|control, now| control.endpoint.withdraw(now, self.shared.id));
        }
        self.handshake()
    }

    /// On TCP: what the peer may still say of the handshake.
    pub fn late_word(&self) -> Option<&Arc<LateWord>> {
        match self.shared.outcome() {
            Some(Outcome::Tcp(_, word)) => Some(word),
            _ => None,
        }
    }

    /// Whether CLC bytes wait until TCP is writable; a pending handshake always waits for it to be
    /// readable.
    pub fn handshake_writes(&self) -> bool {
        !self.shared.outbox().is_empty()
    }

    /// Whether [`Socket::advance`] has nothing to do before TCP is readable, or the handshake has ended without it.
    pub fn waits_for_tcp(&self) -> bool {
        self.shared.waits() && !self.handshake_writes()
    }

    /// Goes on with the handshake to its end, or for `timeout`. [`Handshake::Pending`]: it was too
    /// short.
    ///
    /// # Errors
    /// EINTR.
    pub fn finish_handshake(&self, timeout: Option<Duration>) -> io::Result<Handshake> {
        let deadline = Deadline::after(timeout);
        loop {
            let fed = self.home.own().map_or(Fed::Others, |core| core.advance(&self.shared));
            let handshake = self.handshake();
            if handshake != Handshake::Pending {
                return Ok(handshake);
            }
            let Some(left) = deadline.left() else { return Ok(handshake) };
            // Only of a message that has not begun the next look at the stream tells something.
            if fed != Fed::Nothing || !self.spin_for_tcp() {
                self.wait_for_tcp(fed, left)?;
            }
        }
    }

    /// Looks for the peer's answer by itself for a moment: a sleep takes longer than most answers do.
    fn spin_for_tcp(&self) -> bool {
        let (Some(tcp), Some(core)) = (self.shared.tcp(), self.home.own()) else { return false };
        let start = clock::now();
        while clock::now().since(start) < core.handshake_spin {
            if tcp::has_come(tcp.as_fd()) {
                return true;
            }
        }
        false
    }

    /// Sleeps until TCP says something, the handshake's end, or `left`.
    fn wait_for_tcp(&self, fed: Fed, left: Option<Duration>) -> io::Result<()> {
        let Some(tcp) = self.shared.tcp() else { return Ok(()) };
        let own = Wakeup::own();
        if let Some(own) = &own {
            own.prepare();
            self.shared.waiting().push(Arc::clone(own));
        }
        // Whoever settles it after this look wakes.
        let said = match self.shared.outcome() {
            None => self.poll_tcp(&*tcp, own.as_deref(), fed, left),
            Some(_) => Ok(()),
        };
        if let Some(own) = &own {
            own.awake();
            self.shared.waiting().retain(|it| !Arc::ptr_eq(it, own));
        }
        said
    }

    fn poll_tcp(
        &self,
        tcp: &dyn Tcp,
        own: Option<&Wakeup>,
        fed: Fed,
        left: Option<Duration>,
    ) -> io::Result<()> {
        let Some(core) = self.home.own() else { return Ok(()) };
        // What is there already would end each sleep at once.
        let tells = fed == Fed::Nothing;
        let soon = (!tells || own.is_none()).then_some(LOOK_AGAIN);
        let timer = core.next_timeout().map(|at| at.since(clock::now()));
        if timer.is_some_and(|left| left.is_zero()) {
            // What is due is not this handshake's alone; nobody else may look.
            core.take();
        }
        let wait = [left, soon, timer].into_iter().flatten().min();
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN | PollFlags::RDHUP, tells);
        events.set(PollFlags::OUT, self.handshake_writes());
        let mut fds: ArrayVec<PollFd<'_>, 2> = ArrayVec::new();
        if let Some(own) = own {
            fds.push(PollFd::from_borrowed_fd(own.fd(), PollFlags::IN));
        }
        if !events.is_empty() {
            fds.push(PollFd::from_borrowed_fd(tcp.as_fd(), events));
        }
        let said = match few::poll(&mut fds, wait) {
            Err(error) if error != Errno::AGAIN => Err(error.into()),
            _ => Ok(()),
        };
        if let (Some(own), Some(bell)) = (own, fds.first())
            && bell.revents().contains(PollFlags::IN)
        {
            own.drain();
        }
        said
    }
}
