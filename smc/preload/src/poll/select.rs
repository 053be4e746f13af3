// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `select(2)` by way of poll.
//!
//! Invariant: the sets are changed only when the wait has ended well, as the kernel does.

use std::ffi::{c_int, c_short, c_ulong};
use std::io;
use std::time::Duration;

use libc::{POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, pollfd};
use rustix::io::Errno;

use super::Kernel;

/// Descriptors in a word of a set.
pub(crate) const WORD: usize = c_ulong::BITS as usize;

/// The three sets, of the same length; empty ones are none.
pub(crate) struct Sets<'a> {
    /// How many descriptors are looked at.
    pub(crate) count: usize,
    /// To be read, written, and with an exceptional condition.
    pub(crate) sets: [&'a mut [c_ulong]; 3],
}

/// What each set asks poll for, and what of poll's answer is its own.
const EVENTS: [(c_short, c_short); 3] =
    [(POLLIN, POLLIN | POLLHUP | POLLERR), (POLLOUT, POLLOUT | POLLERR), (POLLPRI, POLLPRI)];

impl Sets<'_> {
    fn has(&self, set: usize, fd: usize) -> bool {
        let word = self.sets.get(set).and_then(|set| set.get(fd / WORD));
        word.is_some_and(|word| word >> (fd % WORD) & 1 != 0)
    }

    /// What is asked about each descriptor in a set.
    fn asked(&self) -> Vec<pollfd> {
        let words = self.count.div_ceil(WORD);
        let any =
            |word: usize| self.sets.iter().any(|set| set.get(word).is_some_and(|it| *it != 0));
        let words = (0..words).filter(|word| any(*word));
        let fds = words.flat_map(|word| word * WORD..((word + 1) * WORD).min(self.count));
        let ask = |fd: usize| {
            let of = |(set, (event, _)): (usize, &(c_short, c_short))| {
                if self.has(set, fd) { *event } else { 0 }
            };
            let events = EVENTS.iter().enumerate().map(of).fold(0, |all, event| all | event);
            let number = c_int::try_from(fd).unwrap_or(-1);
            (events != 0).then_some(pollfd { fd: number, events, revents: 0 })
        };
        fds.filter_map(ask).collect()
    }

    /// Whether the kernel alone can answer.
    pub(crate) fn is_plain(&self) -> bool {
        super::is_plain(&self.asked())
    }

    /// Waits until some are ready; how many bits are set then.
    ///
    /// # Errors
    /// EBADF, EINTR.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        kernel: Kernel<'_>,
    ) -> io::Result<usize> {
        let mut fds = self.asked();
        super::wait(&mut fds, timeout, kernel)?;
        if fds.iter().any(|fd| fd.revents & POLLNVAL != 0) {
            return Err(Errno::BADF.into());
        }
        let mut bits = 0;
        for (set, (event, answer)) in self.sets.iter_mut().zip(EVENTS) {
            set.fill(0);
            for fd in fds.iter().filter(|fd| fd.events & event != 0 && fd.revents & answer != 0) {
                let fd = usize::try_from(fd.fd).unwrap_or(usize::MAX);
                if let Some(word) = set.get_mut(fd / WORD) {
                    *word |= 1 << (fd % WORD);
                    bits += 1;
                }
            }
        }
        Ok(bits)
    }
}
