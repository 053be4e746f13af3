// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The functions that C programs call, a module per group.
//!
//! Invariant: none unwinds, and errno is changed only where the call fails. What a descriptor is is looked
//! up first, so a call that is not ours costs nothing more.

#![expect(unsafe_code, reason = "C entry points: pointers in, results and errno out")]

mod data;
mod descriptors;
mod epoll;
mod exec;
mod message;
mod options;
mod poll;
mod sandbox;
mod socket;

use std::ffi::c_int;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::Duration;

use crate::real;
use crate::settings::SETTINGS;
use crate::sock::Answer;
use crate::{inherited, numbers, process, touched};

/// What must be ready before the program has threads and signal handlers.
extern "C" fn load() {
    // Before a panic in here there is nothing to be done about it.
    let _ = catch_unwind(|| {
        real::look_up_all();
        LazyLock::force(&SETTINGS);
        process::start();
        touched::start();
        inherited::look();
    });
    // SAFETY: the functions live as long as the library, which is never unloaded.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

// SAFETY: an entry of .init_array is a function that the loader calls with the C ABI; this one takes no
// arguments and does not unwind.
#[unsafe(link_section = ".init_array")]
#[used]
static LOAD: extern "C" fn() = load;

unsafe extern "C" fn before() {
    quietly(numbers::before_fork);
}

unsafe extern "C" fn in_parent() {
    quietly(numbers::in_parent);
}

unsafe extern "C" fn in_child() {
    quietly(numbers::after_fork);
}

/// The calling thread's errno.
fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

/// Runs what must not unwind and leaves errno as it was.
fn quietly<R>(act: impl FnOnce() -> R) -> Option<R> {
    let before = errno();
    let result = catch_unwind(AssertUnwindSafe(act));
    real::set_errno(before);
    result.ok()
}

/// Runs a call of ours; `None`: it is the next library's. -1 is with errno.
fn run(act: impl FnOnce() -> Answer<usize>) -> Option<isize> {
    match quietly(act) {
        Some(Answer::Theirs) => None,
        Some(Answer::Ours(Ok(n))) => Some(isize::try_from(n).unwrap_or(isize::MAX)),
        Some(Answer::Ours(Err(error))) => Some(fail(error.raw_os_error().unwrap_or(libc::EIO))),
        None => Some(fail(libc::EIO)),
    }
}

/// The result of a failed call.
fn fail(number: c_int) -> isize {
    real::set_errno(number);
    -1
}

/// A count as C's int.
fn int(n: isize) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}

/// What a C function said.
fn result(n: c_int) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Milliseconds as poll and epoll have them.
fn milliseconds(timeout: c_int) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// A time as ppoll and epoll_pwait2 have it; `Err`: EINVAL.
fn duration(time: Option<libc::timespec>) -> Result<Option<Duration>, c_int> {
    let Some(time) = time else { return Ok(None) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanos)))
        }
        _ => Err(libc::EINVAL),
    }
}

/// A time as ppoll takes it.
fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
