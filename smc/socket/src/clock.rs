// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The time, as the protocol's machines take it.
//!
//! Invariant: monotonic; read without a system call.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{ClockId, Itimerspec, Timespec, clock_gettime};
use rustix::time::{TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use rustix::time::{timerfd_create, timerfd_settime};
use smc_proto::Instant;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn now() -> Instant {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (tv_sec.unsigned_abs(), tv_nsec.unsigned_abs());
    Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// A point in time up to which something may take; none: for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// `timeout` from now.
    pub(crate) fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.map(|timeout| now().after(timeout)))
    }

    /// The time that is left: `Some(None)` for ever, `None` if it is over.
    pub(crate) fn left(self) -> Option<Option<Duration>> {
        match self.0 {
            None => Some(None),
            Some(end) => match end.since(now()) {
                Duration::ZERO => None,
                left => Some(Some(left)),
            },
        }
    }
}

/// A descriptor that is readable again and again.
pub(crate) fn ticks(each: Duration) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let each = timespec(each);
    let times = Itimerspec { it_interval: each, it_value: each };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
    Ok(timer)
}

/// A time as `ppoll(2)` takes it.
pub(crate) fn timespec(time: Duration) -> Timespec {
    let tv_sec = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: time.subsec_nanos().into() }
}
