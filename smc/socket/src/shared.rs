// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What all threads and tables share of a socket: its TCP connection, its handshake's outcome, who
//! observes it.
//!
//! Invariant: the outcome is set once. The observer is called without a lock of this crate.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rustix::event::PollFlags;
use smc_proto::conn::{LINGER, Ready};
use smc_proto::handshake::reason::{Failure, Reason};
use smc_proto::id::ConnId;

use crate::channel::{Channel, Effects, Inner};
use crate::clock;
use crate::late::LateWord;
use crate::tcp::{self, Standing};
use crate::types::{Observe, Role, Tcp};
use crate::wakeup::Wakeup;

/// A socket as the tables know it.
pub(crate) struct Shared {
    pub(crate) id: ConnId,
    pub(crate) role: Role,
    tcp: RwLock<Option<Arc<dyn Tcp>>>,
    outcome: OnceLock<Outcome>,
    /// Threads that sleep until there is an outcome: another one may take the message that they wait for.
    waiting: Mutex<Vec<Arc<Wakeup>>>,
    observer: RwLock<Option<Arc<dyn Observe>>>,
    /// The handshake waits for TCP, as of the last look.
    waits: AtomicBool,
    /// CLC bytes that TCP has not taken yet.
    outbox: Mutex<Vec<u8>>,
    /// TCP says nothing new any more: its end was told to the connection.
    tcp_over: AtomicBool,
    /// The application has closed.
    closed: AtomicBool,
}

/// What follows from an act on a connection, and is not the connection's own to do.
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub(crate) struct Due {
    /// Its DMB is to be given back.
    pub(crate) release: bool,
    /// Something has happened that other processes that have it should hear of.
    pub(crate) news: bool,
    /// They do not hear of it by a signal.
    pub(crate) tell: bool,
    /// Somebody of this process was told of something. Nothing follows from it.
    pub(crate) told: bool,
}

impl Due {
    #[inline]
    pub(crate) fn is_some(self) -> bool {
        self.release || self.news || self.tell
    }
}

/// How the handshake ended.
pub(crate) enum Outcome {
    Smc(Box<Channel>),
    Tcp(Reason, Arc<LateWord>),
    Failed(Failure),
}

