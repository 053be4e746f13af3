// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waiting with little: poll(2) of one descriptor at a time, and no new descriptors.
//!
//! Invariant: once [`confine`] was called, a connection that is established is used by no system calls but read,
//! write, poll, futex, getpid, a sleep and what asks for the time; but to be reset.
//!
//! A process that shuts itself in (seccomp) often may not make descriptors any more, and with RLIMIT_NOFILE of
//! 1 the kernel takes no list of two for poll.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, Timespec};
use rustix::io::Errno;
use rustix::thread::{NanosleepRelativeResult, nanosleep};

use crate::clock::timespec;

/// How long a thread sleeps at most that does not hear of everything.
pub const DEAF: Duration = Duration::from_millis(5);

static CONFINED: AtomicBool = AtomicBool::new(false);

/// From now on this process may do little; with `false`: it may do all again. Whether it might do little before.
pub fn confine(on: bool) -> bool {
    CONFINED.swap(on, Ordering::Relaxed)
}

/// Whether it may do little.
pub fn is_confined() -> bool {
    CONFINED.load(Ordering::Relaxed)
}

/// As poll(2). Where this process may not ask for so many it asks for one after another, and sleeps on the last.
pub(crate) fn poll(fds: &mut [PollFd<'_>], left: Option<Duration>) -> rustix::io::Result<()> {
    match rustix::event::poll(fds, left.map(timespec).as_ref()) {
        Err(Errno::INVAL) if fds.len() > 1 => one_by_one(fds, left),
        other => other.map(drop),
    }
}

#[cold]
fn one_by_one(fds: &mut [PollFd<'_>], left: Option<Duration>) -> rustix::io::Result<()> {
    for fd in &mut *fds {
        alone(fd, Some(&timespec(Duration::ZERO)))?;
    }
    let none = fds.iter().all(|fd| fd.revents().is_empty());
    let left = timespec(left.map_or(DEAF, |left| left.min(DEAF)));
    if let Some(last) = fds.last_mut().filter(|_| none)
        && !alone(last, Some(&left))?
    {
        match nanosleep(&left) {
            NanosleepRelativeResult::Interrupted(_) => return Err(Errno::INTR),
            NanosleepRelativeResult::Ok | NanosleepRelativeResult::Err(_) => {}
        }
    }
    Ok(())
}

/// False: it may not even ask about one.
fn alone(fd: &mut PollFd<'_>, left: Option<&Timespec>) -> rustix::io::Result<bool> {
    match rustix::event::poll(std::slice::from_mut(fd), left) {
        Ok(_) => Ok(true),
        Err(Errno::INVAL) => {
            fd.clear_revents();
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use rustix::event::{EventfdFlags, PollFlags, eventfd};

    use super::*;

    #[test]
    fn who_may_ask_about_one_descriptor_hears_of_each() {
        let bells = [0, 0].map(|_| eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let heard = || {
            let mut fds = [&bells[0], &bells[1]].map(|bell| PollFd::new(bell, PollFlags::IN));
            one_by_one(&mut fds, None).unwrap();
            fds.map(|fd| !fd.revents().is_empty())
        };
        assert_eq!(heard(), [false, false]);
        for (n, said) in [(1, [false, true]), (0, [true, true])] {
            rustix::io::write(&bells[n], &1_u64.to_ne_bytes()).unwrap();
            assert_eq!(heard(), said);
        }
    }
}
