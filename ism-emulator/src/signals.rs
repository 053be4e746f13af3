// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A member's pending signals, one bit a DMB, shared without the fabric's lock.
//!
//! Invariant: a bit that was set stays until `take` hands it out; and a bit set after an `arm` that
//! found nothing makes exactly one `set` answer that the receiver must be told.

use ism_abi::{EVENT_SIZE, MAX_DMBS, Signals, event};

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// DMBs in one word, and so in one SIGNALS event.
const BITS: u32 = u64::BITS;
/// Words: two under loom, whose cost grows with each atomic.
const WORDS: usize = if cfg!(loom) { 2 } else { (MAX_DMBS / BITS) as usize };

/// Up to 64 signals, as one SIGNALS event carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalBatch {
    /// The DMB index of bit 0, a multiple of 64.
    pub base: u32,
    /// The DMBs, never 0.
    pub mask: u64,
}

impl SignalBatch {
    /// The event's bytes.
    pub fn to_event(self) -> [u8; EVENT_SIZE] {
        let body = Signals { base: self.base, reserved: 0, mask: self.mask };
        crate::events::bytes(event::SIGNALS, &body.to_bytes())
    }
}

/// The pending signals of one member.
///
/// A receiver that sleeps goes: `arm`, and only if that says so, to sleep; when told or woken,
/// `take` until `None` or until no event buffer is left (what was not taken stays).
#[derive(Debug)]
pub struct SignalSet {
    pending: [AtomicU64; WORDS],
    /// Bit w: word w may be non-zero.
    summary: AtomicU64,
    /// The receiver wants to be told of the next signal.
    armed: AtomicBool,
    /// Signals handed out.
    taken: AtomicU64,
}

impl Default for SignalSet {
    fn default() -> Self {
        Self::new()
    }
}

impl SignalSet {
    /// An empty set, armed.
    pub fn new() -> Self {
        Self {
            pending: std::array::from_fn(|_| AtomicU64::new(0)),
            summary: AtomicU64::new(0),
            armed: AtomicBool::new(true),
            taken: AtomicU64::new(0),
        }
    }

    /// Sets the bit of a DMB. True: the receiver must be told. An index past `MAX_DMBS` is ignored.
    pub fn set(&self, index: u32) -> bool {
        let (word, bit) = (index / BITS, index % BITS);
        let Some(pending) = self.pending.get(word as usize) else {
            return false;
        };
        // The word before its summary bit, and the summary before `armed`: the taker goes the other
        // way round. Each step is a read-modify-write of one location, so acquire and release
        // suffice: whichever of `swap` here and `swap` in `arm` comes second sees the first.
        pending.fetch_or(1 << bit, Ordering::AcqRel);
        self.summary.fetch_or(1 << word, Ordering::AcqRel);
        self.armed.swap(false, Ordering::AcqRel)
    }

    /// Asks to be told of the next signal. False: there are some already, so take them instead
    /// of sleeping.
    pub fn arm(&self) -> bool {
        self.armed.swap(true, Ordering::AcqRel);
        self.summary.load(Ordering::Acquire) == 0
    }

    /// Nothing is pending (a hint: another thread may set a bit at any time).
    pub fn is_empty(&self) -> bool {
        self.summary.load(Ordering::Acquire) == 0
    }

    /// Takes some signals; `None` when there are none.
    pub fn take(&self) -> Option<SignalBatch> {
        loop {
            let summary = self.summary.load(Ordering::Acquire);
            if summary == 0 {
                return None;
            }
            let word = summary.trailing_zeros();
            // The summary bit first: a bit set after the word is read sets it again.
            self.summary.fetch_and(!(1 << word), Ordering::AcqRel);
            let mask = self.pending.get(word as usize)?.swap(0, Ordering::AcqRel);
            if mask != 0 {
                self.taken.fetch_add(u64::from(mask.count_ones()), Ordering::Relaxed);
                return Some(SignalBatch { base: word * BITS, mask });
            }
        }
    }

    /// Puts a batch back that could not be delivered. The receiver is not told.
    pub fn put_back(&self, batch: SignalBatch) {
        let word = batch.base / BITS;
        let Some(pending) = self.pending.get(word as usize) else {
            return;
        };
        self.taken.fetch_sub(u64::from(batch.mask.count_ones()), Ordering::Relaxed);
        pending.fetch_or(batch.mask, Ordering::AcqRel);
        self.summary.fetch_or(1 << word, Ordering::AcqRel);
    }

    /// Forgets the bit of one DMB that is gone.
    pub(crate) fn clear(&self, index: u32) {
        if let Some(pending) = self.pending.get((index / BITS) as usize) {
            pending.fetch_and(!(1 << (index % BITS)), Ordering::AcqRel);
        }
    }

    /// Forgets everything, the count too, and arms.
    pub(crate) fn reset(&self) {
        while self.take().is_some() {}
        self.taken.store(0, Ordering::Relaxed);
        self.armed.swap(true, Ordering::AcqRel);
    }

    /// Signals handed out since the last reset.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}
