// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One direction of a pair's signals (spec/virtio-ism.md, "Between drivers: the signal page").
//!
//! Invariant: a bit that [`SignalPage::raise`] set is handed out by [`SignalPage::take`], or found by
//! [`SignalPage::arm`], or its `raise` said to ring. Nothing read in the page is more than a set of bits
//! of 4096, and a look takes at most one pass over its words.

use ism_abi::signal_page::{ARMED, RING_ALWAYS, SILENT};

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
use crate::view::{OutOfBounds, View};

/// DMBs in one word.
const BITS: u32 = u64::BITS;

/// The words of a page, wherever they are.
pub trait PageWords {
    /// The doorbell word.
    fn doorbell(&self) -> &AtomicU32;
    /// The summary.
    fn summary(&self) -> &AtomicU64;
    /// Pending word `n`; `None` from 64 on.
    fn pending(&self, n: u32) -> Option<&AtomicU64>;
}

/// A signal page as one of its two sides sees it.
#[derive(Debug, Clone)]
pub struct SignalPage<W>(W);

impl<W: PageWords> SignalPage<W> {
    /// The page with these words.
    pub const fn over(words: W) -> Self {
        Self(words)
    }

    /// Sender: the DMB with this index of the page's receiver was written. True: ring.
    ///
    /// An index past 4095 rings, and sets nothing.
    #[must_use = "a receiver that is not rung for may sleep for ever"]
    pub fn raise(&self, index: u32) -> bool {
        let (word, bit) = (index / BITS, index % BITS);
        let Some(pending) = self.0.pending(word) else { return true };
        // Two read-modify-writes: of `raise` and `take`, whichever comes second at the summary sees the
        // first, so a word is never left pending without its summary bit.
        pending.fetch_or((1u64 << bit).to_le(), Ordering::AcqRel);
        self.0.summary().fetch_or((1u64 << word).to_le(), Ordering::AcqRel);
        // Against the fence in `arm`.
        fence(Ordering::SeqCst);
        match u32::from_le(self.0.doorbell().load(Ordering::Relaxed)) {
            SILENT => false,
            ARMED => {
                // Before the ring, so that a receiver which arms again in between stays armed or
                // is rung.
                self.0.doorbell().store(SILENT.to_le(), Ordering::Relaxed);
                true
            }
            // RING_ALWAYS, and what this side does not know (ISM-DRV-25).
            _ => true,
        }
    }

    /// Receiver: hands out every index that was raised, once.
    ///
    /// One pass: a sender that raises meanwhile is found by the next look.
    pub fn take(&self, mut found: impl FnMut(u32)) {
        let summary = self.0.summary();
        // A look that finds nothing must not take the line from the sender.
        if summary.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut words = u64::from_le(summary.swap(0, Ordering::AcqRel));
        while words != 0 {
            let word = words.trailing_zeros();
            words &= words - 1;
            let Some(pending) = self.0.pending(word) else { return };
            let mut bits = u64::from_le(pending.swap(0, Ordering::AcqRel));
            while bits != 0 {
                found(word * BITS + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }

    /// Receiver: nobody needs to ring, it looks by itself until it [`arm`](SignalPage::arm)s.
    pub fn silence(&self) {
        let doorbell = self.0.doorbell();
        if doorbell.load(Ordering::Relaxed) != SILENT.to_le() {
            doorbell.store(SILENT.to_le(), Ordering::Relaxed);
        }
    }

    /// Receiver: ring for the next signal. False: there is one already, so do not sleep.
    #[must_use = "a receiver that sleeps on a false may sleep for ever"]
    pub fn arm(&self) -> bool {
        self.0.doorbell().store(ARMED.to_le(), Ordering::Relaxed);
        // Against the fence in `raise`: either it sees ARMED and rings, or the bit is seen here.
        fence(Ordering::SeqCst);
        self.0.summary().load(Ordering::Acquire) == 0
    }

    /// Receiver: takes part no longer; every signal is rung for.
    pub fn leave(&self) {
        self.0.doorbell().store(RING_ALWAYS.to_le(), Ordering::Relaxed);
    }
}

/// A page in shared memory.
#[cfg(not(loom))]
#[derive(Debug, Clone)]
pub struct PageView(View);

#[cfg(not(loom))]
impl SignalPage<PageView> {
    /// The page at the start of `view`.
    ///
    /// # Errors
    /// It is shorter than a page or not 8-byte aligned.
    pub fn of(view: &View) -> Result<Self, OutOfBounds> {
        use ism_abi::signal_page::{DOORBELL, PENDING, PENDING_WORDS, SIZE, SUMMARY};
        let page = view.part(0, SIZE)?;
        page.u32(DOORBELL)?;
        page.u64(SUMMARY)?;
        page.u64(PENDING + 8 * (PENDING_WORDS - 1))?;
        Ok(Self(PageView(page)))
    }
}

#[cfg(not(loom))]
impl PageWords for PageView {
    fn doorbell(&self) -> &AtomicU32 {
        self.0.word32(ism_abi::signal_page::DOORBELL)
    }

    fn summary(&self) -> &AtomicU64 {
        self.0.word64(ism_abi::signal_page::SUMMARY)
    }

    fn pending(&self, n: u32) -> Option<&AtomicU64> {
        use ism_abi::signal_page::{PENDING, PENDING_WORDS};
        let n = usize::try_from(n).ok().filter(|n| *n < PENDING_WORDS)?;
        Some(self.0.word64(PENDING + 8 * n))
    }
}
