// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One TCP connection of the program that is, or may become, one of SMC.
//!
//! Invariant: a stage never goes back; once a connection is plain TCP it is not in the table any more, and
//! every call on it is the next library's.

mod calls;
mod forked;
mod late;
mod options;
mod watch;

use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ism_client::own::Own;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smc_proto::handshake::reason::Failure;
use smc_snapshot::reason;
use smc_socket::{Handshake, LateWord, Role, Socket};

pub(crate) use calls::Answer;
pub(crate) use watch::Watcher;

use crate::alone;
use crate::buffers;
use crate::descriptor::{self, Number};
use crate::fallen::{self, Why};
use crate::meeting::{Meeting, Progress};
use crate::minder;
use crate::process;
use crate::settings::SETTINGS;
use crate::table::{self, File};
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
    /// It has sent something after the peer had closed.
    was_vain: AtomicBool,
    /// Another process may have it: a child, or the parent.
    has_forked: AtomicBool,
    watchers: Mutex<Watchers>,
    /// A descriptor of our own, after the program has closed its last during the handshake.
    kept: Mutex<Option<Own>>,
    /// The engine tells [`watch`] of events.
    observed: AtomicBool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            was_vain: AtomicBool::new(false),
            has_forked: AtomicBool::new(false),
            watchers: Mutex::default(),
            kept: Mutex::default(),
            observed: AtomicBool::new(false),
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
    pub(crate) fn is_observed(&self) -> bool {
        self.observed.load(Ordering::Acquire)
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

    /// Goes on with the handshake without waiting.
    #[cold]
    pub(crate) fn advance(&self, file: &Arc<File>) -> Route<'_> {
        if self.stage() == Stage::Connecting && !self.has_connected(file) {
            return self.routed();
        }
        let met = self.meeting().map(|meeting| meeting.advance(file, self.number.as_fd()));
        match met {
            Some(Progress::Pending) => return self.routed(),
            Some(Progress::Tcp(why)) => self.become_tcp(file, why.into()),
            Some(Progress::Met) | None => {}
        }
        if self.stage() == Stage::Fresh {
            self.begin(file);
            if !self.is_server() {
                // Nobody can have answered yet.
                return self.routed();
            }
        }
        if self.stage() == Stage::Handshake
            && let Some(engine) = self.engine.get()
        {
            self.settle(file, engine.advance());
        }
        if self.stage() == Stage::Late {
            self.hear_out(file);
        }
        self.routed()
    }

    /// Goes on with the handshake, if there is one to go on with.
    pub(crate) fn go_on(&self, file: &Arc<File>) {
        if self.stage() < Stage::Smc {
            self.advance(file);
        }
    }

    fn routed(&self) -> Route<'_> {
        match self.stage() {
            Stage::Smc => self.smc().map_or(Route::Broken, Route::Smc),
            Stage::Tcp => Route::Tcp,
            Stage::Ended => Route::Ended,
            Stage::Broken => Route::Broken,
            Stage::Late => Route::Late,
            Stage::Connecting | Stage::Fresh | Stage::Handshake => Route::Pending,
        }
    }

    /// Whether TCP is connected by now. If that failed the program sees it on its socket.
    fn has_connected(&self, file: &Arc<File>) -> bool {
        let mut fds = [PollFd::new(&self.number, PollFlags::OUT)];
        if !poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            return false;
        }
        let connected = rustix::net::getpeername(&self.number).is_ok_and(|peer| peer.is_some());
        let speaks =
            connected && (self.meeting.is_some() || process::peer_speaks_smc(&self.number));
        if speaks {
            self.move_on(Stage::Connecting, Stage::Fresh);
        } else {
            let why = if connected { process::why_not(&self.number) } else { reason::UNASKED };
            self.become_tcp(file, why.into());
        }
        speaks
    }

    /// Begins the handshake.
    fn begin(&self, file: &Arc<File>) {
        let _beginning = lock(&self.beginning);
        if self.stage() != Stage::Fresh {
            return;
        }
        if SETTINGS.forced_tcp {
            return self.become_tcp(file, reason::FORCED.into());
        }
        // It may have been connected between two looks of who calls this.
        if self.meeting.as_ref().is_some_and(|meeting| !meeting.has_met()) {
            return;
        }
        let process = process::current();
        let Some(stack) = process.as_ref().and_then(|process| process.stack.as_ref()) else {
            return self.become_tcp(file, reason::NODAEMON.into());
        };
        let tcp = Box::new(self.number.clone());
        let engine = stack.begin_with(tcp, self.role, true, buffers::receive(self.number()));
        if self.engine.set(engine).is_ok() {
            self.move_on(Stage::Fresh, Stage::Handshake);
        }
    }

    fn move_on(&self, from: Stage, to: Stage) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.stage.compare_exchange(from as u8, to as u8, success, failure).is_ok()
    }

    /// The handshake stands so.
    fn settle(&self, file: &Arc<File>, handshake: Handshake) {
        let fd = self.number();
        match handshake {
            Handshake::Pending => {}
            Handshake::Smc => {
                if let Some(engine) = self.engine.get() {
                    self.take_options(engine);
                }
                if self.move_on(Stage::Handshake, Stage::Smc) {
                    SETTINGS.say(format_args!("socket {fd}: SMC-D"));
                    self.tell_settled(file);
                }
            }
            Handshake::Tcp(reason) => self.become_tcp(file, Why::of(reason)),
            Handshake::Late(reason) => {
                if let Some(engine) = self.engine.get() {
                    self.settle_late(file, engine, Why::of(reason));
                }
            }
            Handshake::Failed(failure) => {
                let ended = failure == Failure::Reset;
                let end = if ended { Stage::Ended } else { Stage::Broken };
                if self.move_on(Stage::Handshake, end) {
                    SETTINGS.say(format_args!("socket {fd}: reset: {failure}"));
                    self.tell_settled(file);
                }
            }
        }
    }

    /// After the handshake of a connection that the program has closed.
    fn finish_closing(&self) {
        let kept = lock(&self.kept).take();
        if kept.is_some()
            && let Some(engine) = self.engine.get()
        {
            engine.close(None);
        }
    }

    /// Says why this is TCP, and remembers it.
    fn say_why(&self, why: Why) {
        if self.is_closed() {
            fallen::say(self.number(), why);
        } else {
            fallen::connection(self.number(), self.role, why);
        }
    }

    /// From here on every call is TCP's.
    fn become_tcp(&self, file: &Arc<File>, why: Why) {
        let before = Stage::of(self.stage.swap(Stage::Tcp as u8, Ordering::AcqRel));
        if before != Stage::Tcp {
            // Of a late word nobody needs to know.
            if before != Stage::Late {
                self.say_why(why);
            }
            self.tell_settled(file);
            for fd in lock(&self.numbers).drain(..) {
                if table::get(fd).is_some_and(|there| Arc::ptr_eq(&there, file)) {
                    table::set(fd, None);
                }
            }
        }
    }

    /// Waits for the end of the handshake.
    ///
    /// # Errors
    /// EAGAIN after the time; EINTR.
    pub(crate) fn finish(
        &self,
        file: &Arc<File>,
        timeout: Option<Duration>,
    ) -> io::Result<Route<'_>> {
        if self.stage() == Stage::Connecting {
            self.wait_for_tcp(timeout)?;
        }
        let begun = std::time::Instant::now();
        if let Some(meeting) = self.meeting() {
            if self.hurry() && alone::waits_for_itself(&self.number) {
                meeting.lose_patience();
            }
            meeting.wait(self, file, timeout)?;
        }
        let timeout = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        let route = self.advance(file);
        if let (Route::Pending, Some(engine)) = (&route, self.engine.get()) {
            if self.hurry() && alone::waits_for_itself(&self.number) {
                self.settle(file, engine.withdraw());
            }
            self.settle(file, engine.finish_handshake(timeout)?);
        }
        match self.routed() {
            Route::Pending => Err(Errno::AGAIN.into()),
            route => Ok(route),
        }
    }

    fn wait_for_tcp(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.number, PollFlags::OUT)];
        poll(&mut fds, timeout.and_then(|time| time.try_into().ok()).as_ref())?;
        Ok(())
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
        match left {
            Some(other) if self.number() == fd => self.number.set(other),
            Some(_) => {}
            None => self.close(file),
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
