// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One connection in an epoll instance.
//!
//! Invariant: when its connection turns out to be plain TCP, the kernel's instance gets it as the program
//! gave it.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::event::PollFlags;
use rustix::event::epoll::{self, EventData, EventFlags};
use smc_socket::Ready;

use super::{File, Shared, Sock, Stage, TCP, Watcher, lock};
use crate::{descriptor, process};

/// What epoll reports unasked.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP).cast_unsigned();
/// Bits of an entry that are no events.
const PRIVATE: u32 =
    (libc::EPOLLET | libc::EPOLLONESHOT | libc::EPOLLWAKEUP | libc::EPOLLEXCLUSIVE).cast_unsigned();

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Place {
    /// Nothing has happened.
    Aside,
    /// On the ready list.
    Listed,
    /// Being delivered.
    Taken,
    /// Being delivered, and something has happened meanwhile.
    TakenAgain,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Interest {
    pub(super) fd: c_int,
    file: Arc<File>,
    /// Events and data, as the program gave them; without events but the private bits it is disabled. With its lock held
    /// the entry leaves, and the kernel's instance gets, changes or loses what it has of it: whatever other threads do
    /// with the entry meanwhile comes before that or after it.
    wanted: Mutex<(u32, u64)>,
    /// Where it is. Changed with the instance's lock held.
    place: AtomicU8,
    /// The program has removed it, or the connection was closed.
    left: AtomicBool,
    /// The program has closed `fd`, which may be another file's by now, or this connection's again. Changed with `wanted`'s
    /// lock held.
    orphaned: AtomicBool,
    /// The kernel's instance has its TCP connection, as ours.
    hears: AtomicBool,
    instance: Weak<Shared>,
    this: Weak<Self>,
}

/// What a TCP connection is known by.
fn tcp_data(fd: c_int) -> u64 {
    TCP | u64::from(fd.unsigned_abs())
}

/// What of TCP there is to be heard. What is there already is said once.
fn tcp_events(stage: Stage) -> EventFlags {
    let events = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    let is_written = matches!(stage, Stage::Connecting | Stage::Late);
    if is_written { events | EventFlags::OUT } else { events }
}

/// Readiness as epoll's bits.
pub(crate) fn bits(ready: Ready) -> u32 {
    let table = [
        (Ready::READABLE, libc::EPOLLIN | libc::EPOLLRDNORM),
        (Ready::WRITABLE, libc::EPOLLOUT | libc::EPOLLWRNORM),
        (Ready::URGENT, libc::EPOLLPRI),
        (Ready::ERROR, libc::EPOLLERR),
        (Ready::HANG_UP, libc::EPOLLHUP),
        (Ready::READ_CLOSED, libc::EPOLLRDHUP),
    ];
    let has = table.into_iter().filter(|(it, _)| ready.contains(*it));
    has.fold(0, |all, (_, bit)| all | bit.cast_unsigned())
}

impl Interest {
    pub(super) fn new(
        fd: c_int,
        file: &Arc<File>,
        events: u32,
        data: u64,
        instance: Weak<Shared>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            fd,
            file: Arc::clone(file),
            wanted: Mutex::new((events, data)),
            place: AtomicU8::new(Place::Aside as u8),
            left: AtomicBool::new(false),
            orphaned: AtomicBool::new(false),
            hears: AtomicBool::new(false),
            instance,
            this: this.clone(),
        })
    }

    fn sock(&self) -> Option<&Sock> {
        match &*self.file {
            File::Sock(sock) => Some(sock),
            File::Epoll(_) => None,
        }
    }

    /// The connection tells of its events from now on.
    pub(super) fn join(&self) {
        if let (Some(sock), Some(this)) = (self.sock(), self.this.upgrade()) {
            let watcher: Arc<dyn Watcher> = this;
            sock.add_watcher(&self.file, Arc::clone(&watcher));
            // It may have become TCP before it knew of this entry.
            if sock.stage() == Stage::Tcp {
                self.settled(Stage::Tcp);
            }
            // Who was first with that, or with taking the entry out, did not find it there.
            if self.left.load(Ordering::Acquire) {
                sock.remove_watcher(&watcher);
            }
        }
    }

    /// Has the kernel's instance tell of its TCP connection: who waits for the program goes on with the handshake.
    pub(super) fn hear_tcp(&self, shared: &Shared) {
        let Some(sock) = self.sock() else { return };
        let stage = sock.stage();
        // Of one whose handshake is over the minder hears, once and for all: programs take connections out and put them
        // in again for each message (redis-benchmark). So it does without room in the kernel.
        if matches!(stage, Stage::Tcp | Stage::Smc) {
            return;
        }
        // The instance's lock is first, as for who changes the marker, and then renames what is added here.
        let inner = lock(&shared.inner);
        let _wanted = lock(&self.wanted);
        // Another thread may have taken it out already.
        if self.left.load(Ordering::Acquire) {
            return;
        }
        let data = EventData::new_u64(inner.marker | tcp_data(self.fd));
        let fd = descriptor::borrow(self.fd);
        if epoll::add(shared.as_fd(), fd, data, tcp_events(stage)).is_ok() {
            self.hears.store(true, Ordering::Release);
        }
    }

    /// The kernel's instance knows its TCP connection by another marker from now on.
    pub(super) fn rename(&self, shared: &Shared, marker: u64) {
        let _wanted = lock(&self.wanted);
        if let (true, Some(sock)) = (self.hears_tcp(), self.sock()) {
            let data = EventData::new_u64(marker | tcp_data(self.fd));
            let (fd, events) = (descriptor::borrow(self.fd), tcp_events(sock.stage()));
            let _ = epoll::modify(shared.as_fd(), fd, data, events);
        }
    }

    /// The kernel's instance tells of its TCP connection no more, as the descriptor will not be its. The caller holds
    /// `wanted`'s lock.
    fn deafen(&self) {
        if self.hears.swap(false, Ordering::AcqRel)
            && let Some(shared) = self.instance.upgrade()
        {
            // A closed instance has nothing.
            let _ = epoll::delete(shared.as_fd(), descriptor::borrow(self.fd));
        }
    }

    /// Runs `act` with the descriptor by which the kernel's instance gets it. If the program has closed the number, that is
    /// one which is closed too, after this: the kernel keeps such an entry as long as the connection.
    fn with_descriptor(&self, act: impl FnOnce(BorrowedFd<'_>)) {
        match self.sock() {
            Some(sock) if self.orphaned.load(Ordering::Acquire) => sock.with_number(self.fd, act),
            _ => act(descriptor::borrow(self.fd)),
        }
    }

    /// TCP says this.
    pub(super) fn tcp_says(&self, events: u32) {
        let Some(sock) = self.sock() else { return };
        let bits = u16::try_from(events & 0xffff).unwrap_or(0);
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        sock.tcp_says(&self.file, PollFlags::from_bits_retain(bits) & ends);
        if sock.late_in_part() {
            // TCP says nothing more of it.
            process::mind(&self.file, true);
        }
    }

    /// Whether it is that of a connection as this number.
    pub(super) fn is_of(&self, fd: c_int, file: &Arc<File>) -> bool {
        self.fd == fd && Arc::ptr_eq(&self.file, file)
    }

    /// Whether the program has accepted it.
    pub(super) fn is_server(&self) -> bool {
        self.sock().is_some_and(Sock::is_server)
    }

    /// Goes on with the handshake, even if TCP will tell when there is something to do (`now`); true: there is none any
    /// more.
    pub(super) fn go_on(&self, now: bool) -> bool {
        let Some(sock) = self.sock() else { return true };
        if self.hears_tcp() && !now {
            sock.go_on_unheard(&self.file);
        } else {
            sock.go_on(&self.file);
        }
        sock.stage() >= Stage::Late || self.left.load(Ordering::Acquire)
    }

    /// It does not any more; false: it had left before, maybe because it is the kernel's.
    pub(super) fn leave(&self) -> bool {
        let was_here = {
            let _wanted = lock(&self.wanted);
            self.deafen();
            !self.left.swap(true, Ordering::AcqRel)
        };
        if let (Some(sock), Some(this)) = (self.sock(), self.this.upgrade()) {
            let this: Arc<dyn Watcher> = this;
            sock.remove_watcher(&this);
        }
        was_here
    }

    /// The program wants this from now on; false: the entry has left.
    pub(super) fn set(&self, events: u32, data: u64) -> bool {
        let mut wanted = lock(&self.wanted);
        *wanted = (events, data);
        !self.left.load(Ordering::Acquire)
    }

    fn place(&self) -> Place {
        match self.place.load(Ordering::Relaxed) {
            0 => Place::Aside,
            1 => Place::Listed,
            2 => Place::Taken,
            _ => Place::TakenAgain,
        }
    }

    fn put(&self, place: Place) {
        self.place.store(place as u8, Ordering::Relaxed);
    }

    /// Something has happened; true: the caller puts it on the ready list.
    pub(super) fn begin_listed(&self) -> bool {
        match self.place() {
            _ if self.left.load(Ordering::Acquire) => false,
            Place::Aside => {
                self.put(Place::Listed);
                true
            }
            Place::Taken => {
                self.put(Place::TakenAgain);
                false
            }
            Place::Listed | Place::TakenAgain => false,
        }
    }

    /// It is taken from the list to be delivered: nobody lists it until that is done, so that one wait
    /// delivers it once.
    pub(super) fn take(&self) {
        self.put(Place::Taken);
    }

    /// It was delivered, `again` if it stays ready. Whether the caller puts it on the ready list, and
    /// whether something has happened meanwhile.
    pub(super) fn delivered(&self, again: bool) -> (bool, bool) {
        let meanwhile = self.place() == Place::TakenAgain;
        self.put(Place::Aside);
        let listed = (again || meanwhile) && self.begin_listed();
        (listed, listed && meanwhile)
    }

    /// What is delivered now, and whether it goes back on the list.
    pub(super) fn deliver(&self) -> Option<(u32, u64, bool)> {
        let sock = self.sock()?;
        // It may be the kernel's by now.
        sock.go_on(&self.file);
        let ready = bits(sock.readiness());
        let mut wanted = lock(&self.wanted);
        let (events, data) = *wanted;
        let found = ready & (events | ALWAYS);
        if events & !PRIVATE == 0 || found == 0 || self.left.load(Ordering::Acquire) {
            return None;
        }
        if events & libc::EPOLLONESHOT.cast_unsigned() != 0 {
            wanted.0 &= PRIVATE;
            return Some((found, data, false));
        }
        Some((found, data, events & libc::EPOLLET.cast_unsigned() == 0))
    }
}

