// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The links between processes and their children: socket pairs, by whose ends they see who has ended.
//!
//! Invariant: links are made and closed under one lock, which is held over each fork. So a child knows exactly
//! which of its descriptors are links of its parent's, and closes them; none keeps another's link open.

use std::cell::Cell;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::own::{Name, Own};

/// How long the lock is waited for: another thread's fork is over by then, and what a killed thread of a parent
/// had, when a program forks without the C library, never comes back.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_micros(50);

/// This process's links.
type Known = Vec<Name>;

static LINKS: Mutex<Known> = Mutex::new(Vec::new());

thread_local! {
    /// This thread has the lock, or is about to.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

/// No link is made or closed by another thread.
#[derive(Debug)]
pub(crate) struct Held(Option<MutexGuard<'static, Known>>);

/// One end of a link.
#[derive(Debug)]
pub(crate) struct Link {
    /// Until it is closed.
    fd: Option<Own>,
}

/// Takes the lock; `None`: a signal handler has interrupted this thread while it has it.
pub(crate) fn hold() -> Option<Held> {
    if HOLDS.try_with(|holds| holds.replace(true)).unwrap_or(true) {
        return None;
    }
    let end = Instant::now() + PATIENCE;
    loop {
        match LINKS.try_lock() {
            Ok(links) => return Some(Held(Some(links))),
            Err(TryLockError::Poisoned(links)) => return Some(Held(Some(links.into_inner()))),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                holds_no_more();
                return None;
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
}

fn holds_no_more() {
    // A thread that ends may have it no more.
    let _ = HOLDS.try_with(|holds| holds.set(false));
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.take());
        holds_no_more();
    }
}

impl Held {
    /// Both ends of a new link.
    ///
    /// # Errors
    /// No descriptors.
    pub(crate) fn pair(&mut self) -> io::Result<(Link, Link)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((self.adopt(one)?, self.adopt(other)?))
    }

    /// An end that came from another process.
    ///
    /// # Errors
    /// It cannot be told from the program's.
    pub(crate) fn adopt(&mut self, fd: OwnedFd) -> io::Result<Link> {
        let fd = Own::new(fd)?;
        if let Some(known) = &mut self.0 {
            known.push(fd.name());
        }
        Ok(Link { fd: Some(fd) })
    }

    /// Closes an end.
    pub(crate) fn close(&mut self, mut link: Link) {
        self.take_from(&mut link);
    }

    fn take_from(&mut self, link: &mut Link) {
        let fd = link.fd.take();
        if let (Some(known), Some(fd)) = (&mut self.0, &fd) {
            known.retain(|it| *it != fd.name());
        }
    }

    /// In a child, which has its parent's lock: closes all links but its own.
    pub(crate) fn keep(&mut self, own: &[&Link]) {
        let Some(known) = &mut self.0 else { return };
        let own: Vec<_> = own.iter().filter_map(|link| Some(link.fd.as_ref()?.name())).collect();
        known.iter().filter(|it| !own.contains(it)).for_each(|it| it.close_inherited());
        **known = own;
    }
}

impl Link {
    /// The descriptor; `None`: the program has closed it.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref()?.get()
    }

    /// As [`Link::fd`], but not looked at.
    pub(crate) fn number(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.number(),
            None => rustix::stdio::stdin(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Without the lock, which is this thread's already further down, its name stays.
        if let Some(mut held) = self.fd.as_ref().and_then(|_| hold()) {
            held.take_from(self);
        }
    }
}
