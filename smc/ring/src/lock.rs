// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A lock in memory that processes share: a futex word that says who holds it.
//!
//! Invariant: it is held by one thread of one process, or it is free; a holder whose process has ended is
//! followed by the next who asks, who is told so.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::futex;
use rustix::time::Timespec;

/// Somebody sleeps until it is free.
const AWAITED: u32 = 1 << 31;
/// Looks before a sleep: who holds it copies a few KiB at most.
const LOOKS: u32 = 100;
/// How long a holder may take before it is asked whether it lives.
const PATIENCE: Duration = Duration::from_millis(50);

/// How a lock was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Got {
    /// From nobody, or from who gave it back.
    Free,
    /// From a process that ended with it: what it protects may be half changed.
    Orphaned,
}

/// Takes the lock in `word`, as `owner`, a number of this process from 1 to 2^31 - 1. `is_over` is asked
/// whether the process with such a number has ended.
#[inline]
pub fn lock(word: &AtomicU32, owner: u32, is_over: impl Fn(u32) -> bool) -> Got {
    match word.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed) {
        Ok(_) => Got::Free,
        Err(_) => loop {
            // Without an end it comes back with the lock.
            if let Some(got) = lock_slowly(word, owner, &is_over, None) {
                break got;
            }
        },
    }
}

/// As [`lock`], but not for longer than `time`, after which `is_over` is asked too: `None` if it is held all the time by
/// a process that lives.
pub fn lock_within(
    word: &AtomicU32,
    owner: u32,
    is_over: impl Fn(u32) -> bool,
    time: Duration,
) -> Option<Got> {
    match word.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed) {
        Ok(_) => Some(Got::Free),
        Err(_) => lock_slowly(word, owner, &is_over, Some(Instant::now() + time)),
    }
}

/// Who holds the lock; 0: nobody.
pub fn holder(word: &AtomicU32) -> u32 {
    word.load(Ordering::Relaxed) & !AWAITED
}

#[cold]
fn lock_slowly(
    word: &AtomicU32,
    owner: u32,
    is_over: &dyn Fn(u32) -> bool,
    end: Option<Instant>,
) -> Option<Got> {
    for _ in 0..LOOKS {
        std::hint::spin_loop();
        let free = word.load(Ordering::Relaxed) == 0;
        if free && word.compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return Some(Got::Free);
        }
    }
    loop {
        let seen = word.load(Ordering::Relaxed);
        // Others may sleep, so it stays awaited; once too often is a system call more.
        let ours = |was: u32| {
            let new = owner | AWAITED;
            word.compare_exchange(was, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        if seen & !AWAITED == 0 {
            if ours(seen) {
                return Some(Got::Free);
            }
            continue;
        }
        let awaited = seen | AWAITED;
        let order = Ordering::Relaxed;
        if seen != awaited && word.compare_exchange(seen, awaited, order, order).is_err() {
            continue;
        }
        let steals = || {
            let holder = seen & !AWAITED;
            (holder != owner && is_over(holder) && ours(awaited)).then_some(Got::Orphaned)
        };
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return steals();
        }
        let time = left.map_or(PATIENCE, |left| left.min(PATIENCE));
        let nanoseconds = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        let slept = futex::wait(word, futex::Flags::empty(), awaited, Some(&nanoseconds));
        let late = slept == Err(rustix::io::Errno::TIMEDOUT) && time == PATIENCE;
        if late && let Some(got) = steals() {
            return Some(got);
        }
    }
}

/// Gives the lock back, if `owner` still has it.
#[inline]
pub fn unlock(word: &AtomicU32, owner: u32) {
    let given = |was| word.compare_exchange(was, 0, Ordering::Release, Ordering::Relaxed).is_ok();
    if !given(owner) && given(owner | AWAITED) {
        wake(word);
    }
}

#[cold]
fn wake(word: &AtomicU32) {
    // Nobody may sleep any more.
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}
