// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The signal page of one direction of a pair (`ism_abi::signal_page`), both sides.
//!
//! Invariant: a bit that the sender set is either seen by the receiver's [`SignalPage::take`] or
//! followed by a doorbell; nothing read from the page is used as more than a set of bits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ism_abi::signal_page::{
    ARMED, DOORBELL, PENDING, PENDING_WORDS, RING_ALWAYS, SILENT, SIZE, SUMMARY,
};

use crate::error::Result;
use crate::memory::SharedBytes;

/// A signal page as one of its two sides sees it.
#[derive(Clone, Debug)]
pub struct SignalPage(SharedBytes);

impl SignalPage {
    /// The page at the start of `bytes`.
    pub fn new(bytes: &SharedBytes) -> Result<Self> {
        bytes.part(0, SIZE as u64).map(Self)
    }

    /// Sender: says that the DMB `index` was written; whether the doorbell must be rung.
    pub fn set(&self, index: u32) -> Result<bool> {
        let word = u64::from(index / 64);
        let bit = 1u64 << (index % 64);
        let pending = PENDING as u64 + 8 * word;
        self.0.atomic(pending, |p: &AtomicU64| p.fetch_or(bit.to_le(), Ordering::SeqCst))?;
        let summary = (1u64 << (word % 64)).to_le();
        self.0.atomic(SUMMARY as u64, |s: &AtomicU64| s.fetch_or(summary, Ordering::SeqCst))?;
        self.0.atomic(DOORBELL as u64, |doorbell: &AtomicU32| {
            match u32::from_le(doorbell.load(Ordering::SeqCst)) {
                RING_ALWAYS => true,
                // Who changes it rings; all others know that somebody does.
                ARMED => doorbell
                    .compare_exchange(
                        ARMED.to_le(),
                        SILENT.to_le(),
                        Ordering::SeqCst,
                        Ordering::SeqCst,
                    )
                    .is_ok(),
                _ => false,
            }
        })
    }

    /// Receiver: takes all pending bits; the indices of the written DMBs.
    pub fn take(&self) -> Result<Vec<u32>> {
        let summary = self.0.atomic(SUMMARY as u64, |s: &AtomicU64| {
            if s.load(Ordering::Relaxed) == 0 { 0 } else { s.swap(0, Ordering::SeqCst) }
        })?;
        let summary = u64::from_le(summary);
        let mut indices = Vec::new();
        for word in (0u32..64).take(PENDING_WORDS).filter(|word| summary >> word & 1 == 1) {
            let at = PENDING as u64 + 8 * u64::from(word);
            let bits = self.0.atomic(at, |p: &AtomicU64| p.swap(0, Ordering::SeqCst))?;
            let bits = u64::from_le(bits);
            indices.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| 64 * word + bit));
        }
        Ok(indices)
    }

    /// Receiver: asks for a doorbell at the next signal; look once more afterwards.
    pub fn arm(&self) -> Result<()> {
        self.store(ARMED)
    }

    /// Receiver: asks for no doorbells, because it looks by itself.
    pub fn silence(&self) -> Result<()> {
        self.store(SILENT)
    }

    fn store(&self, value: u32) -> Result<()> {
        self.0.atomic(DOORBELL as u64, |d: &AtomicU32| d.store(value.to_le(), Ordering::SeqCst))
    }
}