impl Shared {
    pub(crate) fn new(id: ConnId, role: Role, tcp: Arc<dyn Tcp>) -> Self {
        Self {
            id,
            role,
            tcp: RwLock::new(Some(tcp)),
            outcome: OnceLock::new(),
            waiting: Mutex::default(),
            observer: RwLock::new(None),
            waits: AtomicBool::new(false),
            outbox: Mutex::default(),
            tcp_over: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The TCP connection, until the application has closed.
    pub(crate) fn tcp(&self) -> Option<Arc<dyn Tcp>> {
        self.tcp.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of the TCP connection.
    pub(crate) fn drop_tcp(&self) {
        let tcp = self.tcp.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(tcp);
    }

    /// The application closes; whether it had not before.
    pub(crate) fn begin_close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// It could not.
    pub(crate) fn end_close(&self) {
        self.closed.store(false, Ordering::Release);
    }

    /// Whether it has, in this process.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether no process has it open any more.
    pub(crate) fn is_left(&self) -> bool {
        let others = self.channel().map_or(0, |channel| channel.seat().others());
        self.is_closed() && others == 0
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// The connection, if it is one of SMC.
    #[inline]
    pub(crate) fn channel(&self) -> Option<&Channel> {
        match self.outcome.get()? {
            Outcome::Smc(channel) => Some(channel),
            _ => None,
        }
    }

    /// The handshake is over. The observer is the caller's to tell.
    pub(crate) fn settle(&self, outcome: Outcome) {
        // A handshake ends once; a second outcome would change nothing.
        let _ = self.outcome.set(outcome);
        self.waiting().iter().for_each(|waiting| waiting.wake());
    }

    /// Whether the handshake waits for TCP, as of the last look.
    pub(crate) fn waits(&self) -> bool {
        self.outcome().is_none() && self.waits.load(Ordering::Acquire)
    }

    /// After a look. With the control's lock held, so that of two threads the later one's word stays.
    pub(crate) fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Release);
    }

    /// Threads that [`Shared::settle`] wakes.
    pub(crate) fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Wakeup>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn outbox(&self) -> MutexGuard<'_, Vec<u8>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the observer; what follows.
    pub(crate) fn set_observer(&self, observer: Option<Arc<dyn Observe>>) -> Due {
        *self.observer.write().unwrap_or_else(PoisonError::into_inner) = observer;
        self.observed()
    }

    /// Signals come for a connection that is observed.
    pub(crate) fn observed(&self) -> Due {
        let observed = self.channel().and_then(|channel| {
            let look = |inner: &mut Inner<'_>| {
                // Asked under the connection's lock: of two threads the later one has the later answer.
                let observer = self.observer.read().unwrap_or_else(PoisonError::into_inner);
                inner.local.polled = observer.is_some();
                drop(observer);
                inner.unwatch();
            };
            self.act(channel, look)
        });
        observed.unwrap_or_default().1
    }

    /// Tells the observer.
    pub(crate) fn notify(&self, news: Ready) {
        let observer = self.observer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(observer) = observer {
            observer.ready(news);
        }
    }

    /// Runs `act` on the connection and what follows from it here; what else does. `None`: as of [`Channel::with`].
    #[inline]
    pub(crate) fn act<R>(
        &self,
        channel: &Channel,
        act: impl FnOnce(&mut Inner<'_>) -> R,
    ) -> Option<(R, Due)> {
        let (result, effects) = channel.with(act)?;
        Some((result, self.acted(effects)))
    }

    /// As [`Shared::act`]; `None` if another process has the connection for so long that it must be stopped.
    pub(crate) fn act_soon<R>(
        &self,
        channel: &Channel,
        act: impl FnOnce(&mut Inner<'_>) -> R,
    ) -> Option<(R, Due)> {
        let (result, effects) = channel.with_soon(None, act)?;
        Some((result, self.acted(effects)))
    }

    /// Does what follows from an act here; what else does.
    #[inline]
    pub(crate) fn acted(&self, effects: Effects) -> Due {
        if !effects.is_none() {
            self.carry_out(effects);
        }
        let news = effects.fresh || effects.anew;
        let told = !effects.news.is_empty();
        Due { release: effects.release, news, tell: effects.anew, told }
    }

    fn carry_out(&self, effects: Effects) {
        if (effects.shut_tcp || effects.reset_tcp)
            && let Some(tcp) = self.tcp()
        {
            self.tcp_over.store(true, Ordering::Relaxed);
            if effects.reset_tcp {
                tcp::reset(&*tcp);
            } else {
                // Also before close(2), which says nothing while somebody else has a descriptor: a program that was
                // executed, or to whom it was passed on.
                tcp::shut(&*tcp);
            }
        }
        if !effects.news.is_empty() {
            self.notify(effects.news);
        }
    }

    /// Looks at the connection's memory; what follows. `None`, here and below: as of [`Shared::act_soon`].
    pub(crate) fn look(&self) -> Option<Due> {
        let Some(channel) = self.channel() else { return Some(Due::default()) };
        Some(self.act_soon(channel, |inner| inner.look())?.1)
    }

    /// What of TCP has to be waited for besides the memory; `None` if it says nothing more.
    pub(crate) fn tcp_interest(&self, inner: &Inner<'_>) -> Option<PollFlags> {
        if self.tcp_over.load(Ordering::Relaxed) {
            return None;
        }
        // The peer's FIN is old news once it has said that it is done; a reset is not.
        Some(if inner.peer_is_done() { PollFlags::empty() } else { PollFlags::RDHUP })
    }

    /// TCP stands so; what follows.
    pub(crate) fn tcp_stands(&self, standing: Standing) -> Due {
        let tell = |inner: &mut Inner<'_>| self.tell_tcp(inner, standing);
        let told = self.tells(standing).and_then(|channel| self.act(channel, tell));
        told.unwrap_or_default().1
    }

    /// As [`Shared::tcp_stands`].
    pub(crate) fn tcp_stands_soon(&self, standing: Standing) -> Option<Due> {
        let Some(channel) = self.tells(standing) else { return Some(Due::default()) };
        Some(self.act_soon(channel, |inner| self.tell_tcp(inner, standing))?.1)
    }

    /// The connection, if it is news to it that TCP stands so.
    fn tells(&self, standing: Standing) -> Option<&Channel> {
        let news = standing != Standing::Up && !self.tcp_over.load(Ordering::Relaxed);
        self.channel().filter(|_| news)
    }

    fn tell_tcp(&self, inner: &mut Inner<'_>, standing: Standing) {
        inner.look();
        let news = standing > Standing::HalfClosed || !inner.peer_is_done();
        if inner.common.tcp_ended {
            self.tcp_over.store(true, Ordering::Relaxed);
        } else if news {
            self.tcp_over.store(true, Ordering::Relaxed);
            inner.peer_died(standing == Standing::Reset);
        }
    }

    /// Asks TCP how it stands; what follows.
    pub(crate) fn ask_tcp(&self) -> Option<Due> {
        if self.tcp_over.load(Ordering::Relaxed) {
            return Some(Due::default());
        }
        let standing = self.tcp().map_or(Standing::Up, |tcp| tcp::standing(&*tcp));
        self.tcp_stands_soon(standing)
    }

    /// Whether the connection was established after its peer had gone.
    pub(crate) fn is_orphan(&self) -> bool {
        self.channel().is_some_and(Channel::is_orphan)
    }

    /// Whether the peer has closed or aborted, or nobody ever was there; and what follows.
    pub(crate) fn peer_is_over(&self) -> Option<(bool, Due)> {
        let Some(channel) = self.channel() else { return Some((true, Due::default())) };
        self.act_soon(channel, |inner| inner.peer_is_over())
    }

    /// Another process that has it has ended, or closed it: what follows. If it was the last, the connection is over
    /// as it is when a process with a TCP connection ends.
    pub(crate) fn leave(&self, process: u32) -> Option<Due> {
        let Some(channel) = self.channel() else { return Some(Due::default()) };
        let (now, seat) = (clock::now(), channel.seat());
        let ((), due) = self.act_soon(channel, |inner| {
            if !seat.is_left() && seat.others_than(process) == 0 {
                inner.unwatch();
                inner.command(|conn| {
                    if conn.unread() > 0 {
                        conn.abort();
                    }
                    conn.close(now, LINGER);
                });
            }
            // After the commands: if this process is killed in between, they are given again.
            seat.leave(process);
        })?;
        Some(due)
    }

    /// Whether TCP's end was told to the connection.
    pub(crate) fn tcp_is_over(&self) -> bool {
        self.tcp_over.load(Ordering::Relaxed)
    }

    /// Sends CLC bytes, behind those that wait. False: the connection is broken.
    pub(crate) fn send_clc(&self, bytes: &[u8]) -> bool {
        let Some(tcp) = self.tcp() else { return false };
        let mut outbox = self.outbox();
        outbox.extend_from_slice(bytes);
        if outbox.is_empty() {
            return true;
        }
        match tcp::write(&*tcp, &outbox) {
            Ok(n) => {
                outbox.drain(..n);
                true
            }
            Err(_) => false,
        }
    }
}

impl Effects {
    #[inline]
    fn is_none(&self) -> bool {
        self.news.is_empty() && !self.shut_tcp && !self.reset_tcp
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fd = self.tcp().map(|tcp| format!("{:?}", tcp.as_fd()));
        f.debug_struct("Socket").field("id", &self.id).field("tcp", &fd).finish_non_exhaustive()
    }
}
