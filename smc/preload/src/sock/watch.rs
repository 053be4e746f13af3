// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who waits for a connection beside the thread that calls: epoll instances, threads in poll.
//!
//! Invariant: watchers are called with the list's lock held and take at most their own locks; the list's
//! lock is never asked for with a watcher's lock held, and never around a call of the engine.

use std::ffi::c_int;
use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use smc_socket::{Observe, Ready};

use super::{Sock, Stage, lock};
use crate::process;
use crate::table::File;

/// Somebody who waits for a connection.
pub(crate) trait Watcher: Debug + Send + Sync {
    /// It is one of SMC now, or plain TCP, or broken. If TCP, this is the last that is heard of it.
    fn settled(&self, stage: Stage);
    /// This has happened.
    fn ready(&self, news: Ready);
    /// The program is about to close the descriptor `fd` of it.
    fn closing(&self, _fd: c_int) {}
    /// It was closed; this is the last that is heard of it.
    fn closed(&self);
    /// Whether it waits for the connection's TCP as well, and says what it hears ([`Sock::tcp_says`]), so that the minder
    /// need not.
    fn hears_tcp(&self) -> bool {
        false
    }
}

pub(super) type Watchers = Vec<Arc<dyn Watcher>>;

/// What the engine tells.
struct Observer(Weak<File>);

impl Observe for Observer {
    fn ready(&self, news: Ready) {
        if let Some(file) = self.0.upgrade()
            && let File::Sock(sock) = &*file
        {
            sock.tell(news);
        }
    }
}

impl Sock {
    /// From now on `watcher` is told of events.
    pub(crate) fn add_watcher(&self, file: &Arc<File>, watcher: Arc<dyn Watcher>) {
        let hears = watcher.hears_tcp();
        lock(&self.watchers).push(watcher);
        if self.stage() == Stage::Smc {
            self.observe(file);
            self.attend(file);
        } else {
            // Who looks for its other end hears of it by the device. The program may not wait after all.
            process::mind(file, !hears || self.meeting().is_some());
            self.hurry();
        }
    }

    /// Has the minder look after the TCP connection, unless all who wait for it do so themselves.
    fn attend(&self, file: &Arc<File>) {
        let heard = lock(&self.watchers).iter().all(|watcher| watcher.hears_tcp());
        if !heard && !self.attended.swap(true, Ordering::AcqRel) {
            process::mind(file, true);
        }
    }

    /// The program is about to close the descriptor `fd`, and has others of it.
    pub(super) fn tell_closing(&self, file: &Arc<File>, fd: c_int, others: bool) {
        lock(&self.watchers).iter().for_each(|watcher| watcher.closing(fd));
        if others && self.is_observed() {
            self.attend(file);
        } else if others && lock(&self.watchers).iter().any(|watcher| !watcher.hears_tcp()) {
            process::mind(file, true);
        }
    }

    /// The program waits for the handshake, whose other end may be in this process too: that is begun now.
    pub(super) fn hurry(&self) -> bool {
        let may_be_here = !self.is_server() && process::listens();
        if may_be_here {
            process::hurry();
        }
        may_be_here
    }

    /// From now on it is not.
    pub(crate) fn remove_watcher(&self, watcher: &Arc<dyn Watcher>) {
        lock(&self.watchers).retain(|it| !Arc::ptr_eq(it, watcher));
    }

    pub(super) fn forget_watchers(&self) {
        let watchers = std::mem::take(&mut *lock(&self.watchers));
        watchers.iter().for_each(|watcher| watcher.closed());
    }

    /// Tells all watchers of events.
    pub(super) fn tell(&self, news: Ready) {
        lock(&self.watchers).iter().for_each(|watcher| watcher.ready(news));
    }

    /// Tells all watchers how the handshake ended.
    pub(super) fn tell_settled(&self, file: &Arc<File>) {
        let stage = self.stage();
        let some = {
            let mut watchers = lock(&self.watchers);
            watchers.iter().for_each(|watcher| watcher.settled(stage));
            if stage == Stage::Tcp {
                watchers.clear();
            }
            !watchers.is_empty()
        };
        if some && stage == Stage::Smc {
            self.observe(file);
            self.attend(file);
        }
        if stage != Stage::Late {
            self.finish_closing();
        }
    }

    /// Asks the engine for events.
    fn observe(&self, file: &Arc<File>) {
        if !self.observed.swap(true, Ordering::AcqRel)
            && let Some(engine) = self.engine.get()
        {
            engine.observe(Some(Arc::new(Observer(Arc::downgrade(file)))));
            // Another thread may have taken an event just before, when there was nobody to be told, and
            // after a watcher had looked.
            let now = engine.readiness();
            lock(&self.watchers).iter().for_each(|watcher| watcher.ready(now));
        }
    }

    /// What the connection is ready for.
    pub(crate) fn readiness(&self) -> Ready {
        match self.stage() {
            Stage::Smc => {
                let ready = self.smc().map_or(Ready::NOTHING, |engine| engine.readiness());
                // What ends with an error is over both ways at once.
                let is_reset = ready.contains(Ready::ERROR);
                if is_reset { ready | Ready::HANG_UP } else { ready }
            }
            Stage::Late => self.late_readiness(),
            Stage::Ended => Ready::READABLE | Ready::WRITABLE | Ready::HANG_UP | Ready::READ_CLOSED,
            Stage::Broken => {
                Ready::READABLE
                    | Ready::WRITABLE
                    | Ready::ERROR
                    | Ready::HANG_UP
                    | Ready::READ_CLOSED
            }
            _ => Ready::NOTHING,
        }
    }

    /// TCP says so: goes on with the handshake, or hears that the peer is gone.
    pub(crate) fn tcp_says(&self, file: &Arc<File>, events: rustix::event::PollFlags) {
        if self.smc().is_none() {
            self.heard.fetch_or(events.bits(), Ordering::AcqRel);
            self.go_on(file);
            self.tell_late();
        }
        if let Some(engine) = self.smc() {
            engine.tcp_stands(events);
        }
    }
}
