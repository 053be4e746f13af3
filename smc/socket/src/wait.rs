// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waiting for a socket: look at its memory for a while, then sleep.
//!
//! Invariant: a thread sleeps only after it made the peer's next write ring, and looked once more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags};
use smc_proto::conn::Ready;

use crate::channel::Inner;
use crate::clock::{self, Deadline};
use crate::few::{self, DEAF};
use crate::socket::Socket;
use crate::tcp::Standing;
use crate::types::{Tcp, meets};
use crate::wakeup::Wakeup;

impl Socket {
    /// Waits until the socket is ready for some of `want`, or has an error or hung up, for `timeout` at
    /// most; what it is ready for then. [`Ready::NOTHING`]: the time is over.
    ///
    /// # Errors
    /// EINTR; ENOTCONN.
    pub fn wait(&self, want: Ready, timeout: Option<Duration>) -> io::Result<Ready> {
        let want = want | Ready::ERROR | Ready::HANG_UP;
        let mut found = Ready::NOTHING;
        let done = self.wait_until(Deadline::after(timeout), |inner| {
            found = inner.readiness();
            meets(found, want)
        })?;
        Ok(if done { found } else { Ready::NOTHING })
    }

    /// Waits until `done`; false: the time is over.
    pub(crate) fn wait_until(
        &self,
        deadline: Deadline,
        mut done: impl FnMut(&mut Inner<'_>) -> bool,
    ) -> io::Result<bool> {
        let channel = self.channel()?;
        let mut spinning = channel.spin.begin();
        loop {
            let (done, seen) = self.with(|inner| {
                inner.look();
                (done(inner), inner.watch())
            })?;
            if done {
                return Ok(true);
            }
            if !spinning.until_changed(channel, seen, deadline) {
                break;
            }
        }
        self.sleep(deadline, &mut |inner| {
            inner.look();
            done(inner)
        })
    }

    /// Sleeps until `look` is content; false: the time is over.
    #[cold]
    pub(crate) fn sleep(
        &self,
        deadline: Deadline,
        look: &mut dyn FnMut(&mut Inner<'_>) -> bool,
    ) -> io::Result<bool> {
        if self.doze(deadline, look)? {
            return Ok(true);
        }
        let own = Wakeup::own();
        self.with(|inner| match &own {
            Some(own) => inner.add_sleeper(own),
            None => inner.unwatch(),
        })?;
        let result = self.sleep_until(deadline, own.as_deref(), look);
        if let Some(own) = &own {
            own.awake();
            self.with(|inner| inner.remove_sleeper(own))?;
        }
        result
    }

    fn sleep_until(
        &self,
        deadline: Deadline,
        own: Option<&Wakeup>,
        look: &mut dyn FnMut(&mut Inner<'_>) -> bool,
    ) -> io::Result<bool> {
        loop {
            own.into_iter().for_each(Wakeup::prepare);
            let (done, tcp) = self.with(|inner| {
                let done = look(inner);
                if !done {
                    inner.command(|conn| conn.confirm());
                }
                (done, self.shared.tcp_interest(inner))
            })?;
            if done {
                return Ok(true);
            }
            let Some(left) = deadline.left() else { return Ok(false) };
            let timer = self.home.next_timeout().map(|at| at.since(clock::now()));
            let deaf = own.is_none().then_some(DEAF);
            let left = [left, timer, deaf].into_iter().flatten().min();
            if self.home.prepare_sleep() {
                self.poll(own, tcp, left)?;
            }
        }
    }

    /// One sleep, and what woke it.
    fn poll(
        &self,
        own: Option<&Wakeup>,
        tcp_flags: Option<PollFlags>,
        left: Option<Duration>,
    ) -> io::Result<()> {
        let tcp: Option<Arc<dyn Tcp>> = self.shared.tcp().filter(|_| tcp_flags.is_some());
        let said = poll_some(
            [
                tcp.as_ref().map(|tcp| (tcp.as_fd(), tcp_flags.unwrap_or(PollFlags::empty()))),
                own.map(|own| (own.fd(), PollFlags::IN)),
                self.home.fd().map(|fd| (fd, PollFlags::IN)),
            ],
            left,
        );
        self.home.wake_up();
        own.into_iter().for_each(Wakeup::awake);
        let [tcp_said, own_said, device_said] = said?;
        if let Some(own) = own.filter(|_| !own_said.is_empty()) {
            own.drain();
        }
        if !device_said.is_empty() {
            self.home.rung();
        }
        if !tcp_said.is_empty() {
            self.home.tcp_stands(&self.shared, Standing::of(tcp_said));
        }
        if (device_said | own_said | tcp_said).is_empty() {
            self.home.dispatch();
        }
        Ok(())
    }
}

/// poll(2) of those descriptors that there are.
fn poll_some(
    fds: [Option<(BorrowedFd<'_>, PollFlags)>; 3],
    left: Option<Duration>,
) -> io::Result<[PollFlags; 3]> {
    let mut places = [0; 3];
    let mut asked: ArrayVec<PollFd<'_>, 3> = ArrayVec::new();
    for ((fd, flags), place) in
        fds.iter().zip(&mut places).filter_map(|(it, at)| Some(((*it)?, at)))
    {
        asked.push(PollFd::from_borrowed_fd(fd, flags));
        *place = asked.len();
    }
    few::poll(&mut asked, left)?;
    let said = |place: usize| asked.get(place.wrapping_sub(1)).map(PollFd::revents);
    Ok(places.map(|place| said(place).unwrap_or(PollFlags::empty())))
}
