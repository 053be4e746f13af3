// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `epoll_wait(2)` of an instance with connections of SMC.
//!
//! Invariant: the kernel is asked in every call, so its own entries never starve; a signal that comes
//! while nothing is slept on is seen by the kernel's next wait, which has the caller's mask.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{BELL, Instance, Interest, LOW, STACK, Shared, TCP, lock};
use crate::sock::end_of;
use smc_socket::spin::{LOOKS, PREEMPTED};

/// How often the kernel is asked while this thread spins.
const ASK: Duration = Duration::from_micros(25);
/// How often while handshakes go on, of which the kernel tells.
const ASK_SOON: Duration = Duration::from_micros(2);

/// One event: its bits, and what the program knows it by.
pub(crate) type Event = (u32, u64);

/// The kernel's wait for this instance: into how many events, for how long (for ever: none).
pub(crate) type Kernel<'a> =
    &'a mut dyn FnMut(&mut Vec<Event>, usize, Option<Duration>) -> io::Result<()>;

/// An entry that was delivered, and whether it stays ready.
type Taken = (Arc<Interest>, bool);

/// Which of our own entries woke a thread.
#[derive(Debug, Clone, Copy, Default)]
struct Woken {
    stack: bool,
    tcp: bool,
}

impl Shared {
    /// Puts back on the ready list what belongs there. Rings for what this wait does not deliver: what was
    /// left on the list, and what has happened to an entry that was being looked at.
    fn put_back(&self, taken: Vec<Taken>) {
        let mut inner = lock(&self.inner);
        let mut left = !inner.ready.is_empty();
        for (interest, again) in taken {
            let (listed, meanwhile) = interest.delivered(again);
            if listed {
                inner.ready.push_back(interest);
            }
            left |= meanwhile;
        }
        let left = left || (self.bell.is_always() && !inner.ready.is_empty());
        drop(inner);
        if left {
            self.bell.ring();
        }
    }
}

