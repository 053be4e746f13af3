// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `poll(2)` and `select(2)` where connections of SMC are among the descriptors.
//!
//! Invariant: the kernel is asked about all others in every look and every sleep, with the caller's
//! signal mask.

pub(crate) mod select;

use std::cell::RefCell;
use std::ffi::c_short;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libc::pollfd;
use smc_socket::{Ready, Stack};

use crate::bell::Bell;
use crate::epoll::bits;
use crate::instances;
use crate::process::{self, Process};
use crate::settings::SETTINGS;
use crate::sock::{Route, Sock, Stage, Watcher, end_of};
use crate::table::{self, File};
use smc_socket::few::{self, DEAF};
use smc_socket::spin::{LOOKS, PREEMPTED, Spin};

/// The kernel's poll, for so long (for ever: none); how many are ready.
pub(crate) type Kernel<'a> =
    &'a mut dyn FnMut(&mut [pollfd], Option<Duration>) -> io::Result<usize>;

/// How often this thread looks by itself at handshakes that nobody minds.
const TICK: Duration = Duration::from_millis(10);
/// How often the kernel is asked while this thread spins.
const ASK: Duration = Duration::from_micros(25);

/// This thread, as the connections know it.
#[derive(Debug)]
struct Waiter {
    bell: Bell,
    spin: Spin,
    process: u32,
}

impl Watcher for Waiter {
    fn settled(&self, _: Stage) {
        self.bell.ring();
    }

    fn ready(&self, _: Ready) {
        self.bell.ring();
    }

    fn closed(&self) {
        self.bell.ring();
    }
}

thread_local! {
    static OWN: RefCell<Option<Arc<Waiter>>> = const { RefCell::new(None) };
}

impl Waiter {
    /// This thread's; none in a signal handler that interrupted this very function.
    fn own() -> io::Result<Arc<Self>> {
        let process = std::process::id();
        let known = OWN.try_with(|own| own.try_borrow().ok().and_then(|own| own.clone()));
        let known = known.ok().flatten().filter(|own| own.process == process);
        if let Some(own) = known {
            return Ok(own);
        }
        if few::is_confined() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let new = Arc::new(Self { bell: Bell::new()?, spin: Spin::new(SETTINGS.spin), process });
        let _ = OWN.try_with(|own| own.try_borrow_mut().map(|mut own| *own = Some(new.clone())));
        Ok(new)
    }
}

/// One wait.
struct Wait<'a> {
    fds: &'a mut [pollfd],
    /// What is known about each; none: the kernel's.
    files: Vec<Option<Arc<File>>>,
    /// What the kernel is asked: its descriptors, then two of ours.
    asked: Vec<pollfd>,
    /// None: there was no descriptor for it.
    waiter: Option<Arc<Waiter>>,
    process: Option<Arc<Process>>,
    /// The minder goes on with handshakes meanwhile.
    is_minded: bool,
}

/// Whether the kernel alone can answer.
pub(crate) fn is_plain(fds: &[pollfd]) -> bool {
    // Looked at afterwards: an instance that gets a connection meanwhile sees the one or this call the other.
    fds.iter().for_each(|fd| instances::nest(fd.fd));
    fds.iter().all(|fd| !table::is_known(fd.fd))
}

/// Waits until some are ready; how many.
///
/// # Errors
/// EINTR, and what the kernel says.
pub(crate) fn wait(
    fds: &mut [pollfd],
    timeout: Option<Duration>,
    kernel: Kernel<'_>,
) -> io::Result<usize> {
    let end = end_of(timeout);
    let files: Vec<_> = fds.iter().map(|fd| table::get(fd.fd)).collect();
    for file in files.iter().flatten() {
        if let File::Epoll(instance) = &**file {
            instance.is_nested();
        }
    }
    let waiter = Waiter::own().ok();
    let (asked, process, is_minded) = (Vec::new(), process::existing(), true);
    let mut wait = Wait { fds, files, asked, waiter, process, is_minded };
    // One look without being a watcher: often something is there.
    let ready = wait.look(kernel)?;
    if ready > 0 || timeout == Some(Duration::ZERO) {
        return Ok(ready);
    }
    wait.join();
    let result = wait.until(end, kernel);
    wait.leave();
    result
}

