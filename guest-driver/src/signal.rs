// SPDX-License-Identifier: GPL-2.0

//! Ringing a peer through the device: one small buffer of the signal queue for each doorbell.
//!
//! Invariant: a doorbell that finds the queue full is kept at its grant and rung later. Doorbells
//! of one DMB coalesce, so nothing is lost by that.

use kernel::prelude::*;

use crate::{
    abi::SignalRequest,
    device::Device,
    memory::{Buffer, NOTHING},
    native::Queue,
};

/// Doorbells in flight; more only make a busy device busier.
const DEPTH: usize = 64;

pub(crate) struct Signals {
    buffer: Buffer,
    free: KVec<usize>,
    /// Some grants wait for a place in the queue.
    late: bool,
}

impl Signals {
    /// For a queue of `size` descriptors.
    pub(crate) fn new(size: usize) -> Result<Self> {
        let depth = size.clamp(1, DEPTH);
        let mut free = KVec::with_capacity(depth, GFP_KERNEL)?;
        for number in 0..depth {
            free.push(number, GFP_KERNEL)?;
        }
        Ok(Self {
            buffer: Buffer::new(depth * SignalRequest::SIZE)?,
            free,
            late: false,
        })
    }
}

impl Device {
    /// Rings the owner of `token`. Any context.
    pub(crate) fn ring(&self, token: u64) {
        let mut signals = self.signals.lock();
        let Some(number) = self.signal_place(&mut signals) else {
            signals.late = true;
            return self.grants.lock().ring_later(token);
        };
        let at = number.wrapping_mul(SignalRequest::SIZE);
        let request = SignalRequest { token }.to_bytes();
        let written = signals.buffer.write(at, &request);
        let part = signals.buffer.part(at, SignalRequest::SIZE);
        if written.is_none() || self.add_signal(part, number).is_err() {
            // There was room for as many as there are numbers, so the device is broken; the
            // watchdog sees to that.
            let _ = signals.free.push_within_capacity(number);
            return;
        }
        let kick = self.native.queue_kick_prepare(Queue::Signal);
        drop(signals);
        if kick {
            self.native.queue_notify(Queue::Signal);
        }
    }

    #[allow(unsafe_code)] // The queue takes addresses.
    fn add_signal(&self, part: (*mut u8, usize), number: usize) -> Result {
        // SAFETY: The buffer lives as long as the device, and `ring` holds the queue's lock.
        unsafe {
            self.native.queue_add(
                Queue::Signal,
                part,
                NOTHING,
                NOTHING,
                number.wrapping_add(1),
            )
        }
    }

    fn reclaim_signals(&self, signals: &mut Signals) {
        while let Some(used) = self.native.queue_used(Queue::Signal) {
            // Full only if the device returns a buffer twice.
            let _ = signals
                .free
                .push_within_capacity(used.cookie.wrapping_sub(1));
        }
    }

    /// A place in the queue; `None`: there is none, and an interrupt comes with the next.
    fn signal_place(&self, signals: &mut Signals) -> Option<usize> {
        self.reclaim_signals(signals);
        if signals.free.is_empty() && !self.native.callbacks_on(Queue::Signal) {
            // Some were used just now, without an interrupt.
            self.reclaim_signals(signals);
            if !signals.late {
                self.native.callbacks_off(Queue::Signal);
            }
        }
        signals.free.pop()
    }

    /// Rings those who had to wait. Any context.
    pub(crate) fn ring_the_late(&self) {
        {
            let mut signals = self.signals.lock();
            if !signals.late {
                return;
            }
            self.reclaim_signals(&mut signals);
            if signals.free.is_empty() {
                return;
            }
            signals.late = false;
            self.native.callbacks_off(Queue::Signal);
        }
        // Each may find the queue full again, and is kept again.
        for _ in 0..DEPTH {
            let Some(token) = self.grants.lock().take_unrung() else {
                return;
            };
            self.ring(token);
        }
        self.signals.lock().late = true;
    }
}
