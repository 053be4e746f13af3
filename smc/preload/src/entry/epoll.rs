// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! epoll_create, epoll_ctl, epoll_wait and their kin.
//!
//! Invariant: an instance without connections of SMC is the kernel's alone.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use libc::{epoll_event, sigset_t};

use super::{duration, fail, int, milliseconds, quietly, result, run, timespec};
use crate::epoll::{Instance, control, is_own};
use crate::sock::{Answer, end_of};
use crate::table::{self, File};
use crate::{arguments, instances, numbers, real};

/// Events that are asked of the kernel in one go.
const MANY: usize = 256;
/// How long whoever has this library's entry is given to hear it.
const PAUSE: Duration = Duration::from_millis(1);

fn created(fd: c_int) -> c_int {
    table::is_new(fd, false);
    instances::is_new(fd);
    if table::is_known(fd) {
        quietly(|| numbers::opened(fd));
    }
    fd
}

// SAFETY of the entry points: see `data`.

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_create(size: c_int) -> c_int {
    // SAFETY: it takes any number.
    created(unsafe { real::epoll_create(size) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_create1(flags: c_int) -> c_int {
    // SAFETY: it takes any number.
    created(unsafe { real::epoll_create1(flags) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_ctl(
    epoll: c_int,
    command: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    if command == libc::EPOLL_CTL_ADD {
        instances::nest(fd);
    }
    let known = table::is_known(epoll) || table::is_known(fd);
    let ours = known.then(|| {
        // SAFETY: the caller's event, or null; DEL has none.
        let event = match command {
            libc::EPOLL_CTL_DEL => None,
            // SAFETY: the caller's event, or null.
            _ => unsafe { arguments::value(event) },
        };
        let event = event.map(|event| (event.events, event.u64));
        run(|| match control(epoll, command, fd, event) {
            Some(result) => Answer::Ours(result.map(|()| 0)),
            None => Answer::Theirs,
        })
    });
    // SAFETY: the caller's arguments.
    ours.flatten().map_or_else(|| unsafe { real::epoll_ctl(epoll, command, fd, event) }, int)
}

/// A wait: its arguments, but for the time, as epoll_pwait(2) has them.
#[derive(Clone, Copy)]
struct Wait {
    epoll: c_int,
    events: *mut epoll_event,
    room: c_int,
    mask: *const sigset_t,
}

impl Wait {
    /// Waits; in the kernel by `theirs`, as the program has called it, as long as nothing is known of the instance.
    ///
    /// An entry of this library's is there before the instance is known to be one with connections, and if a parent of
    /// this process has it: who finds it readable is given time to hear it.
    ///
    /// # Safety
    /// As epoll_pwait(2).
    unsafe fn run(self, timeout: Option<Duration>, theirs: impl FnOnce() -> c_int) -> c_int {
        // Before the clock is looked at.
        // SAFETY: the caller's arguments.
        if let Some(waited) = unsafe { self.ours(timeout) } {
            return waited;
        }
        let end = end_of(timeout.filter(|time| !time.is_zero()));
        let mut theirs = Some(theirs);
        let mut left = timeout;
        loop {
            // SAFETY: the caller's arguments.
            if let Some(waited) = unsafe { self.ours(left) } {
                return waited;
            }
            let sleeps = left != Some(Duration::ZERO);
            if sleeps && !self.begin_sleep() {
                continue;
            }
            // SAFETY: the caller's arguments.
            let found = theirs.take().map_or_else(|| unsafe { self.kernel(left) }, |it| it());
            if sleeps {
                self.end_sleep();
            }
            if found <= 0 {
                return found;
            }
            // SAFETY: the caller's events, of which the kernel has filled so many.
            let kept = unsafe { self.keep_theirs(found) };
            left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if kept > 0 || !sleeps || left == Some(Duration::ZERO) {
                return kept;
            }
            if !is_ours(self.epoll) && !pause(left) {
                return int(fail(libc::EINTR));
            }
        }
    }

    /// Before a sleep in the kernel's instance; false: it has become known.
    fn begin_sleep(self) -> bool {
        instances::sleeps(self.epoll);
        let is_ours = is_ours(self.epoll);
        if is_ours {
            self.end_sleep();
        }
        !is_ours
    }

    fn end_sleep(self) {
        instances::has_slept(self.epoll);
        if table::is_known(self.epoll) {
            quietly(|| with_instance(self.epoll, Instance::has_slept));
        }
    }

    /// Leaves of so many events those that are not of the library's entries, which are passed on; how many.
    ///
    /// # Safety
    /// So many events are there.
    unsafe fn keep_theirs(self, found: c_int) -> c_int {
        // SAFETY: as the caller says.
        let events =
            unsafe { arguments::slice_mut(self.events, usize::try_from(found).unwrap_or(0)) };
        let mut kept = 0;
        for at in 0..events.len() {
            let Some(event) = events.get(at) else { break };
            let (bits, data) = (event.events, event.u64);
            if is_own(data) {
                quietly(|| with_instance(self.epoll, |it| it.kernel_says(bits, data)));
            } else {
                events.swap(kept, at);
                kept += 1;
            }
        }
        c_int::try_from(kept).unwrap_or(c_int::MAX)
    }

    /// The kernel's wait, for ever without a time.
    ///
    /// # Safety
    /// As epoll_pwait(2).
    unsafe fn kernel(self, time: Option<Duration>) -> c_int {
        // Rounded up, so that nobody wakes too early.
        let time = time.map_or(-1, |time| {
            c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
        });
        // SAFETY: the caller's arguments.
        unsafe { real::epoll_pwait(self.epoll, self.events, self.room, time, self.mask) }
    }

    /// Waits in an instance with connections of SMC; `None`: it is none.
    ///
    /// # Safety
    /// As epoll_pwait(2).
    unsafe fn ours(self, timeout: Option<Duration>) -> Option<c_int> {
        if !table::is_known(self.epoll) {
            return None;
        }
        let Ok(room @ 1..) = usize::try_from(self.room) else {
            return Some(int(fail(libc::EINVAL)));
        };
        // SAFETY: the caller's room for events.
        let events = unsafe { arguments::slice_mut(self.events, room) };
        let waited = run(|| {
            let mut kernel = |found: &mut Vec<(u32, u64)>, room: usize, time: Option<Duration>| {
                let mut buffer = [epoll_event { events: 0, u64: 0 }; MANY];
                let room = c_int::try_from(room.min(MANY)).unwrap_or(c_int::MAX);
                let ask = Self { events: buffer.as_mut_ptr(), room, ..self };
                // SAFETY: the buffer is ours, the mask is the caller's.
                let n = result(unsafe { ask.kernel(time) })?;
                found.extend(buffer.iter().take(n).map(|event| (event.events, event.u64)));
                Ok(())
            };
            let waited = with_instance(self.epoll, |it| it.wait(room, timeout, &mut kernel));
            let Some(waited) = waited else { return Answer::Theirs };
            Answer::Ours(waited.map(|found| {
                for (event, (bits, data)) in events.iter_mut().zip(&found) {
                    *event = epoll_event { events: *bits, u64: *data };
                }
                found.len()
            }))
        });
        waited.map(int)
    }
}

/// Sleeps for a moment; false: a signal came.
fn pause(left: Option<Duration>) -> bool {
    let time = timespec(left.unwrap_or(PAUSE).min(PAUSE));
    // SAFETY: a time of ours, and no room for what is left of it.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) == 0 }
}

fn with_instance<R>(epoll: c_int, act: impl FnOnce(&Instance) -> R) -> Option<R> {
    match table::get(epoll).as_deref() {
        Some(File::Epoll(instance)) => Some(act(instance)),
        _ => None,
    }
}

/// Whether it is known to be an instance with connections of SMC; a connection is none, and the kernel says so.
fn is_ours(epoll: c_int) -> bool {
    with_instance(epoll, |_| ()).is_some()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's arguments.
    let theirs = || unsafe { real::epoll_wait(epoll, events, room, timeout) };
    let wait = Wait { epoll, events, room, mask: std::ptr::null() };
    // SAFETY: the caller's arguments.
    unsafe { wait.run(milliseconds(timeout), theirs) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's arguments.
    let theirs = || unsafe { real::epoll_pwait(epoll, events, room, timeout, mask) };
    // SAFETY: the caller's arguments.
    unsafe { Wait { epoll, events, room, mask }.run(milliseconds(timeout), theirs) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: *const libc::timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's arguments.
    let theirs = || unsafe { real::epoll_pwait2(epoll, events, room, timeout, mask) };
    // SAFETY: the caller's time, or null.
    match duration(unsafe { arguments::value(timeout) }) {
        // SAFETY: the caller's arguments.
        Ok(time) => unsafe { Wait { epoll, events, room, mask }.run(time, theirs) },
        Err(number) if table::is_known(epoll) => int(fail(number)),
        Err(_) => theirs(),
    }
}