impl Watcher for Interest {
    fn settled(&self, stage: Stage) {
        let Some(shared) = self.instance.upgrade() else { return };
        if !self.is_server() {
            shared.nudge();
        }
        if stage != Stage::Tcp {
            if stage == Stage::Late {
                // From now on it is TCP that can be written.
                self.rename(&shared, shared.marker());
            }
            if let Some(this) = self.this.upgrade() {
                shared.enqueue(&this);
            }
            return;
        }
        let wanted = lock(&self.wanted);
        if !self.left.swap(true, Ordering::AcqRel) {
            let (events, data) = *wanted;
            let flags = EventFlags::from_bits_retain(events);
            let fd = descriptor::borrow(self.fd);
            let data = EventData::new_u64(data);
            // It is there as ours, or not. The program has no call to be told that the kernel has no room for it.
            let hears = self.hears.swap(false, Ordering::AcqRel);
            if !hears || epoll::modify(shared.as_fd(), fd, data, flags).is_err() {
                if hears {
                    // With EPOLLEXCLUSIVE it can only be added.
                    let _ = epoll::delete(shared.as_fd(), fd);
                }
                self.with_descriptor(|fd| {
                    let _ = epoll::add(shared.as_fd(), fd, data, flags);
                });
            }
            drop(wanted);
            shared.forget(self);
        }
    }

    fn ready(&self, news: Ready) {
        let (events, _) = *lock(&self.wanted);
        if events & !PRIVATE != 0
            && bits(news) & (events | ALWAYS) != 0
            && let (Some(shared), Some(this)) = (self.instance.upgrade(), self.this.upgrade())
        {
            shared.enqueue(&this);
        }
    }

    fn closing(&self, fd: c_int) {
        if fd != self.fd {
            return;
        }
        {
            let _wanted = lock(&self.wanted);
            self.deafen();
            self.orphaned.store(true, Ordering::Release);
        }
        if let Some(shared) = self.instance.upgrade() {
            shared.orphan(self);
        }
    }

    fn hears_tcp(&self) -> bool {
        self.hears.load(Ordering::Acquire)
    }

    fn closed(&self) {
        {
            let _wanted = lock(&self.wanted);
            self.left.store(true, Ordering::Release);
        }
        if let Some(shared) = self.instance.upgrade() {
            shared.forget(self);
        }
    }
}

#[cfg(test)]
mod tests;