impl Wait<'_> {
    fn stack(&self) -> Option<&Stack> {
        self.process.as_ref()?.stack.as_ref().filter(|stack| !stack.is_gone())
    }

    fn socks(&self) -> impl Iterator<Item = (&Arc<File>, &Sock)> {
        self.files.iter().flatten().filter_map(|file| match &**file {
            File::Sock(sock) => Some((file, sock)),
            File::Epoll(_) => None,
        })
    }

    fn join(&mut self) {
        // The look may have made it.
        self.process = process::existing();
        self.is_minded = process::is_minded();
        for (file, sock) in self.socks() {
            match self.watcher() {
                Some(watcher) => sock.add_watcher(file, watcher),
                None => process::mind(file, true),
            }
        }
    }

    fn leave(&self) {
        if let Some(watcher) = self.watcher() {
            self.socks().for_each(|(_, sock)| sock.remove_watcher(&watcher));
        }
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        let waiter = self.waiter.clone()?;
        Some(waiter)
    }

    fn until(&mut self, end: Option<Instant>, kernel: Kernel<'_>) -> io::Result<usize> {
        loop {
            let ready = self.look(kernel)?;
            let over = end.is_some_and(|end| end <= Instant::now());
            if ready > 0 || over {
                return Ok(ready);
            }
            if !self.spin(end, kernel)? {
                self.sleep(end, kernel)?;
            }
        }
    }

    /// Asks all; how many are ready.
    fn look(&mut self, kernel: Kernel<'_>) -> io::Result<usize> {
        if let Some(waiter) = &self.waiter {
            waiter.bell.clear();
        }
        if let Some(stack) = self.stack() {
            stack.dispatch();
        }
        let mut ready = 0;
        self.asked.clear();
        for (fd, file) in self.fds.iter_mut().zip(&mut self.files) {
            let ours = file.as_ref().and_then(|file| ours(file, fd.events));
            if ours.is_none() && matches!(file.as_deref(), Some(File::Sock(_))) {
                // It is TCP by now.
                *file = None;
            }
            fd.revents = ours.unwrap_or(0);
            ready += usize::from(fd.revents != 0);
            let number = if ours.is_some() { -1 } else { fd.fd };
            self.asked.push(pollfd { fd: number, events: fd.events, revents: 0 });
        }
        // A handshake that has ended meanwhile may have made it, or another after the daemon's return.
        let known = self.process.as_ref();
        if let Some(now) = known.map_or_else(process::existing, process::other_than) {
            self.process = Some(now);
        }
        if self.asked.iter().any(|fd| fd.fd >= 0) {
            ready += self.ask(Some(Duration::ZERO), kernel)?;
        }
        Ok(ready)
    }

    /// Asks the kernel about its own.
    fn ask(&mut self, timeout: Option<Duration>, kernel: Kernel<'_>) -> io::Result<usize> {
        kernel(&mut self.asked, timeout)?;
        let mut ready = 0;
        for (fd, asked) in self.fds.iter_mut().zip(&self.asked) {
            if asked.fd >= 0 {
                fd.revents = asked.revents;
                ready += usize::from(fd.revents != 0);
            }
        }
        Ok(ready)
    }

    /// Looks for a while; true: look at all again.
    fn spin(&mut self, end: Option<Instant>, kernel: Kernel<'_>) -> io::Result<bool> {
        let Some(waiter) = self.waiter.clone() else { return Ok(false) };
        let budget = waiter.spin.budget();
        if budget.is_zero() || self.stack().is_none() {
            return Ok(false);
        }
        let others = self.asked.iter().any(|fd| fd.fd >= 0);
        let start = Instant::now();
        let (mut asked, mut last) = (start, start);
        loop {
            for _ in 0..LOOKS / 8 {
                if let Some(stack) = self.stack() {
                    stack.dispatch();
                }
                if waiter.bell.has_rung() {
                    waiter.spin.paid();
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if others && now - asked >= ASK {
                asked = now;
                if self.ask(Some(Duration::ZERO), kernel)? > 0 {
                    return Ok(true);
                }
            }
            let preempted = now - last > PREEMPTED;
            last = now;
            if now - start >= budget || preempted || end.is_some_and(|end| end <= now) {
                waiter.spin.failed();
                return Ok(false);
            }
        }
    }

    /// Sleeps once; who calls looks at all again.
    fn sleep(&mut self, end: Option<Instant>, kernel: Kernel<'_>) -> io::Result<()> {
        let process = self.process.clone();
        let stack = process.as_ref().and_then(|process| process.stack.as_ref());
        let stack = stack.filter(|stack| !stack.is_gone());
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let unsettled = |(_, sock): (_, &Sock)| sock.stage() < Stage::Smc;
        let tick = (!self.is_minded && self.socks().any(unsettled)).then_some(TICK);
        let left = [left, tick, stack.and_then(Stack::next_timeout)].into_iter().flatten().min();
        let Some(waiter) = self.waiter.clone() else {
            return self.sleep_deaf(left, stack, kernel);
        };
        if !stack.is_none_or(Stack::prepare_sleep) {
            return Ok(());
        }
        let (mut said, mut rung) = (Ok(0), false);
        if waiter.bell.prepare_sleep() {
            self.asked.push(readable(waiter.bell.as_fd()));
            self.asked.extend(stack.map(|stack| readable(stack.wake_fd())));
            said = self.ask(left, kernel);
            rung = self.asked.get(self.fds.len() + 1).is_some_and(|fd| fd.revents != 0);
            waiter.bell.wake_up();
        }
        if let Some(stack) = stack {
            stack.wake_up(rung);
        }
        match said {
            // The process may not ask about so many descriptors.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.asked.truncate(self.fds.len());
                self.sleep_deaf(left, stack, kernel)
            }
            said => said.map(drop),
        }
    }

    /// Sleeps for a moment at most, without more descriptors than the program has asked about.
    fn sleep_deaf(
        &mut self,
        left: Option<Duration>,
        stack: Option<&Stack>,
        kernel: Kernel<'_>,
    ) -> io::Result<()> {
        let left = left.map_or(DEAF, |left| left.min(DEAF));
        let Some(stack) = stack.filter(|_| self.asked.iter().all(|fd| fd.fd < 0)) else {
            return self.ask(Some(left), kernel).map(drop);
        };
        if !stack.prepare_sleep() {
            return Ok(());
        }
        let mut device = [readable(stack.wake_fd())];
        let said = kernel(&mut device, Some(left));
        stack.wake_up(said.as_ref().is_ok_and(|ready| *ready > 0));
        said.map(drop)
    }
}

fn readable(fd: BorrowedFd<'_>) -> pollfd {
    pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// What a connection of ours is ready for of what was asked; none: the kernel knows.
fn ours(file: &Arc<File>, events: c_short) -> Option<c_short> {
    let File::Sock(sock) = &**file else { return None };
    let ready = match sock.route(file) {
        Route::Tcp => return None,
        Route::Pending => 0,
        Route::Late | Route::Smc(_) | Route::Ended | Route::Broken => bits(sock.readiness()),
    };
    let ready = c_short::try_from(ready & 0x7fff).unwrap_or(0);
    Some(ready & (events | libc::POLLERR | libc::POLLHUP))
}
