// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals of the program.
//!
//! Invariant: no thread of this library ever takes one.

#![expect(unsafe_code, reason = "signal masks and raise, by their C names")]

use std::mem::MaybeUninit;
use std::ptr;

/// Runs `act` with all signals blocked, so that threads which it starts have them blocked.
pub(crate) fn blocked<R>(act: impl FnOnce() -> R) -> R {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: it writes the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the first set was written above, the second is written here.
    let set =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let result = act();
    if set == 0 {
        // SAFETY: the call above wrote it.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    }
    result
}

/// Raises SIGPIPE in this thread, as a write to a socket that takes no more does.
pub(crate) fn raise_sigpipe() {
    // SAFETY: raise takes any number; what the program's handler does is the program's.
    unsafe { libc::raise(libc::SIGPIPE) };
}

/// Whether a call that a handler has interrupted goes on: all handlers were installed so (SA_RESTART).
#[cold]
pub(crate) fn restart_calls() -> bool {
    (1..=libc::SIGRTMAX()).all(|signal| {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: it writes the action that is in force, and changes nothing.
        if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
            return true;
        }
        // SAFETY: the call above wrote it.
        let action = unsafe { action.assume_init() };
        let handled = ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
        !handled || action.sa_flags & libc::SA_RESTART != 0
    })
}
