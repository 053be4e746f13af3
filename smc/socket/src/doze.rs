// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Threads that sleep until something happens to a connection; on its memory alone at first, the quickest way for who
//! waits for nothing else.
//!
//! Invariant: a sleep on memory alone is short, so what comes another way is only late; and a thread sleeps only after it
//! has said so and looked once more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::Inner;
use crate::clock::{self, Deadline};
use crate::socket::Socket;
use crate::wakeup::Wakeup;

/// How long a thread sleeps that hears of its connection's memory alone: longer than most answers take that are
/// worth to be hurried for, and less than anybody waits for the end of a process.
const DOZE: Duration = Duration::from_millis(2);

impl Socket {
    /// A short sleep on the connection's memory alone, which costs this thread and its peer a system call each. What
    /// comes another way is noticed after it. False: `look` is not content yet.
    pub(crate) fn doze(
        &self,
        deadline: Deadline,
        look: &mut dyn FnMut(&mut Inner<'_>) -> bool,
    ) -> io::Result<bool> {
        let channel = self.channel()?;
        let end = Deadline::after(Some(DOZE));
        loop {
            let timer = self.home.next_timeout().map(|at| at.since(clock::now()));
            let (Some(left), Some(Some(longest))) = (deadline.left(), end.left()) else {
                return Ok(false);
            };
            let longest = [left, timer].into_iter().flatten().fold(longest, Duration::min);
            let may = !longest.is_zero() && self.home.own().is_some();
            let (done, dozes) = self.with(|inner| {
                if look(inner) {
                    return (true, false);
                }
                inner.command(|conn| conn.confirm());
                if !may || !inner.begin_dozing() {
                    return (false, false);
                }
                let done = look(inner);
                if done {
                    inner.end_dozing();
                }
                (done, !done)
            })?;
            if done || !dozes {
                return Ok(done);
            }
            let dozed = channel.area.doze(longest);
            self.with(|inner| inner.end_dozing())?;
            dozed?;
        }
    }
}

impl Inner<'_> {
    /// A thread is going to sleep on our area: whoever publishes wakes it. False: it cannot. Look afterwards.
    pub(crate) fn begin_dozing(&mut self) -> bool {
        if let Some(far) = self.far()
            && !self.local.peer_wakes
        {
            self.local.peer_wakes = far.area.knows_sleep();
        }
        let others = self.local.polled || self.local.dozes || !self.local.sleepers.is_empty();
        let may = self.local.peer_wakes && !self.common.released && !self.common.peer_dead;
        if others || !may || !self.channel.seat().is_alone() {
            return false;
        }
        self.local.dozes = true;
        self.common.watched = true;
        self.channel.area.sleep();
        true
    }

    /// It sleeps no more, and looks by itself.
    pub(crate) fn end_dozing(&mut self) {
        self.local.dozes = false;
        self.channel.area.rouse();
    }

    /// A thread is going to sleep until something happens here.
    pub(crate) fn add_sleeper(&mut self, sleeper: &Arc<Wakeup>) {
        self.local.sleepers.push(Arc::clone(sleeper));
        self.unwatch();
    }

    /// It sleeps no more.
    pub(crate) fn remove_sleeper(&mut self, sleeper: &Arc<Wakeup>) {
        let at = self.local.sleepers.iter().position(|it| Arc::ptr_eq(it, sleeper));
        if let Some(at) = at {
            self.local.sleepers.swap_remove(at);
        }
    }
}
