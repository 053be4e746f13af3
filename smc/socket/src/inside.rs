// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The connections that this thread is in the middle of, for a signal handler that has interrupted it.
//!
//! Invariant: nobody waits for a lock that this thread itself has. A connection is here before its lock is asked for, and
//! until it is given back.

use std::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

/// Handlers that interrupt each other, each in the middle of another connection. The next one may wait for ever.
const DEPTH: usize = 8;

thread_local! {
    /// The innermost last, zeros behind it. Not dropped, so a thread that ends has it too.
    static PLACES: [AtomicUsize; DEPTH] = const { [const { AtomicUsize::new(0) }; DEPTH] };
}

struct Leaves<'a>(Option<&'a AtomicUsize>);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        if let Some(place) = self.0 {
            place.store(0, Ordering::Relaxed);
        }
    }
}

/// Runs `act`, in which this thread may take the lock of what has this address; and tells it whether it is in the middle
/// of that already, so that the lock may never come.
#[inline]
pub(crate) fn enter<R>(address: usize, act: impl FnOnce(bool) -> R) -> R {
    PLACES.with(|places| {
        let (place, again) = match places.first() {
            Some(place) if place.load(Ordering::Relaxed) == 0 => (Some(place), false),
            _ => look(places, address),
        };
        // A handler that comes before this leaves the place as it was.
        if let Some(place) = place {
            place.store(address, Ordering::Relaxed);
        }
        let _leaves = Leaves(place);
        compiler_fence(Ordering::SeqCst);
        act(again)
    })
}

/// The first place that is free, and whether the address is in one before it.
#[cold]
fn look(places: &[AtomicUsize], address: usize) -> (Option<&AtomicUsize>, bool) {
    let mut again = false;
    let free = places.iter().find(|place| {
        let held = place.load(Ordering::Relaxed);
        again |= held == address;
        held == 0
    });
    (free, again)
}