impl Instance {
    /// Waits for at most `room` events, for `timeout`.
    ///
    /// # Errors
    /// EINTR, and what the kernel says.
    pub(crate) fn wait(
        &self,
        room: usize,
        timeout: Option<Duration>,
        kernel: Kernel<'_>,
    ) -> io::Result<Vec<Event>> {
        let end = end_of(timeout);
        let mut events = Vec::with_capacity(room.min(64));
        loop {
            self.look(&mut events, room, kernel)?;
            if !events.is_empty() || end.is_some_and(|end| end <= Instant::now()) {
                return Ok(events);
            }
            if !self.spin(end, room, &mut events, kernel)? {
                self.sleep(&mut events, room, end, kernel)?;
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// Takes what is ready.
    fn look(&self, events: &mut Vec<Event>, room: usize, kernel: Kernel<'_>) -> io::Result<()> {
        self.dispatch();
        self.go_on();
        // Those may be another stack's. Without room for it in the kernel the next look tries again.
        let _ = self.renew();
        // Who sleeps on this instance's descriptor does not do it.
        self.drop_stack();
        self.collect(events, room);
        // With room for nothing the kernel is asked next time.
        if events.len() < room {
            let woken = self.ask(events, room, Some(Duration::ZERO), kernel)?;
            if woken.stack {
                // Who sleeps on this instance's descriptor would find it readable for ever.
                let process = self.shared.process.load_full();
                let stack = process.stack.as_ref().filter(|stack| !stack.is_gone());
                stack.into_iter().for_each(smc_socket::Stack::rung);
            }
            if woken.tcp {
                // What a connection has answered may be for its other end here, of which the kernel was asked before.
                self.go_on();
            }
            if (woken.stack || woken.tcp) && events.is_empty() {
                self.collect(events, room);
            }
        }
        Ok(())
    }

    /// Goes on with handshakes.
    fn go_on(&self) {
        let mut unsettled = std::mem::take(&mut lock(&self.shared.inner).unsettled);
        if !unsettled.is_empty() {
            // Both ends may be among them, and then the first can go on after the second: the program finds both done.
            let (mut before, mut nudged) = (usize::MAX, self.shared.is_nudged());
            while nudged || unsettled.len() < before {
                before = unsettled.len();
                unsettled.retain(|interest| !interest.go_on(nudged));
                nudged = self.shared.is_nudged();
            }
            lock(&self.shared.inner).unsettled.append(&mut unsettled);
        }
    }

    fn dispatch(&self) {
        if let Some(stack) = &self.shared.process.load().stack {
            stack.dispatch();
        }
    }

    /// Takes from the ready list.
    fn collect(&self, events: &mut Vec<Event>, room: usize) {
        let shared = &self.shared;
        shared.bell.clear();
        let mut taken = Vec::new();
        while events.len() < room {
            let next = lock(&shared.inner).ready.pop_front().inspect(|next| next.take());
            let Some(interest) = next else { break };
            let found = interest.deliver();
            events.extend(found.map(|(bits, data, _)| (bits, data)));
            taken.push((interest, found.is_some_and(|(_, _, again)| again)));
        }
        shared.put_back(taken);
    }

    /// Asks the kernel; which of our own entries woke it. What TCP says is passed on.
    fn ask(
        &self,
        events: &mut Vec<Event>,
        room: usize,
        timeout: Option<Duration>,
        kernel: Kernel<'_>,
    ) -> io::Result<Woken> {
        let before = events.len();
        // Ours may take the place of the program's; those are there the next time.
        kernel(events, room - before, timeout)?;
        let marker = self.shared.marker();
        let (mut bell, mut woken, mut tcp) = (false, Woken::default(), Vec::new());
        let mut at = 0;
        events.retain(|(bits, data)| {
            at += 1;
            if at <= before || data & !LOW != marker {
                return true;
            }
            match data & LOW {
                BELL => bell = true,
                STACK => woken.stack = true,
                low => tcp.extend(i32::try_from(low ^ TCP).map(|fd| (fd, *bits))),
            }
            false
        });
        if bell {
            self.shared.bell.heard();
        }
        woken.tcp = !tcp.is_empty();
        tcp.into_iter().for_each(|(fd, bits)| self.shared.tcp_says(fd, bits));
        Ok(woken)
    }

    /// Looks for a while; false: nothing came.
    fn spin(
        &self,
        end: Option<Instant>,
        room: usize,
        events: &mut Vec<Event>,
        kernel: Kernel<'_>,
    ) -> io::Result<bool> {
        let budget = self.spin.budget();
        if budget.is_zero() || self.shared.process.load().stack.is_none() {
            return Ok(false);
        }
        let settled = lock(&self.shared.inner).unsettled.is_empty();
        let ask = if settled { ASK } else { ASK_SOON };
        let start = Instant::now();
        let (mut asked, mut last) = (start, start);
        loop {
            for _ in 0..LOOKS / 8 {
                self.dispatch();
                if self.shared.bell.has_rung() {
                    self.spin.paid();
                    if !settled {
                        self.go_on();
                    }
                    self.collect(events, room);
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if now - asked >= ask {
                asked = now;
                self.ask(events, room, Some(Duration::ZERO), kernel)?;
                if !events.is_empty() {
                    return Ok(true);
                }
            }
            let preempted = now - last > PREEMPTED;
            last = now;
            if now - start >= budget || preempted || end.is_some_and(|end| end <= now) {
                self.spin.failed();
                return Ok(false);
            }
        }
    }

    /// Sleeps once.
    fn sleep(
        &self,
        events: &mut Vec<Event>,
        room: usize,
        end: Option<Instant>,
        kernel: Kernel<'_>,
    ) -> io::Result<()> {
        self.drop_stack();
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // Another thread may put another one in its place meanwhile.
        let process = self.shared.process.load_full();
        let stack = process.stack.as_ref().filter(|stack| !stack.is_gone());
        let timer = stack.and_then(|stack| stack.next_timeout());
        let left = [left, timer].into_iter().flatten().min();
        if !stack.is_none_or(|stack| stack.prepare_sleep()) {
            return Ok(());
        }
        let mut rung = Ok(Woken::default());
        if self.shared.bell.prepare_sleep() {
            rung = self.ask(events, room, left, kernel);
            self.shared.bell.wake_up();
        }
        if let Some(stack) = stack {
            stack.wake_up(rung.as_ref().is_ok_and(|woken| woken.stack));
        }
        rung.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use crate::sock::{Sock, Stage};
    use crate::table::File;
    use rustix::event::epoll;
    use smc_socket::Role;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_happens_while_an_entry_is_looked_at_keeps_the_thread_awake() {
        let kernel = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let instance = Instance::new(kernel.as_raw_fd(), process::current().unwrap()).unwrap();
        let shared = &instance.shared;
        let sock = Sock::new(kernel.as_raw_fd(), Role::Server, Stage::Handshake, true);
        let file = Arc::new(File::Sock(sock));
        let interest = Interest::new(9, &file, 1, 9, Arc::downgrade(shared));
        for (meanwhile, rings) in [(false, false), (true, true)] {
            shared.enqueue(&interest);
            shared.bell.clear();
            let taken = lock(&shared.inner).ready.pop_front().inspect(|it| it.take()).unwrap();
            assert!(taken.deliver().is_none());
            if meanwhile {
                shared.enqueue(&interest);
            }
            shared.put_back(vec![(taken, false)]);
            assert_eq!(
                (shared.bell.has_rung(), lock(&shared.inner).ready.len()),
                (rings, usize::from(rings))
            );
        }
    }
}
