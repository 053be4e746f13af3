// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One connection in an epoll instance.
//!
//! Invariant: when its connection turns out to be plain TCP, the kernel's instance gets it as the program
//! gave it.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::event::epoll::{self, EventData, EventFlags};
use smc_socket::Ready;

use super::{File, Shared, Sock, Stage, Watcher, lock};
use crate::descriptor;

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
    /// Events and data, as the program gave them; without events but the private bits it is disabled.
    wanted: Mutex<(u32, u64)>,
    /// Where it is. Changed with the instance's lock held.
    place: AtomicU8,
    /// The program has removed it, or the connection was closed.
    left: AtomicBool,
    instance: Weak<Shared>,
    this: Weak<Self>,
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
            sock.add_watcher(&self.file, this);
            // It may have become TCP before it knew of this entry.
            if sock.stage() == Stage::Tcp {
                self.settled(Stage::Tcp);
            }
        }
    }

    /// Goes on with the handshake; true: there is none any more.
    pub(super) fn go_on(&self) -> bool {
        let Some(sock) = self.sock() else { return true };
        sock.go_on(&self.file);
        sock.stage() >= Stage::Late || self.left.load(Ordering::Acquire)
    }

    /// It does not any more.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Release);
        if let (Some(sock), Some(this)) = (self.sock(), self.this.upgrade()) {
            let this: Arc<dyn Watcher> = this;
            sock.remove_watcher(&this);
        }
    }

    pub(super) fn set(&self, events: u32, data: u64) {
        *lock(&self.wanted) = (events, data);
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
        if stage != Stage::Tcp {
            if let Some(this) = self.this.upgrade() {
                shared.enqueue(&this);
            }
            return;
        }
        if !self.left.swap(true, Ordering::AcqRel) {
            let (events, data) = *lock(&self.wanted);
            let flags = EventFlags::from_bits_retain(events);
            let fd = descriptor::borrow(self.fd);
            // The program has no call to be told that the kernel has no room for it.
            let _ = epoll::add(shared.as_fd(), fd, EventData::new_u64(data), flags);
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

    fn closed(&self) {
        self.left.store(true, Ordering::Release);
        if let Some(shared) = self.instance.upgrade() {
            shared.forget(self);
        }
    }
}
