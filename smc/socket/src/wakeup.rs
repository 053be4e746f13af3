// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How one thread of this process wakes another that sleeps.
//!
//! Invariant: a call of [`Wakeup::wake`] after [`Wakeup::prepare`] ends the sleep that follows, unless
//! that is over; a thread that is awake is not woken, which costs two system calls.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ism_client::own::Own;
use rustix::event::{EventfdFlags, eventfd};

use crate::few;

/// A thread's bell.
#[derive(Debug)]
pub(crate) struct Wakeup {
    fd: Own,
    process: u32,
    /// It sleeps or is about to.
    sleeps: AtomicBool,
}

thread_local! {
    static OWN: RefCell<Option<Arc<Wakeup>>> = const { RefCell::new(None) };
}

impl Wakeup {
    /// This thread's; `None` if no descriptor is to be had, and in a signal handler that has interrupted this very call.
    pub(crate) fn own() -> Option<Arc<Self>> {
        let process = std::process::id();
        let own = OWN.try_with(|own| {
            let mut own = own.try_borrow_mut().ok()?;
            // A child of fork has the parent's descriptor.
            if own.as_ref().is_none_or(|wakeup| wakeup.process != process) {
                let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
                let fd =
                    if few::is_confined() { None } else { eventfd(0, flags).ok().map(Own::new) };
                *own = fd.map(|fd| Arc::new(Self::new(fd, process)));
            }
            own.clone()
        });
        own.ok().flatten()
    }

    fn new(fd: Own, process: u32) -> Self {
        Self { fd, process, sleeps: AtomicBool::new(false) }
    }

    /// This thread is going to sleep, and looks once more before.
    pub(crate) fn prepare(&self) {
        self.sleeps.store(true, Ordering::SeqCst);
    }

    /// This thread is awake.
    pub(crate) fn awake(&self) {
        self.sleeps.store(false, Ordering::SeqCst);
    }

    /// Wakes.
    pub(crate) fn wake(&self) {
        if self.sleeps.swap(false, Ordering::SeqCst) {
            // Full means that it is readable.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Forgets that somebody woke.
    pub(crate) fn drain(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }

    /// Readable after a [`Wakeup::wake`].
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
