// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a connection comes to be one of SMC, or plain TCP.
//!
//! Invariant: but for [`Sock::finish`], which the program waits in, nothing here waits.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smc_proto::handshake::reason::Failure;
use smc_snapshot::reason;
use smc_socket::Handshake;

use super::{Route, Sock, Stage, lock};
use crate::fallen::{self, Why};
use crate::meeting::Progress;
use crate::settings::SETTINGS;
use crate::table::{self, File};
use crate::{alone, buffers, process};

impl Sock {
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

    /// As [`Sock::go_on`], for who is told when TCP says something: until then there may be nothing to do.
    pub(crate) fn go_on_unheard(&self, file: &Arc<File>) {
        let waits = match self.stage() {
            Stage::Connecting => true,
            Stage::Handshake => self.engine.get().is_some_and(|engine| engine.waits_for_tcp()),
            _ => false,
        };
        if !waits {
            self.go_on(file);
        }
    }

    /// After a connect that does not wait: over lo TCP is connected already.
    pub(crate) fn begin_soon(&self, file: &Arc<File>) {
        if self.is_offered() && self.move_on(Stage::Connecting, Stage::Fresh) {
            self.go_on(file);
        }
    }

    /// Whether TCP is connected, and its option has said that the peer speaks SMC.
    fn is_offered(&self) -> bool {
        self.meeting.is_none() && !SETTINGS.forced_tcp && process::peer_speaks_smc(&self.number)
    }

    /// Goes on with the handshake, if there is one to go on with.
    pub(crate) fn go_on(&self, file: &Arc<File>) {
        if self.stage() < Stage::Smc {
            self.advance(file);
        }
    }

    pub(super) fn routed(&self) -> Route<'_> {
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
        if self.is_offered() {
            // Another thread may have been first.
            self.move_on(Stage::Connecting, Stage::Fresh);
            return true;
        }
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

    pub(crate) fn move_on(&self, from: Stage, to: Stage) -> bool {
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
                    self.shut_as_noted();
                    self.tell_settled(file);
                    let heard = self.heard.load(Ordering::Acquire);
                    if let Some(engine) = self.smc().filter(|_| heard != 0) {
                        engine.tcp_stands(PollFlags::from_bits_retain(heard));
                    }
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
    pub(super) fn finish_closing(&self) {
        let kept = lock(&self.kept).take();
        if kept.is_some()
            && let Some(engine) = self.engine.get()
        {
            engine.close(None);
        }
    }

    /// Says why this is TCP, and remembers it.
    pub(super) fn say_why(&self, why: Why) {
        if self.is_closed() {
            fallen::say(self.number(), why);
        } else {
            fallen::connection(self.number(), self.role, why);
        }
    }

    /// From here on every call is TCP's.
    pub(super) fn become_tcp(&self, file: &Arc<File>, why: Why) {
        let before = Stage::of(self.stage.swap(Stage::Tcp as u8, Ordering::AcqRel));
        if before != Stage::Tcp {
            self.shut_as_noted();
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
        let begun = Instant::now();
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
}
