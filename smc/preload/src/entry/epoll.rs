// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! epoll_create, epoll_ctl, epoll_wait and their kin.
//!
//! Invariant: an instance without connections of SMC is the kernel's alone.

use std::ffi::c_int;
use std::time::Duration;

use libc::{epoll_event, sigset_t, timespec};

use super::{duration, fail, int, milliseconds, quietly, result, run};
use crate::epoll::control;
use crate::sock::Answer;
use crate::table::{self, File};
use crate::{arguments, numbers, real};

/// Events that are asked of the kernel in one go.
const MANY: usize = 256;

fn created(fd: c_int) -> c_int {
    table::is_new_epoll(fd);
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
        table::nest(fd);
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

/// # Safety
/// As epoll_pwait(2).
unsafe fn wait(
    epoll: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Option<c_int> {
    if !table::is_known(epoll) {
        return None;
    }
    let Ok(room @ 1..) = usize::try_from(room) else { return Some(int(fail(libc::EINVAL))) };
    // SAFETY: the caller's room for events.
    let events = unsafe { arguments::slice_mut(events, room) };
    let waited = run(|| {
        let file = table::get(epoll);
        let Some(File::Epoll(instance)) = file.as_deref() else { return Answer::Theirs };
        let mut kernel = |found: &mut Vec<(u32, u64)>, room: usize, time: Option<Duration>| {
            let mut buffer = [epoll_event { events: 0, u64: 0 }; MANY];
            let room = c_int::try_from(room.min(MANY)).unwrap_or(c_int::MAX);
            // Rounded up, so that nobody wakes too early.
            let time = time.map_or(-1, |time| {
                c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
            });
            // SAFETY: the buffer is ours, the mask is the caller's.
            let n =
                result(unsafe { real::epoll_pwait(epoll, buffer.as_mut_ptr(), room, time, mask) })?;
            found.extend(buffer.iter().take(n).map(|event| (event.events, event.u64)));
            Ok(())
        };
        Answer::Ours(instance.wait(room, timeout, &mut kernel).map(|found| {
            for (event, (bits, data)) in events.iter_mut().zip(&found) {
                *event = epoll_event { events: *bits, u64: *data };
            }
            found.len()
        }))
    });
    waited.map(int)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's arguments.
    let ours = unsafe { wait(epoll, events, room, milliseconds(timeout), std::ptr::null()) };
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::epoll_wait(epoll, events, room, timeout) })
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
    let ours = unsafe { wait(epoll, events, room, milliseconds(timeout), mask) };
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::epoll_pwait(epoll, events, room, timeout, mask) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    room: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's time, or null.
    let ours = match duration(unsafe { arguments::value(timeout) }) {
        // SAFETY: the caller's arguments.
        Ok(time) => unsafe { wait(epoll, events, room, time, mask) },
        Err(number) if table::is_known(epoll) => Some(int(fail(number))),
        Err(_) => None,
    };
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::epoll_pwait2(epoll, events, room, timeout, mask) })
}
