// SPDX-License-Identifier: GPL-2.0

//! What a device did, for /sys/bus/virtio/devices/virtioN/ism/.
//!
//! Invariant: counting takes no lock. The order is that of ISM_COUNTER in driver.c; counters
//! after `Registers` are states that are looked up (`Device::counter`).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Events that are counted.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    /// move_data() calls.
    Moves,
    /// Bytes they wrote.
    MoveBytes,
    /// Calls among them that failed.
    MoveErrors,
    /// Signals that needed the device.
    SignalsRung,
    /// Signals that the owner was looking for already.
    SignalsSuppressed,
    /// DMBs whose client was told.
    SignalsDelivered,
    /// Interrupts of the event queue.
    Interrupts,
    /// The poller found something.
    PollsHit,
    /// The poller went to sleep without.
    PollsMissed,
    /// Signals that got lost, and were found by the slow look.
    SignalsLost,
    /// DMBs registered.
    Registers,
}

/// Number of events that are counted.
pub(crate) const COUNTED: usize = Counter::Registers as usize + 1;

/// The counters of one device.
pub(crate) struct Counters([AtomicU64; COUNTED]);

impl Counters {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU64::new(0) }; COUNTED])
    }

    pub(crate) fn add(&self, counter: Counter, by: u64) {
        if let Some(value) = self.0.get(counter as usize) {
            value.fetch_add(by, Relaxed);
        }
    }

    pub(crate) fn one(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// By number, as sysfs asks.
    pub(crate) fn get(&self, number: usize) -> Option<u64> {
        self.0.get(number).map(|value| value.load(Relaxed))
    }
}
