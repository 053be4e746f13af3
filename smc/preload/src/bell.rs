// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a thread that waits for many descriptors is woken by the thread that finds an event.
//!
//! Invariant: a ring ends the sleep that goes on or the next one; without a sleeper it costs no system
//! call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ism_client::own::Own;
use rustix::event::{EventfdFlags, eventfd};

/// A bell, for any number of sleepers.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: Own,
    rung: AtomicBool,
    /// Somebody may sleep at any time.
    always: AtomicBool,
    /// It stays readable, until then at most.
    held: AtomicBool,
    until: OnceLock<Instant>,
    sleepers: AtomicUsize,
}

/// How long a bell stays readable at most for threads that may not be there any more.
const HOLD: Duration = Duration::from_secs(2);

impl Bell {
    /// # Errors
    /// No descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = Own::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let [rung, always, held] = [const { AtomicBool::new(false) }; 3];
        let (until, sleepers) = (OnceLock::new(), AtomicUsize::new(0));
        Ok(Self { fd, rung, always, held, until, sleepers })
    }

    /// Wakes the sleepers.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.write();
        }
    }

    /// Whether it has rung since the last [`Bell::clear`].
    pub(crate) fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// Before a look at what it rings for.
    pub(crate) fn clear(&self) {
        self.rung.store(false, Ordering::SeqCst);
        if self.is_always() {
            self.silence();
        }
    }

    /// A thread goes to sleep. False: it must not, the bell has rung.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        if self.rung.load(Ordering::SeqCst) {
            self.wake_up();
            return false;
        }
        true
    }

    /// After each [`Bell::prepare_sleep`] that gave true.
    pub(crate) fn wake_up(&self) {
        if self.sleepers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.silence();
        }
    }

    /// From now on every ring makes it readable: somebody sleeps whom this library does not see. Whether that is new.
    pub(crate) fn set_always(&self) -> bool {
        let new = !self.always.swap(true, Ordering::SeqCst);
        if new {
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            self.ring();
        }
        new
    }

    /// Nobody sleeps any more whom this library does not see. Whether somebody did.
    pub(crate) fn end_always(&self) -> bool {
        let was = self.always.swap(false, Ordering::SeqCst);
        if was {
            self.wake_up();
        }
        was
    }

    /// Whether every ring makes it readable.
    pub(crate) fn is_always(&self) -> bool {
        self.always.load(Ordering::Relaxed)
    }

    /// A sleeper has heard it; who is woken passes on what it does not take.
    pub(crate) fn heard(&self) {
        if !self.is_always() {
            self.silence();
        }
    }

    /// It is readable from now on, until [`Bell::let_go`]: threads that sleep uncounted shall look again. Once only.
    pub(crate) fn hold(&self) {
        self.until.get_or_init(|| Instant::now() + HOLD);
        self.held.store(true, Ordering::SeqCst);
        self.write();
    }

    /// Whether it is held.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// All of them have looked.
    pub(crate) fn let_go(&self) {
        if self.held.swap(false, Ordering::SeqCst) {
            self.silence();
            // What was read may have been written by a ring that came meanwhile.
            if self.rung.load(Ordering::SeqCst) {
                self.ring();
            }
        }
    }

    fn write(&self) {
        // Full means that it is readable.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    fn silence(&self) {
        if self.is_held() {
            if self.until.get().is_some_and(|until| Instant::now() < *until) {
                return;
            }
            self.held.store(false, Ordering::SeqCst);
        }
        // It may be unreadable already.
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
