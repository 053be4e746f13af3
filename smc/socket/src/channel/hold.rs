// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a connection is taken, worked on and given back, by threads of several processes.
//!
//! Invariant: the state is looked at by who has the lock, is one of the family, and knows that nobody was killed in the
//! middle; anybody else has a state of its own.
#![expect(unsafe_code, reason = "the state's lock believes the family who has ended")]

use std::cell::Cell;
use std::time::Duration;

use smc_ring::kept::Guard;
use smc_ring::lock::Got;

use super::{Channel, Effects, Inner, Local};
use crate::state::State;
use crate::{clock, few, inside};

/// How long a process has a connection at most that is not stopped, or waits for a CPU.
const STUCK: Duration = Duration::from_millis(5);
/// How long a process that may not ask waits for one that may have ended, when nobody else says so.
const UNHEARD: Duration = Duration::from_secs(10);

impl Channel {
    /// Runs `act` with the connection. Its effects are the caller's to carry out. `None`, here and below: this thread was
    /// in the middle of it when a signal handler interrupted it.
    #[inline]
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Inner<'_>) -> R) -> Option<(R, Effects)> {
        inside::enter(self.address(), |again| {
            if again {
                return self.with_within(Duration::ZERO, act);
            }
            // SAFETY: `run` gives the connection up, and looks at the parts of one that is not only.
            let locked = unsafe { self.kept.lock(self.judge()) };
            Some(self.run(locked, act))
        })
    }

    /// As [`Channel::with`]; `None` if a process that lives has the connection for longer than `time`; without one, if
    /// it is another process, for so long that it must be stopped.
    pub(crate) fn with_soon<R>(
        &self,
        time: Option<Duration>,
        act: impl FnOnce(&mut Inner<'_>) -> R,
    ) -> Option<(R, Effects)> {
        if time.is_none() && self.seat.is_alone() {
            return self.with(act);
        }
        inside::enter(self.address(), |again| {
            self.with_within(if again { Duration::ZERO } else { time.unwrap_or(STUCK) }, act)
        })
    }

    fn with_within<R>(
        &self,
        time: Duration,
        act: impl FnOnce(&mut Inner<'_>) -> R,
    ) -> Option<(R, Effects)> {
        // SAFETY: as in `with`.
        let locked = unsafe { self.kept.lock_within(time, self.judge()) };
        Some(self.run(locked?, act))
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether a process that has the lock has ended, as far as this one may say: who was given up itself may not, and
    /// who may not ask says so of one that has it for very long.
    #[inline]
    fn judge(&self) -> impl Fn(u32) -> bool {
        let first = Cell::new(None);
        move |owner| {
            let long = || {
                let now = clock::now();
                let (_, since) = first.get().filter(|(it, _)| *it == owner).unwrap_or((owner, now));
                first.set(Some((owner, since)));
                now.since(since) > UNHEARD
            };
            let is_over = || self.seat.family().is_over(owner) || few::is_confined() && long();
            !self.seat.is_lost() && is_over()
        }
    }

    #[inline]
    fn run<R>(
        &self,
        (mut guard, got): (Guard<'_, State, Local>, Got),
        act: impl FnOnce(&mut Inner<'_>) -> R,
    ) -> (R, Effects) {
        if got == Got::Orphaned || self.seat.is_given_up() || self.seat.is_lost() {
            return self.run_apart(guard.local(), got, act);
        }
        let (State { conn, common }, local) = guard.parts();
        let mut inner = Inner { conn, common, local, channel: self };
        let result = act(&mut inner);
        let effects = inner.take_effects();
        (result, effects)
    }

    /// The state is not to be looked at: a process was killed in the middle, or the family has given this process up,
    /// and the place is others'. This process has a state of its own, of a connection that is over.
    #[cold]
    fn run_apart<R>(
        &self,
        local: &mut Local,
        got: Got,
        act: impl FnOnce(&mut Inner<'_>) -> R,
    ) -> (R, Effects) {
        let (is_first, is_lost) = (local.apart.is_none(), self.seat.is_lost());
        let finds = got == Got::Orphaned && !is_lost && !self.seat.is_given_up();
        let params = &self.established.params;
        let mut state = local.apart.take().unwrap_or_else(|| {
            Box::new(if finds {
                State::aborted(params, self.seat.is_released())
            } else {
                State::over(params)
            })
        });
        if is_lost {
            (local.far, local.released) = (None, true);
        } else if is_first {
            // If who was taken for dead lives, it still writes there: the memory is never used again.
            std::mem::forget(local.far.clone());
        }
        let State { conn, common } = &mut *state;
        let mut inner = Inner { conn, common, local, channel: self };
        if finds {
            self.seat.give_up();
            inner.begin_anew();
        }
        if is_first {
            inner.local.effects.news |= inner.conn.readiness();
        }
        let result = act(&mut inner);
        let effects = match is_lost {
            true => Effects { news: inner.take_news(), ..Effects::default() },
            false => inner.take_effects(),
        };
        local.apart = Some(state);
        (result, effects)
    }
}
