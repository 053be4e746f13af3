// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What must be known of an epoll instance before a connection is in it: its copies, and who sleeps on it.
//!
//! Invariant: no lock and no memory that grows; a child of vfork changes nothing. What is noted of a number may be of
//! something that was closed without this library, so that it is asked for before it counts.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering, fence};

use crate::process;
use crate::table::{LIMIT, at};

/// Something has been waiting for it that this library does not see: an epoll instance, or a thread in the kernel's
/// poll.
const NESTED: u8 = 1;
/// It was made as an epoll instance.
const MADE: u8 = 2;
/// It was copied, or is a copy.
const COPIED: u8 = 4;

/// What is noted of each number.
static NOTED: [AtomicU8; LIMIT] = [const { AtomicU8::new(0) }; LIMIT];
/// Threads that sleep in the kernel's instance at each number.
static SLEEPERS: [AtomicU32; LIMIT] = [const { AtomicU32::new(0) }; LIMIT];
/// No number above was ever copied, or slept on.
static HIGHEST: AtomicI32 = AtomicI32::new(-1);

fn noted(fd: c_int) -> u8 {
    at(&NOTED, fd).map_or(0, |it| it.load(Ordering::Relaxed))
}

/// Notes what a new number is; a child of vfork has its parent's memory, but numbers of its own.
fn note(fd: c_int, bits: u8) {
    if let Some(noted) = at(&NOTED, fd)
        && noted.load(Ordering::Relaxed) != bits
        && !process::is_borrowed()
    {
        noted.store(bits, Ordering::Relaxed);
        if bits & COPIED != 0 {
            HIGHEST.fetch_max(fd, Ordering::Relaxed);
        }
    }
}

/// Notes one thing more of a number, of which another thread may note something at the same time.
fn add(fd: c_int, bit: u8) {
    if let Some(noted) = at(&NOTED, fd)
        && noted.load(Ordering::Relaxed) & bit == 0
        && !process::is_borrowed()
    {
        noted.fetch_or(bit, Ordering::Relaxed);
        if bit == COPIED {
            HIGHEST.fetch_max(fd, Ordering::Relaxed);
        }
    }
}

/// Something waits for a descriptor, and if it is an epoll instance this library will not see it.
#[inline]
pub(crate) fn nest(fd: c_int) {
    if noted(fd) & NESTED == 0 {
        add(fd, NESTED);
        // Of this and of who makes the descriptor known one sees the other.
        fence(Ordering::SeqCst);
    }
}

/// Whether something may wait for a descriptor that has just become known.
pub(crate) fn is_nested(fd: c_int) -> bool {
    fence(Ordering::SeqCst);
    noted(fd) & NESTED != 0
}

/// A descriptor is a new epoll instance.
pub(crate) fn is_new(fd: c_int) {
    note(fd, MADE);
}

/// A descriptor is another one of what `of` is.
pub(crate) fn is_copy(copy: c_int, of: c_int) {
    if copy < 0 || copy == of {
        return;
    }
    let mut bits = noted(of);
    if bits & MADE != 0 {
        add(of, COPIED);
        bits = noted(of) | COPIED;
    }
    note(copy, bits);
    if bits & COPIED != 0 {
        // As with `nest`.
        fence(Ordering::SeqCst);
    }
}

/// Numbers that may be of the same instance as one that has just become known.
pub(crate) fn copies(fd: c_int) -> impl Iterator<Item = c_int> {
    fence(Ordering::SeqCst);
    let highest = if noted(fd) & COPIED != 0 { HIGHEST.load(Ordering::Relaxed) } else { -1 };
    (0..=highest).filter(move |other| *other != fd && noted(*other) & COPIED != 0)
}

/// A thread is about to sleep in the kernel's instance, of which nothing is known. To be followed by a look whether that
/// is still so, and by [`has_slept`].
pub(crate) fn sleeps(fd: c_int) {
    if let Some(sleepers) = at(&SLEEPERS, fd) {
        sleepers.fetch_add(1, Ordering::SeqCst);
        if HIGHEST.load(Ordering::Relaxed) < fd {
            HIGHEST.fetch_max(fd, Ordering::Relaxed);
        }
        // As with `nest`.
        fence(Ordering::SeqCst);
    }
}

/// It does not any more.
pub(crate) fn has_slept(fd: c_int) {
    if let Some(sleepers) = at(&SLEEPERS, fd) {
        // A child that was forked in a signal handler of the sleeper has none.
        let _ =
            sleepers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
    }
}

/// Whether a thread may sleep in the kernel's instance, at this number.
pub(crate) fn has_sleepers(fd: c_int) -> bool {
    fence(Ordering::SeqCst);
    at(&SLEEPERS, fd).is_some_and(|sleepers| sleepers.load(Ordering::SeqCst) != 0)
}

/// In a child of fork: its parent's threads are not here.
pub(crate) fn after_fork() {
    for fd in 0..=HIGHEST.load(Ordering::Relaxed) {
        if let Some(sleepers) = at(&SLEEPERS, fd).filter(|it| it.load(Ordering::Relaxed) != 0) {
            sleepers.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_instances_are_noted_and_those_of_other_files_are_not() {
        // No descriptors, numbers only.
        let [made, copy, second, file, other, alone] = [900, 901, 902, 903, 904, 905];
        is_new(made);
        is_new(alone);
        is_copy(copy, made);
        is_copy(second, copy);
        is_copy(other, file);
        assert_eq!(copies(made).filter(|fd| *fd >= 900).collect::<Vec<_>>(), [copy, second]);
        assert_eq!(copies(second).filter(|fd| *fd >= 900).collect::<Vec<_>>(), [made, copy]);
        assert_eq!(copies(alone).count() + copies(other).count(), 0);
        // What the number is used for next is no copy.
        is_copy(second, file);
        assert_eq!(copies(made).filter(|fd| *fd >= 900).collect::<Vec<_>>(), [copy]);
        nest(made);
        is_copy(second, made);
        assert!(is_nested(second) && !is_nested(alone));
        is_new(second);
        assert!(!is_nested(second));
    }

    #[test]
    fn what_two_threads_note_of_a_number_at_once_is_both_noted() {
        const ROUNDS: u32 = 50_000;
        let [made, copy] = [890, 891];
        let [begun, ended] = [AtomicU32::new(0), AtomicU32::new(0)];
        let wait = |counter: &AtomicU32, n| {
            while counter.load(Ordering::Acquire) != n {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=ROUNDS {
                    wait(&begun, n);
                    nest(made);
                    ended.store(n, Ordering::Release);
                }
            });
            let mut lost = 0;
            for n in 1..=ROUNDS {
                is_new(made);
                begun.store(n, Ordering::Release);
                is_copy(copy, made);
                wait(&ended, n);
                lost += u32::from(noted(made) != MADE | NESTED | COPIED);
            }
            assert_eq!(lost, 0);
        });
    }

    #[test]
    fn sleepers_are_counted_and_a_child_has_none() {
        let fd = 910;
        sleeps(fd);
        sleeps(fd);
        has_slept(fd);
        assert!(has_sleepers(fd) && !has_sleepers(911));
        after_fork();
        has_slept(fd);
        assert!(!has_sleepers(fd));
    }
}
