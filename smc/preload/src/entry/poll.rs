// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! poll, ppoll, select, pselect.
//!
//! Invariant: the caller's signal mask is in force exactly where the kernel sleeps or is asked.

use std::ffi::{c_int, c_ulong};
use std::io;
use std::time::{Duration, Instant};

use libc::{fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};

use super::{duration, fail, int, milliseconds, result, run};
use crate::poll::select::{Sets, WORD};
use crate::sock::Answer;
use crate::{arguments, poll as waiting, real};

/// # Safety
/// As ppoll(2).
unsafe fn wait(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Option<c_int> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    // SAFETY: the caller's descriptors.
    let fds = unsafe { arguments::slice_mut(fds, count) };
    if waiting::is_plain(fds) {
        return None;
    }
    // SAFETY: the caller's mask.
    let mut kernel = |fds: &mut [pollfd], time| unsafe { kernel(fds, time, mask) };
    run(|| Answer::Ours(waiting::wait(fds, timeout, &mut kernel))).map(int)
}

/// # Safety
/// `mask` is null or a set.
unsafe fn kernel(
    fds: &mut [pollfd],
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> io::Result<usize> {
    let count = nfds_t::try_from(fds.len()).unwrap_or(nfds_t::MAX);
    let time = timeout.map(super::timespec);
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: descriptors and time are ours, the mask is the caller's.
    result(unsafe { real::ppoll(fds.as_mut_ptr(), count, time, mask) })
}

// SAFETY of the entry points: see `data`.

#[unsafe(no_mangle)]
unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let ours = unsafe { wait(fds, count, milliseconds(timeout), std::ptr::null()) };
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::poll(fds, count, timeout) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    if room / size_of::<pollfd>() < usize::try_from(count).unwrap_or(usize::MAX) {
        // SAFETY: it ends the program.
        return unsafe { real::__poll_chk(fds, count, timeout, room) };
    }
    // SAFETY: the caller's arguments.
    unsafe { poll(fds, count, timeout) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's time, or null.
    let ours = match duration(unsafe { arguments::value(timeout) }) {
        // SAFETY: the caller's arguments.
        Ok(time) => unsafe { wait(fds, count, time, mask) },
        Err(number) => Some(int(fail(number))),
    };
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::ppoll(fds, count, timeout, mask) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    if room / size_of::<pollfd>() < usize::try_from(count).unwrap_or(usize::MAX) {
        // SAFETY: it ends the program.
        return unsafe { real::__ppoll_chk(fds, count, timeout, mask, room) };
    }
    // SAFETY: the caller's arguments.
    unsafe { ppoll(fds, count, timeout, mask) }
}

/// # Safety
/// As pselect(2).
unsafe fn wait_for_sets(
    count: c_int,
    sets: [*mut fd_set; 3],
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Option<c_int> {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller's sets, of which so many words are looked at.
    let sets = sets
        .map(|set| unsafe { arguments::slice_mut(set.cast::<c_ulong>(), count.div_ceil(WORD)) });
    let mut sets = Sets { count, sets };
    if sets.is_plain() {
        return None;
    }
    // SAFETY: the caller's mask.
    let mut kernel = |fds: &mut [pollfd], time| unsafe { kernel(fds, time, mask) };
    run(|| Answer::Ours(sets.wait(timeout, &mut kernel))).map(int)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn select(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    excepts: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller's time, or null.
    let time = unsafe { arguments::value(timeout) };
    let seconds = |time: timeval| {
        let seconds = u64::try_from(time.tv_sec).ok()?;
        Some(
            Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).ok()?),
        )
    };
    let start = Instant::now();
    let sets = [reads, writes, excepts];
    let ours = match time.map(seconds) {
        // The kernel says what is wrong with it.
        Some(None) => None,
        // SAFETY: the caller's arguments.
        Some(time) => unsafe { wait_for_sets(count, sets, time, std::ptr::null()) },
        // SAFETY: the caller's arguments.
        None => unsafe { wait_for_sets(count, sets, None, std::ptr::null()) },
    };
    let Some(ready) = ours else {
        // SAFETY: the caller's arguments.
        return unsafe { real::select(count, reads, writes, excepts, timeout) };
    };
    if let Some(time) = time.and_then(seconds) {
        // Linux says how much is left.
        let left = time.saturating_sub(start.elapsed());
        let tv_sec = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let left = timeval { tv_sec, tv_usec: left.subsec_micros().into() };
        // SAFETY: the caller's time.
        unsafe { arguments::put(timeout, left) };
    }
    ready
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pselect(
    count: c_int,
    reads: *mut fd_set,
    writes: *mut fd_set,
    excepts: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's time, or null.
    let ours = match duration(unsafe { arguments::value(timeout) }) {
        // SAFETY: the caller's arguments.
        Ok(time) => unsafe { wait_for_sets(count, [reads, writes, excepts], time, mask) },
        Err(_) => None,
    };
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::pselect(count, reads, writes, excepts, timeout, mask) })
}
