// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A value that a process shares with its children, under a lock between processes.
//!
//! Invariant: the value is reached with the lock held only. What a process that was killed left half changed
//! is never read.
#![expect(unsafe_code, reason = "a value of Rust's in memory that processes share")]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use crate::lock::{self, Got};
use crate::mapping::{MapError, Mapping};
use crate::sync::{AtomicU32, AtomicU64};
use crate::view::View;

/// What may be shared with children of fork.
///
/// # Safety
/// A value means the same in every process that was forked from the one that wrote it, whenever that was: it
/// owns nothing, and refers to nothing that was made at run time.
pub unsafe trait Plain: Send + 'static {}

/// Bytes before the value: the lock, and behind it words that the owner of the place uses as it likes.
pub const HEAD: usize = 128;
/// The first of those.
const FREE: usize = 8;

/// A place for a value and its lock. Cheap to clone.
pub struct Place<T> {
    view: View,
    value: NonNull<T>,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone(), value: self.value }
    }
}

// SAFETY: a place in memory that the view, which is Send and Sync, keeps; the value is Send by `Plain`.
unsafe impl<T: Plain> Send for Place<T> {}
// SAFETY: a reference to a place reaches the value through the lock only.
unsafe impl<T: Plain> Sync for Place<T> {}

impl<T> fmt::Debug for Place<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}

impl<T: Plain> Place<T> {
    /// Bytes that a place takes; a multiple of a cache line.
    pub const SIZE: usize = (HEAD + size_of::<T>()).next_multiple_of(128);

    /// A word before the value that is the user's: at 8 to 124, a multiple of 4.
    #[inline]
    pub fn word32(&self, at: usize) -> Option<&AtomicU32> {
        (FREE..HEAD).contains(&at).then(|| self.view.u32(at).ok()).flatten()
    }

    /// A word before the value that is the user's: at 8 to 120, a multiple of 8.
    #[inline]
    pub fn word64(&self, at: usize) -> Option<&AtomicU64> {
        (FREE..HEAD).contains(&at).then(|| self.view.u64(at).ok()).flatten()
    }

    fn word(&self) -> &AtomicU32 {
        self.view.word32(0)
    }

    /// Whether a process has the lock.
    pub fn is_locked(&self) -> bool {
        lock::holder(self.word()) != 0
    }
}

/// Places for values of one type, which children of fork share.
#[derive(Debug, Clone)]
pub struct Places<T> {
    view: View,
    _value: PhantomData<fn() -> T>,
}

impl<T: Plain> Places<T> {
    /// `count` places, in memory that is taken when they are used.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(count: usize) -> Result<Self, MapError> {
        let mapping = Mapping::anonymous(count.saturating_mul(Place::<T>::SIZE))?;
        Ok(Self { view: View::new(Arc::new(mapping)), _value: PhantomData })
    }

    /// Place `n`, if there are so many.
    pub fn get(&self, n: usize) -> Option<Place<T>> {
        let view = self.view.part(n.checked_mul(Place::<T>::SIZE)?, Place::<T>::SIZE).ok()?;
        view.place(0, HEAD, align_of::<u64>()).ok()?;
        let value = view.place(HEAD, size_of::<T>(), align_of::<T>()).ok()?.cast();
        Some(Place { view, value })
    }
}

/// A value in a [`Place`], and this process's own part of it under the same lock.
pub struct Kept<T, L> {
    place: Place<T>,
    /// This process's number.
    owner: u32,
    local: UnsafeCell<L>,
    _value: PhantomData<T>,
}

// SAFETY: both parts are reached with the lock held, by one thread at a time.
unsafe impl<T: Plain, L: Send> Sync for Kept<T, L> {}

impl<T, L> fmt::Debug for Kept<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("place", &self.place).field("owner", &self.owner).finish()
    }
}

impl<T: Plain, L> Kept<T, L> {
    /// Puts a value into a place that nobody uses.
    ///
    /// `owner` names this process, from 1 to 2^31 - 1. `is_over` is that of [`Kept::lock`].
    ///
    /// # Safety
    /// As of [`Kept::lock`]; and nobody has another value in this place: who still has a `Kept` of it never asks for
    /// [`Guard::parts`] again.
    pub unsafe fn new(
        place: Place<T>,
        owner: u32,
        is_over: impl Fn(u32) -> bool,
        value: T,
        local: L,
    ) -> Self {
        let kept = Self { place, owner, local: UnsafeCell::new(local), _value: PhantomData };
        let _ = lock::lock(kept.place.word(), owner, is_over);
        let guard = Guard { kept: &kept };
        // SAFETY: the place has room for a value, which `Places::get` checked, and the lock is held. What is
        // there is not dropped, as it owns nothing (`Plain`).
        unsafe { guard.kept.place.value.write(value) };
        drop(guard);
        kept
    }

    /// The same value for another process, a child that is about to be forked, with its number and part.
    pub fn share<M>(&self, owner: u32, local: M) -> Kept<T, M> {
        let local = UnsafeCell::new(local);
        Kept { place: self.place.clone(), owner, local, _value: PhantomData }
    }

    /// This process's part, before others of its threads have it: no lock is asked for, which another process may have.
    pub fn local_mut(&mut self) -> &mut L {
        self.local.get_mut()
    }

    /// Where the value is.
    pub fn place(&self) -> &Place<T> {
        &self.place
    }

    /// This process's number.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Takes the lock. `is_over` says whether the process with a number has ended.
    ///
    /// # Safety
    /// After [`Got::Orphaned`] nobody asks for [`Guard::parts`] of this place any more: the value is half changed, and
    /// changes on if the process has not ended.
    #[inline]
    pub unsafe fn lock(&self, is_over: impl Fn(u32) -> bool) -> (Guard<'_, T, L>, Got) {
        let got = lock::lock(self.place.word(), self.owner, is_over);
        (Guard { kept: self }, got)
    }

    /// As [`Kept::lock`], but not for longer than `time`.
    ///
    /// # Safety
    /// As of [`Kept::lock`].
    pub unsafe fn lock_within(
        &self,
        time: Duration,
        is_over: impl Fn(u32) -> bool,
    ) -> Option<(Guard<'_, T, L>, Got)> {
        let got = lock::lock_within(self.place.word(), self.owner, is_over, time)?;
        Some((Guard { kept: self }, got))
    }
}

/// The lock is held.
#[derive(Debug)]
pub struct Guard<'a, T: Plain, L> {
    kept: &'a Kept<T, L>,
}

impl<T: Plain, L> Guard<'_, T, L> {
    /// The shared value and this process's part.
    #[inline]
    pub fn parts(&mut self) -> (&mut T, &mut L) {
        let mut value = self.kept.place.value;
        // SAFETY: `Kept::new`, here or in a parent, wrote it before anybody had a `Kept` to lock, and the lock
        // is held as long as the reference lives.
        let value = unsafe { value.as_mut() };
        // SAFETY: as above: who has the lock is alone with it.
        let local = unsafe { &mut *self.kept.local.get() };
        (value, local)
    }
}

impl<T: Plain, L> Guard<'_, T, L> {
    /// This process's part alone.
    pub fn local(&mut self) -> &mut L {
        // SAFETY: as in `parts`.
        unsafe { &mut *self.kept.local.get() }
    }
}

impl<T: Plain, L> Drop for Guard<'_, T, L> {
    #[inline]
    fn drop(&mut self) {
        lock::unlock(self.kept.place.word(), self.kept.owner);
    }
}
