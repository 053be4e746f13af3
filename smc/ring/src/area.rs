// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The CDC area: the first 32 bytes of a DMB's element, which the peer writes (`struct smcd_cdc_msg`).
//!
//! Invariant: a half is one 8-byte access, so never half old and half new; who sees flags sees the
//! bytes they came after; and a publication that is not seen by an owner who stops looking is signalled.
//!
//! # The watch word
//! The area's last 8 bytes are reserved: Linux writes zero there and never reads them. Our owners use
//! the first four in their own DMB: [`WATCHED`] says "I look at this area by myself", [`ASLEEP`] "I sleep on this
//! word". Any other value, so also a fresh DMB's and what Linux leaves, means that each publication must be signalled;
//! [`AWAKE`] says besides that its writer knows of [`ASLEEP`]. A sender that does not know the word signals always,
//! which is right too; only who knows that its peer knows of [`ASLEEP`] sleeps so. The peer can write the
//! word; that costs this connection a late or a needless look.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use rustix::{io::Errno, thread::futex, time::Timespec};
#[cfg(not(loom))]
use std::time::Duration;

#[cfg(not(loom))]
use crate::view::{OutOfBounds, View};

/// Value of the watch word of an owner that looks by itself.
pub const WATCHED: u32 = 1;

/// Value of the watch word of an owner that sleeps on it (a futex): who publishes makes it [`WATCHED`], since the owner is
/// going to look, and wakes.
pub const ASLEEP: u32 = 2;
/// Value of the watch word of an owner that does neither, and may sleep on it another time.
pub const AWAKE: u32 = 3;

/// What the owner needs to hear of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an owner that is not told may sleep for ever"]
pub enum Notice {
    /// Nothing: it looks by itself.
    Nothing,
    /// A signal for its DMB.
    Signal,
    /// It sleeps on the watch word: [`Area::wake`].
    Wake,
}

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

    /// Sender: says both halves, after the bytes in the ring; what the owner needs to hear.
    ///
    /// Producer half first: the consumer half carries the flags, and is read first.
    #[inline]
    pub fn publish(&self, prod: u64, cons: u64) -> Notice {
        self.0.header().store(HEADER, Ordering::Relaxed);
        self.0.prod().store(prod, Ordering::Release);
        self.0.cons().store(cons, Ordering::Release);
        // Against the fences in `unwatch` and `sleep`: one of the two sides sees what the other stored.
        fence(Ordering::SeqCst);
        match self.0.watch().load(Ordering::Relaxed) {
            WATCHED => Notice::Nothing,
            ASLEEP if self.rouse() => Notice::Wake,
            // It has woken by itself since, and whatever it does next, it looks before.
            ASLEEP => Notice::Nothing,
            _ => Notice::Signal,
        }
    }

    /// An owner that sleeps is going to look. True: it did sleep, and has to be woken.
    pub fn rouse(&self) -> bool {
        let (watch, order) = (self.0.watch(), Ordering::Relaxed);
        watch.compare_exchange(ASLEEP, WATCHED, order, order).is_ok()
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
        self.0.watch().store(AWAKE, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Owner: the next publication wakes it. Call [`Area::read`] once more afterwards: what was published before
    /// does not. Then sleep as long as the word is [`ASLEEP`].
    pub fn sleep(&self) {
        self.0.watch().store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the owner sleeps on the word, or is about to.
    pub fn is_asleep(&self) -> bool {
        self.0.watch().load(Ordering::Relaxed) == ASLEEP
    }

    /// Whether the owner has shown that it knows of [`ASLEEP`]; it may without.
    pub fn knows_sleep(&self) -> bool {
        matches!(self.0.watch().load(Ordering::Relaxed), ASLEEP | AWAKE)
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

#[cfg(not(loom))]
impl Area<AreaView> {
    /// Owner, after [`Area::sleep`] and the look that has to follow: sleeps until somebody wakes, or for `longest`;
    /// false: so long.
    ///
    /// # Errors
    /// EINTR.
    pub fn doze(&self, longest: Duration) -> rustix::io::Result<bool> {
        let tv_sec = i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
        let longest = Timespec { tv_sec, tv_nsec: longest.subsec_nanos().into() };
        match futex::wait(self.0.watch(), futex::Flags::empty(), ASLEEP, Some(&longest)) {
            Err(Errno::INTR) => Err(Errno::INTR),
            Err(Errno::TIMEDOUT) => Ok(false),
            // Woken, or not asleep any more.
            _ => Ok(true),
        }
    }

    /// Wakes an owner that sleeps.
    pub fn wake(&self) {
        // Nobody may sleep any more.
        let _ = futex::wake(self.0.watch(), futex::Flags::empty(), i32::MAX.unsigned_abs());
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
