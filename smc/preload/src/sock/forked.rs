// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a child of fork has of a connection.
//!
//! Invariant: in the child no lock is taken: another thread of the parent may have held it.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use smc_snapshot::reason;
use smc_socket::{Socket, Tcp};

use super::{Sock, Stage};
use crate::descriptor::Number;
use crate::meeting::Meeting;
use crate::table::File;

impl Sock {
    /// Before a fork: a handshake that goes on gets `patience` to end, so that the child can have the connection.
    pub(crate) fn before_fork(&self, file: &Arc<File>, patience: Duration) {
        self.has_forked.store(true, Ordering::Relaxed);
        let end = Instant::now() + patience;
        if !self.is_closed() {
            self.end_meeting(file, patience);
        }
        if self.stage() == Stage::Handshake && !self.is_closed() {
            // It fails if it takes longer.
            let _ = self.finish(file, Some(end.saturating_duration_since(Instant::now())));
        }
    }

    /// The search for the other end is this process's alone: it is over before there are two. One that nobody has
    /// begun is whosoever comes first.
    pub(super) fn end_meeting(&self, file: &Arc<File>, patience: Duration) {
        let Some(meeting) = &self.meeting else { return };
        if self.stage() == Stage::Connecting {
            self.go_on(file);
            if self.stage() == Stage::Connecting {
                // Who is connected when, or at all, nobody knows.
                return self.become_tcp(file, reason::UNMET.into());
            }
        }
        if self.stage() == Stage::Fresh && meeting.is_begun() {
            // If it is interrupted it is over as well.
            let _ = meeting.wait(self, file, Some(patience));
            // Then what this end says last decides, as soon as it is read.
            meeting.lose_patience();
            self.go_on(file);
            let _ = meeting.wait(self, file, Some(Duration::ZERO));
        }
    }

    /// What a child of fork has of this connection, at the descriptors `fds`.
    pub(crate) fn after_fork(
        &self,
        fd: c_int,
        fds: Vec<c_int>,
        inherited: impl FnOnce(Box<dyn Tcp>) -> Option<Arc<Socket>>,
    ) -> Self {
        let number = Number::new(fd);
        let engine = inherited(Box::new(number.clone()));
        let meeting = self.meeting.as_deref().and_then(Meeting::after_fork);
        let is_searched = self.meeting.is_some() && meeting.is_none();
        // A handshake that nobody has begun is whosoever comes first.
        let stage = match self.stage() {
            Stage::Connecting | Stage::Fresh if is_searched => Stage::Broken,
            stage @ (Stage::Connecting | Stage::Fresh | Stage::Late) => stage,
            stage @ (Stage::Tcp | Stage::Ended) => stage,
            Stage::Smc if engine.is_some() => Stage::Smc,
            Stage::Handshake | Stage::Smc | Stage::Broken => Stage::Broken,
        };
        let mut child = Self::new(fd, self.role, stage, self.is_nonblocking());
        child.number = number;
        child.has_forked = AtomicBool::new(true);
        child.meeting = meeting.map(Box::new);
        if let Some(engine) = engine {
            child.engine = OnceLock::from(engine);
        }
        for (own, parents) in child.timeouts.iter().zip(&self.timeouts) {
            own.store(parents.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        child.low_water = AtomicU32::new(self.low_water.load(Ordering::Relaxed));
        for (own, parents) in [(&child.is_shut, &self.is_shut), (&child.was_vain, &self.was_vain)] {
            own.store(parents.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        child.noted = AtomicU8::new(self.noted.load(Ordering::Relaxed));
        child.numbers = Mutex::new(fds);
        child.late = self.late_of_child().map_or_else(OnceLock::new, OnceLock::from);
        child
    }
}
