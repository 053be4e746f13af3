// SPDX-License-Identifier: GPL-2.0

//! Whether the device still lives, and what becomes of connections if it does not.
//!
//! A daemon that dies leaves the machine running with a device that says nothing, and a new
//! connection would still choose it and stall. Invariant: from `declare_dead` on every operation
//! fails at once and no signal is delivered, so that what the window holds then is shown to
//! nobody.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use kernel::prelude::*;

use crate::{
    device::{log_err, Device},
    native::{self, Queue, Work},
};

/// The watchdog's memory: when the unanswered PING was sent, or 0.
pub(crate) struct Watchdog {
    asked_at: AtomicU64,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self {
            asked_at: AtomicU64::new(0),
        }
    }
}

impl Device {
    /// Milliseconds between two looks; 0: the device does not want to be asked.
    fn interval_ms(&self) -> u32 {
        self.config.ping_interval_ms.min(60_000)
    }

    /// Starts looking.
    pub(crate) fn watch(&self) {
        if self.interval_ms() != 0 {
            self.native
                .work_queue(Work::Watchdog, self.interval_ms().max(10));
        }
    }

    /// One look: any answer since the last one is a sign of life, otherwise the device is asked
    /// and has two intervals to answer.
    pub(crate) fn watchdog(&self) {
        if self.is_dead() {
            return;
        }
        if self.native.queue_broken(Queue::Control) {
            return self.declare_dead("it was removed");
        }
        let now = native::now_ns();
        let interval_ns = u64::from(self.interval_ms()) * 1_000_000;
        let asked_at = &self.watchdog.asked_at;
        if self.control.take_answers() != 0 {
            asked_at.store(0, Relaxed);
        } else if asked_at.load(Relaxed) == 0 {
            // No slot: eight requests are waiting for answers, which is as good a question.
            self.ping(now);
            asked_at.store(now, Relaxed);
        } else if now.saturating_sub(asked_at.load(Relaxed)) >= 2 * interval_ns {
            return self.declare_dead("it does not answer");
        }
        self.watch();
    }

    /// The window looks as if it were gone. A peer can make it look so, thus the device is asked,
    /// at once unless it is asked already. Any context.
    pub(crate) fn doubt_device(&self) {
        if self.interval_ms() != 0 && self.watchdog.asked_at.load(Relaxed) == 0 {
            self.native.work_queue(Work::Watchdog, 0);
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(SeqCst)
    }

    /// Ends the device's use, once. Any context.
    pub(crate) fn declare_dead(&self, why: &str) {
        if self.dead.swap(true, SeqCst) {
            return;
        }
        log_err!(
            self,
            "device is dead: {}; connections over it end, new ones use TCP",
            why
        );
        self.give_up_answers();
        self.native.work_queue(Work::Bury, 0);
    }

    /// The device says that it does not know this driver: it was reset behind its back, as happens
    /// when a machine is paused. Any context.
    pub(crate) fn forgotten(&self) {
        self.restart.store(true, SeqCst);
        self.declare_dead("it has forgotten this driver, which begins anew");
    }

    /// Takes the device out of dibs, and begins anew if it only forgot us. Returns only when no
    /// application has a socket on it any more (net/smc waits for them); new connections do
    /// without it at once.
    pub(crate) fn bury_device(&self) {
        self.native.dibs_del();
        if self.restart.swap(false, SeqCst) && self.begin_anew().is_err() {
            self.declare_dead("it could not be started again");
        }
    }

    fn begin_anew(&self) -> Result {
        self.forget_dmbs();
        self.grants.lock().clear();
        self.peers.lock().clear();
        self.control.take_answers();
        self.watchdog.asked_at.store(0, Relaxed);
        self.dead.store(false, SeqCst);
        self.join()
    }
}
