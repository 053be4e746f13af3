// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One TCP connection of the program that is, or may become, one of SMC.
//!
//! Invariant: a stage never goes back; once a connection is plain TCP it is not in the table any more, and
//! every call on it is the next library's.

mod calls;
mod forked;
mod handshake;
mod late;
mod options;
mod passed;
mod watch;

use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ism_client::own::Own;
use smc_socket::{LateWord, Role, Socket};

pub(crate) use calls::Answer;
pub(crate) use watch::Watcher;

use crate::descriptor::{self, Number};
use crate::meeting::Meeting;
use crate::minder;
use crate::process;
use crate::settings::SETTINGS;
use crate::table::File;
use watch::Watchers;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// TCP is being connected, without the program waiting for it.
    Connecting,
    /// TCP is connected, the handshake has not begun.
    Fresh,
    /// The handshake goes on.
    Handshake,
    /// TCP, but the peer may still say something of the handshake before the data.
    Late,
    /// A connection of SMC.
    Smc,
    /// Plain TCP.
    Tcp,
    /// The peer closed during the handshake, before it had sent anything.
    Ended,
    /// The handshake failed, so the connection was reset; or it is the parent process's.
    Broken,
}

impl Stage {
    const fn of(number: u8) -> Self {
        match number {
            0 => Self::Connecting,
            1 => Self::Fresh,
            2 => Self::Handshake,
            3 => Self::Late,
            4 => Self::Smc,
            5 => Self::Tcp,
            6 => Self::Ended,
            _ => Self::Broken,
        }
    }
}

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Sock {
    /// One of its descriptors.
    number: Number,
    /// All of them.
    numbers: Mutex<Vec<c_int>>,
    role: Role,
    stage: AtomicU8,
    /// What finds out whether the peer speaks SMC, if TCP does not say.
    meeting: Option<Box<Meeting>>,
    /// Held while the handshake begins.
    beginning: Mutex<()>,
    engine: OnceLock<Arc<Socket>>,
    /// What the peer may still say, when this is TCP.
    late: OnceLock<Arc<LateWord>>,
    /// O_NONBLOCK.
    nonblocking: AtomicBool,
    /// SO_RCVTIMEO and SO_SNDTIMEO in µs; 0: none.
    timeouts: [AtomicU64; 2],
    /// SO_RCVLOWAT.
    low_water: AtomicU32,
    /// The program has shut its sending direction down.
    is_shut: AtomicBool,
    /// What it has shut during the handshake.
    noted: AtomicU8,
    /// It has sent something after the peer had closed.
    was_vain: AtomicBool,
    /// Another process may have it: a child, or the parent.
    has_forked: AtomicBool,
    watchers: Mutex<Watchers>,
    /// A descriptor of our own, after the program has closed its last during the handshake.
    kept: Mutex<Option<Own>>,
    /// The engine tells [`watch`] of events.
    observed: AtomicBool,
    /// What TCP has said of its end during the handshake: it says it once.
    heard: AtomicU16,
    /// The minder was asked to look after its TCP connection for the watchers' sake.
    attended: AtomicBool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a wait that begins now ends; none: never, or after all that the clock can say.
pub(crate) fn end_of(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// Which way a call goes.
pub(crate) enum Route<'a> {
    Smc(&'a Socket),
    Tcp,
    /// The handshake goes on.
    Pending,
    /// TCP for who sends; who receives waits.
    Late,
    Ended,
    Broken,
}

impl Sock {
    /// A connection at the descriptor `fd`.
    pub(crate) fn new(fd: c_int, role: Role, stage: Stage, nonblocking: bool) -> Self {
        Self {
            number: Number::new(fd),
            numbers: Mutex::new(vec![fd]),
            role,
            stage: AtomicU8::new(stage as u8),
            meeting: None,
            beginning: Mutex::default(),
            engine: OnceLock::new(),
            late: OnceLock::new(),
            nonblocking: AtomicBool::new(nonblocking),
            timeouts: [const { AtomicU64::new(0) }; 2],
            low_water: AtomicU32::new(1),
            is_shut: AtomicBool::new(false),
            noted: AtomicU8::new(0),
            was_vain: AtomicBool::new(false),
            has_forked: AtomicBool::new(false),
            watchers: Mutex::default(),
            kept: Mutex::default(),
            observed: AtomicBool::new(false),
            heard: AtomicU16::new(0),
            attended: AtomicBool::new(false),
        }
    }

    /// One whose other end is looked for on the board.
    pub(crate) fn with_meeting(self, meeting: Meeting) -> Self {
        Self { meeting: Some(Box::new(meeting)), ..self }
    }

    /// Whether its other end was looked for on the board.
    pub(crate) fn is_searched(&self) -> bool {
        self.meeting.is_some()
    }

    /// What looks for its other end, as long as it does.
    pub(crate) fn meeting(&self) -> Option<&Meeting> {
        self.meeting.as_deref().filter(|_| self.stage() == Stage::Fresh)
    }

    pub(crate) fn stage(&self) -> Stage {
        Stage::of(self.stage.load(Ordering::Acquire))
    }

    pub(crate) fn is_server(&self) -> bool {
        self.role == Role::Server
    }

    /// Whether the program has closed it, but not the handshake has ended.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.kept).is_some()
    }

    /// Whether somebody is told of its events.
    fn is_observed(&self) -> bool {
        self.observed.load(Ordering::Acquire)
    }

    /// Whether somebody is who does not hear of TCP's.
    pub(crate) fn is_attended(&self) -> bool {
        self.attended.load(Ordering::Acquire)
    }

    /// The address of its peer.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        let peer = rustix::net::getpeername(&self.number).ok().flatten()?;
        let peer = SocketAddr::try_from(peer).ok()?;
        Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }

    /// Whether the program sends no more.
    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Relaxed)
    }

    /// A descriptor of it.
    pub(crate) fn number(&self) -> c_int {
        self.number.get()
    }

    pub(crate) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    /// O_NONBLOCK was set or cleared.
    pub(crate) fn set_nonblocking(&self, on: bool) {
        self.nonblocking.store(on, Ordering::Relaxed);
    }

    /// The connection of SMC, if it is one by now.
    #[inline]
    pub(crate) fn smc(&self) -> Option<&Socket> {
        if self.stage() == Stage::Smc { self.engine.get().map(|engine| &**engine) } else { None }
    }

    /// Which way calls go now; goes on with the handshake without waiting.
    #[inline]
    pub(crate) fn route(&self, file: &Arc<File>) -> Route<'_> {
        if let Some(engine) = self.smc() {
            return Route::Smc(engine);
        }
        match self.stage() {
            stage if stage < Stage::Smc => self.advance(file),
            _ => self.routed(),
        }
    }

    // Descriptors

    /// Another descriptor of this connection.
    pub(crate) fn add_number(&self, fd: c_int) {
        lock(&self.numbers).push(fd);
    }

    /// The program closes `fd`, which is not in the table any more. If it was the last, the connection is
    /// closed.
    pub(crate) fn remove_number(&self, file: &Arc<File>, fd: c_int) {
        let left = {
            let mut numbers = lock(&self.numbers);
            numbers.retain(|number| *number != fd);
            numbers.last().copied()
        };
        self.tell_closing(file, fd, left.is_some());
        match left {
            Some(other) if self.number() == fd => self.number.set(other),
            Some(_) => {}
            None => self.close(file),
        }
    }

    /// Runs `act` with a descriptor of it that nobody closes meanwhile: `fd`, if it is one, or else a copy of another, which
    /// is closed then. Without any, not at all.
    pub(crate) fn with_number(&self, fd: c_int, act: impl FnOnce(BorrowedFd<'_>)) {
        // Who closes one takes it from here first.
        let numbers = lock(&self.numbers);
        if numbers.contains(&fd) {
            act(descriptor::borrow(fd));
        } else if let Some(copy) = numbers.last().map(|other| Own::copy(descriptor::borrow(*other)))
        {
            // Without room for it the program hears nothing more by that number.
            let _ = copy.map(|copy| act(copy.as_fd()));
        }
    }

    fn close(&self, file: &Arc<File>) {
        self.forget_watchers();
        if let Some(meeting) = self.meeting() {
            meeting.lose_patience();
        }
        let linger = self.linger();
        // What nobody has begun may be a child's.
        let begun = match self.stage() {
            Stage::Fresh => !minder::forks(),
            stage => stage == Stage::Handshake || stage == Stage::Late,
        };
        let keeps = begun && linger != Some(Duration::ZERO) && !SETTINGS.forced_tcp;
        if keeps && process::has_room() && self.keep().is_ok() {
            if self.stage() == Stage::Late {
                self.end_sending();
            }
            return process::mind_closed(file);
        }
        if let Some(engine) = self.engine.get() {
            engine.close(linger);
        }
    }

    /// Keeps the TCP connection until the handshake has ended: the peer is to see an end, not a reset.
    fn keep(&self) -> io::Result<()> {
        let kept = Own::copy(&self.number)?;
        self.number.set(kept.as_raw_fd());
        *lock(&self.kept) = Some(kept);
        Ok(())
    }
}

/// Whether O_NONBLOCK is set.
pub(crate) fn is_nonblocking(fd: c_int) -> bool {
    let flags = rustix::fs::fcntl_getfl(descriptor::borrow(fd));
    flags.is_ok_and(|flags| flags.contains(rustix::fs::OFlags::NONBLOCK))
}
