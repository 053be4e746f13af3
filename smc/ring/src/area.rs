// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The CDC area: the first 32 bytes of a DMB's element, which the peer writes (`struct smcd_cdc_msg`).
//!
//! Invariant: a half is one 8-byte access, so never half old and half new; who sees flags sees the
//! bytes they came after; and a publication that is not seen by an owner who stops looking is signalled.
//!
//! # The watch word
//! The area's last 8 bytes are reserved: Linux writes zero there and never reads them. Our owners use
//! the first four in their own DMB: [`WATCHED`] says "I look at this area by myself". Any other value,
//! so also a fresh DMB's and what Linux leaves, means that each publication must be signalled. A
//! sender that does not know the word signals always, which is right too. The peer can write the
//! word; that costs this connection a late or a needless look.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
use crate::view::{OutOfBounds, View};

/// Value of the watch word of an owner that looks by itself.
pub const WATCHED: u32 = 1;

/// The words of an area, wherever they are.
pub trait AreaWords {
    /// The first 8 bytes: type and reserved ones.
    fn header(&self) -> &AtomicU64;
    /// The producer half.
    fn prod(&self) -> &AtomicU64;
    /// The consumer half.
    fn cons(&self) -> &AtomicU64;
    /// The watch word.
    fn watch(&self) -> &AtomicU32;
}

/// A CDC area: the owner's own, or the peer's.
#[derive(Debug, Clone)]
pub struct Area<W>(W);

/// Type and reserved bytes as `struct smcd_cdc_msg` has them.
const HEADER: u64 = u64::from_ne_bytes([smc_wire::cdc::TYPE, 0, 0, 0, 0, 0, 0, 0]);

impl<W: AreaWords> Area<W> {
    /// The area with these words.
    pub const fn over(words: W) -> Self {
        Self(words)
    }

    /// Sender: says both halves, after the bytes in the ring. True: the owner must be signalled.
    ///
    /// Producer half first: the consumer half carries the flags, and is read first.
    #[inline]
    #[must_use = "an owner that is not signalled may sleep for ever"]
    pub fn publish(&self, prod: u64, cons: u64) -> bool {
        self.0.header().store(HEADER, Ordering::Relaxed);
        self.0.prod().store(prod, Ordering::Release);
        self.0.cons().store(cons, Ordering::Release);
        // Against the fence in `unwatch`: one of the two sides sees what the other stored.
        fence(Ordering::SeqCst);
        self.0.watch().load(Ordering::Relaxed) != WATCHED
    }

    /// Owner: both halves, `(prod, cons)`, as [`Smcd::parse_halves`](smc_wire::cdc::Smcd::parse_halves)
    /// takes them. Bytes that the producer half counts can be read from the ring after it.
    #[inline]
    pub fn read(&self) -> (u64, u64) {
        let cons = self.0.cons().load(Ordering::Acquire);
        let prod = self.0.prod().load(Ordering::Acquire);
        (prod, cons)
    }

    /// Owner: no signals from now on, it looks by itself. (A signal on its way may still come.)
    pub fn watch(&self) {
        self.0.watch().store(WATCHED, Ordering::Relaxed);
    }

    /// Owner: signals again. Call [`Area::read`] once more afterwards: what was published before is
    /// not signalled.
    pub fn unwatch(&self) {
        self.0.watch().store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the owner says that it looks by itself.
    pub fn is_watched(&self) -> bool {
        self.0.watch().load(Ordering::Relaxed) == WATCHED
    }
}

/// An area in shared memory.
#[cfg(not(loom))]
#[derive(Debug, Clone)]
pub struct AreaView(View);

#[cfg(not(loom))]
impl Area<AreaView> {
    /// The area at the start of `element`, a DMB or a part of one.
    ///
    /// # Errors
    /// It is shorter than 32 bytes or not 8-byte aligned.
    pub fn of(element: &View) -> Result<Self, OutOfBounds> {
        use smc_wire::cdc::Smcd;
        let view = element.part(0, Smcd::LEN)?;
        for at in [0, Smcd::PROD_AT, Smcd::CONS_AT] {
            view.u64(at)?;
        }
        view.u32(WATCH_AT)?;
        Ok(Self(AreaView(view)))
    }
}

/// Offset of the watch word.
pub const WATCH_AT: usize = 24;

#[cfg(not(loom))]
impl AreaWords for AreaView {
    #[inline]
    fn header(&self) -> &AtomicU64 {
        self.0.word64(0)
    }

    #[inline]
    fn prod(&self) -> &AtomicU64 {
        self.0.word64(smc_wire::cdc::Smcd::PROD_AT)
    }

    #[inline]
    fn cons(&self) -> &AtomicU64 {
        self.0.word64(smc_wire::cdc::Smcd::CONS_AT)
    }

    #[inline]
    fn watch(&self) -> &AtomicU32 {
        self.0.word32(WATCH_AT)
    }
}
