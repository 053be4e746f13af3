// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The links between processes and their children: socket pairs, by whose ends they see who has ended.
//!
//! Invariant: links are made and closed under one lock, which is held over each fork. So a child knows exactly
//! which of its descriptors are links of its parent's, and closes them; none keeps another's link open.
//!
//! A program may close descriptors that are not its own, and give their numbers to something else. So a link is
//! told by its inode before it is read or closed.
#![expect(unsafe_code, reason = "a child closes by number what its parent had open")]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// How long the lock is waited for: another thread's fork is over by then, and what a killed thread of a parent
/// had, when a program forks without the C library, never comes back.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_micros(50);

/// Numbers of this process's links, and their inodes.
type Known = Vec<(RawFd, u64)>;

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
    fd: Option<OwnedFd>,
    inode: u64,
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

fn inode(fd: impl AsFd) -> u64 {
    rustix::fs::fstat(fd).map_or(0, |stat| stat.st_ino)
}

fn is_inode(fd: RawFd, is: u64) -> bool {
    // SAFETY: it is not -1, and only given to fstat, which takes any number.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    is != 0 && inode(fd) == is
}

impl Held {
    /// Both ends of a new link.
    ///
    /// # Errors
    /// No descriptors.
    pub(crate) fn pair(&mut self) -> io::Result<(Link, Link)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((self.adopt(one), self.adopt(other)))
    }

    /// An end that came from another process.
    pub(crate) fn adopt(&mut self, fd: OwnedFd) -> Link {
        let inode = inode(&fd);
        if let Some(known) = &mut self.0 {
            known.push((fd.as_raw_fd(), inode));
        }
        Link { fd: Some(fd), inode }
    }

    /// Closes an end.
    pub(crate) fn close(&mut self, mut link: Link) {
        self.take_from(&mut link);
    }

    fn take_from(&mut self, link: &mut Link) {
        let Some(fd) = link.fd.take() else { return };
        if let Some(known) = &mut self.0 {
            known.retain(|it| *it != (fd.as_raw_fd(), link.inode));
        }
        close(fd, link.inode);
    }

    /// In a child, which has its parent's lock: closes all links but its own.
    pub(crate) fn keep(&mut self, own: &[&Link]) {
        let Some(known) = &mut self.0 else { return };
        let own: Vec<_> = own.iter().filter_map(|link| link.name()).collect();
        for (fd, inode) in known.iter().filter(|it| !own.contains(it)) {
            if is_inode(*fd, *inode) {
                // SAFETY: it is the link that it was in the parent, whose value is never used nor dropped in this
                // child; so the number is nobody's.
                drop(unsafe { OwnedFd::from_raw_fd(*fd) });
            }
        }
        **known = own;
    }
}

/// Closes a descriptor, if it is still what it was.
fn close(fd: OwnedFd, inode: u64) {
    if is_inode(fd.as_raw_fd(), inode) {
        drop(fd);
    } else {
        // The program's by now, or closed.
        let _ = fd.into_raw_fd();
    }
}

impl Link {
    fn name(&self) -> Option<(RawFd, u64)> {
        Some((self.fd.as_ref()?.as_raw_fd(), self.inode))
    }

    /// The descriptor; `None`: the program has closed it.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.fd.as_ref()?;
        is_inode(fd.as_raw_fd(), self.inode).then(|| fd.as_fd())
    }

    /// As [`Link::fd`], but not looked at.
    pub(crate) fn number(&self) -> BorrowedFd<'_> {
        // It is taken out by `drop` only.
        match &self.fd {
            Some(fd) => fd.as_fd(),
            None => rustix::stdio::stdin(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        match hold() {
            Some(mut held) => held.take_from(self),
            // The lock is this thread's already, further down.
            None => self.fd.take().into_iter().for_each(|fd| close(fd, self.inode)),
        }
    }
}
