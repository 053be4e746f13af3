// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a child of fork has of its parent's stack: the connections that it inherited.
//!
//! Invariant: it never asks the fabric for anything; what has to be given back to it is the first process's
//! to give.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use rustix::io::Errno;
use smc_proto::Instant;
use smc_ring::SignalPage;
use smc_ring::signal_page::PageView;

use crate::chores::AGAIN;
use crate::clock;
use crate::family::{Family, Member, ROOT};
use crate::few;
use crate::hub::{self, Cradle};
use crate::links::{Held, Link};
use crate::own::Own;
use crate::shared::{Due, Shared};

/// How often a child to which nobody passes signals on looks by itself while it sleeps.
pub(crate) const ALONE: Duration = Duration::from_millis(2);

/// A child's part of the family.
#[derive(Debug)]
pub(crate) struct Kin {
    family: Arc<Family>,
    member: Member,
    page: SignalPage<PageView>,
    /// The page of the first process, and how it is woken.
    first: SignalPage<PageView>,
    bell: Arc<Own>,
    link: Link,
    sockets: RwLock<Vec<Weak<Shared>>>,
    /// Threads that sleep or are about to.
    sleeping: AtomicUsize,
    /// Nobody passes signals on any more: the first process has ended, or its device has.
    alone: AtomicBool,
    /// The first process has ended, and what it had is given back.
    first_buried: AtomicBool,
    again: Mutex<Again>,
}

/// Slots at which it has to look again, as another process that has the connection is stopped; and when.
#[derive(Debug, Default)]
struct Again {
    slots: Vec<u32>,
    at: Option<Instant>,
}

impl Kin {
    /// In the child.
    pub(crate) fn new(cradle: Cradle) -> Option<Self> {
        let Cradle { family, member, link, bell } = cradle;
        family.is_born(member).ok()?;
        let (page, first) = (family.page(member.process())?, family.page(ROOT)?);
        let sockets = RwLock::default();
        let sleeping = AtomicUsize::new(0);
        let [alone, first_buried] = [const { AtomicBool::new(false) }; 2];
        let it = Self {
            family,
            member,
            page,
            first,
            bell,
            link,
            sockets,
            sleeping,
            alone,
            first_buried,
            again: Mutex::default(),
        };
        Some(it)
    }

    pub(crate) fn family(&self) -> &Arc<Family> {
        &self.family
    }

    pub(crate) fn member(&self) -> Member {
        self.member
    }

    /// From now on signals for a connection are passed on to it.
    pub(crate) fn add(&self, socket: &Arc<Shared>) {
        let mut sockets = self.sockets.write().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(socket));
    }

    /// What a child of this child needs.
    pub(crate) fn expect_child(&self, held: &mut Held) -> Option<Cradle> {
        hub::expect_grandchild(&self.family, &self.link, &self.bell, held)
    }

    /// Nobody passes signals on.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    /// Readable when it is to look, until it is alone.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.link.number()
    }

    /// What follows from an act.
    pub(crate) fn follow(&self, due: Due, socket: &Arc<Shared>) {
        if due.release || due.tell {
            self.tell(socket);
        }
    }

    /// Has the first process look at a connection, which passes it on.
    pub(crate) fn tell(&self, socket: &Shared) {
        if let Some(channel) = socket.channel() {
            let _ = self.first.raise(channel.seat().slot);
            // Full means that it is readable.
            let _ = self.bell.get().map(|bell| rustix::io::write(bell, &1_u64.to_ne_bytes()));
        }
    }

    /// Looks where it was told to. As [`crate::core::Core::dispatch`], twice at most.
    pub(crate) fn dispatch(&self) {
        self.take();
        if self.sleeping.load(Ordering::SeqCst) > 0 && !self.page.arm() {
            self.take();
        }
    }

    /// Whether it was news to somebody.
    fn take(&self) -> bool {
        let mut slots = Vec::new();
        self.page.take(|slot| slots.push(slot));
        self.again().join(&mut slots);
        if self.is_alone() {
            self.bury_first();
            let later = self.again().slots.clone();
            return self.look_at(|slot| !later.contains(&slot));
        }
        !slots.is_empty() && self.look_at(|slot| slots.contains(&slot))
    }

    #[cold]
    fn look_at(&self, wanted: impl Fn(u32) -> bool) -> bool {
        let mut told = false;
        for socket in self.sockets() {
            let slot = socket.channel().map(|channel| channel.seat().slot);
            let Some(slot) = slot.filter(|slot| wanted(*slot)) else { continue };
            match socket.look() {
                Some(due) => {
                    told |= due.told;
                    self.follow(due, &socket);
                }
                // Who is about to sleep does not know how long it may.
                None => {
                    told = true;
                    self.again().push(slot);
                }
            }
        }
        told
    }

    /// If the first process has ended, nobody else says that it has nothing open any more.
    #[cold]
    fn bury_first(&self) {
        if self.first_buried.load(Ordering::Relaxed) {
            return;
        }
        if few::is_confined() {
            // Who may not ask has the link's word for it.
            self.family.set_first_over();
        }
        if self.family.is_lived(ROOT) {
            return;
        }
        // Twice is as once. Who is alone looks soon again.
        let left = self.sockets().into_iter().fold(true, |all, socket| {
            let due = socket.leave(ROOT);
            self.follow(due.unwrap_or_default(), &socket);
            due.is_some() && all
        });
        self.first_buried.store(left, Ordering::Relaxed);
    }

    /// A thread is about to sleep. False: it must not.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        if self.page.arm() || !self.take() {
            return true;
        }
        self.wake_up();
        false
    }

    /// It sleeps no more.
    pub(crate) fn wake_up(&self) {
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }

    /// Somebody sleeps on the link from now on whom this library does not see.
    pub(crate) fn never_silence(&self) {
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        self.dispatch();
    }

    /// The link was readable.
    pub(crate) fn rung(&self) {
        let mut byte = [0; 8];
        let ended = loop {
            let Some(link) = self.link.fd() else { break true };
            match rustix::io::read(link, &mut byte) {
                Ok(n) if n > 0 => {}
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break false,
                Ok(_) | Err(_) => break true,
            }
        };
        if ended {
            self.alone.store(true, Ordering::Relaxed);
        }
        self.dispatch();
    }

    fn sockets(&self) -> Vec<Arc<Shared>> {
        let sockets = self.sockets.read().unwrap_or_else(PoisonError::into_inner);
        sockets.iter().filter_map(Weak::upgrade).collect()
    }

    fn again(&self) -> MutexGuard<'_, Again> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it has to look for the time's sake.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let alone = self.is_alone().then(|| clock::now().after(ALONE));
        alone.into_iter().chain(self.again().at).min()
    }
}

impl Again {
    fn push(&mut self, slot: u32) {
        self.slots.push(slot);
        self.at.get_or_insert_with(|| clock::now().after(AGAIN));
    }

    /// Adds them to `slots` if it is time, or else leaves them out there.
    fn join(&mut self, slots: &mut Vec<u32>) {
        if self.at.is_some_and(|at| at <= clock::now()) {
            (self.at, *slots) =
                (None, [std::mem::take(&mut self.slots), std::mem::take(slots)].concat());
        }
        slots.retain(|slot| !self.slots.contains(slot));
    }
}
