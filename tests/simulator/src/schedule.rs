// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens when: the virtual clock.
//!
//! Invariant: time never goes back; events of one instant come out in the order in which they went in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use smc_proto::Instant;

/// An event at its place: ordered by time, then by arrival.
struct Entry<E>(Instant, u64, E);

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Events to come, and the time.
pub struct Schedule<E> {
    now: Instant,
    arrivals: u64,
    events: BinaryHeap<Reverse<Entry<E>>>,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { now: Instant::default(), arrivals: 0, events: BinaryHeap::new() }
    }
}

impl<E> Schedule<E> {
    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// `event` shall happen `delay` from now.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now.after(delay), event);
    }

    /// `event` shall happen at `time`, or now if that is past.
    pub fn at(&mut self, time: Instant, event: E) {
        self.arrivals += 1;
        self.events.push(Reverse(Entry(time.max(self.now), self.arrivals, event)));
    }

    /// When the next event happens.
    pub fn next_time(&self) -> Option<Instant> {
        self.events.peek().map(|Reverse(Entry(time, ..))| *time)
    }

    /// The next event, if it happens before or at `until`; the clock is set to its time.
    pub fn next(&mut self, until: Instant) -> Option<E> {
        if self.next_time()? > until {
            return None;
        }
        let Reverse(Entry(time, _, event)) = self.events.pop()?;
        self.now = time;
        Some(event)
    }

    /// Sets the clock to `time`, at which nothing happens.
    pub fn pass_to(&mut self, time: Instant) {
        self.now = self.now.max(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_by_arrival() {
        let mut schedule = Schedule::default();
        schedule.after(Duration::from_nanos(5), 'c');
        schedule.after(Duration::from_nanos(2), 'a');
        schedule.after(Duration::from_nanos(2), 'b');
        assert_eq!(schedule.next(Instant(1)), None);
        assert_eq!(schedule.next(Instant(9)), Some('a'));
        schedule.at(Instant(0), 'x'); // the past is now
        assert_eq!(schedule.next(Instant(9)), Some('b'));
        assert_eq!(schedule.next(Instant(9)), Some('x'));
        assert_eq!((schedule.next(Instant(9)), schedule.now()), (Some('c'), Instant(5)));
    }
}
