// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is to be done to connections by who dispatches, at once or when that is possible.
//!
//! Invariant: who dispatches waits for no process that is stopped; the number of a process that has ended is free
//! when nothing has to be done in its name any more.

use std::sync::Arc;
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::conn::Gone;

use crate::clock;
use crate::core::Core;
use crate::hub::Hub;
use crate::shared::Shared;

/// When it is tried again.
pub(crate) const AGAIN: Duration = Duration::from_millis(5);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Chore {
    /// Look at its memory, and have its other processes look.
    Look,
    /// Its link group ended, and the peer can be told.
    Abort,
    /// Its peer is gone, and TCP says how, no later than then.
    Doom(Instant),
    /// The same, asked again.
    Judge(Instant),
    /// A process that had it has ended.
    Leave(u32),
    /// Nobody touches its rings any more.
    Release,
}

impl Chore {
    const fn leaves(self) -> Option<u32> {
        match self {
            Self::Leave(process) => Some(process),
            _ => None,
        }
    }
}

/// What waits.
#[derive(Default)]
pub(crate) struct Chores {
    waiting: Vec<(Chore, Arc<Shared>)>,
    again: Option<Instant>,
    /// Processes that are to leave, once for each chore until it is done.
    leaving: Vec<u32>,
    /// Processes that have ended, and whose numbers are not free yet.
    ended: Vec<u32>,
}

impl Chores {
    /// When it is tried again.
    pub(crate) const fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Whether it waits already.
    fn waits(&self, chore: Chore, socket: &Arc<Shared>) -> bool {
        self.waiting.iter().any(|(other, it)| *other == chore && Arc::ptr_eq(it, socket))
    }

    fn push(&mut self, chore: Chore, socket: Arc<Shared>) {
        self.leaving.extend(chore.leaves());
        self.waiting.push((chore, socket));
        self.again.get_or_insert_with(|| clock::now().after(AGAIN));
    }

    /// One was taken out, and done or put back.
    fn done(&mut self, chore: Chore) {
        let at = self.leaving.iter().position(|it| Some(*it) == chore.leaves());
        at.map(|at| self.leaving.swap_remove(at));
    }

    /// Processes in whose name nothing has to be done any more.
    fn buried(&mut self) -> Vec<u32> {
        let leaving = &self.leaving;
        self.ended.extract_if(.., |process| !leaving.contains(process)).collect()
    }
}

impl Core {
    /// Does it, now or when who has the connection goes on. False: nobody was told of anything by it.
    pub(crate) fn run(&self, chore: Chore, socket: Arc<Shared>) -> bool {
        if self.chores().waits(chore, &socket) {
            return false;
        }
        if let Some(told) = self.attempt(chore, &socket) {
            return told;
        }
        self.chores().push(chore, socket);
        self.set_timer();
        // Who sleeps until there is something to do for children does not know of the timer yet.
        self.busy_hub().into_iter().for_each(Hub::ring);
        false
    }

    /// `None`: another process has the connection, and is stopped; all of it is to be done again.
    fn attempt(&self, chore: Chore, socket: &Arc<Shared>) -> Option<bool> {
        match chore {
            Chore::Look => {
                let due = socket.look()?;
                self.follow(due, socket);
                // Another process may wait for what a thread of this one has seen without a signal.
                if !due.news {
                    self.tell_others(socket);
                }
                return Some(due.told);
            }
            Chore::Abort => self.abort(socket, Gone::Group)?,
            Chore::Doom(deadline) => self.doom(deadline, socket)?,
            Chore::Judge(deadline) => self.judge(deadline, socket)?,
            Chore::Leave(process) => {
                let due = socket.leave(process)?;
                self.follow(due, socket);
            }
            Chore::Release => self.release(socket)?,
        }
        Some(true)
    }

    /// A child has ended: gives back what it had.
    pub(crate) fn bury(&self, process: u32, sockets: Vec<Arc<Shared>>) {
        self.family.end(process);
        let had = |it: &Shared| it.channel().is_some_and(|it| it.seat().is_used_by(process));
        for socket in sockets.into_iter().filter(|it| had(it)) {
            self.run(Chore::Leave(process), socket);
        }
        self.chores().ended.push(process);
        self.free_numbers();
    }

    fn free_numbers(&self) {
        let buried = self.chores().buried();
        buried.into_iter().for_each(|process| self.family.forget(process));
    }

    /// Tries again what waits, if it is time.
    pub(crate) fn run_again(&self) {
        let waiting = {
            let mut chores = self.chores();
            if chores.again.is_none_or(|again| again > clock::now()) {
                return;
            }
            chores.again = None;
            std::mem::take(&mut chores.waiting)
        };
        for (chore, socket) in waiting {
            self.run(chore, socket);
            self.chores().done(chore);
        }
        self.free_numbers();
    }
}
