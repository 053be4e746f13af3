// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sending and receiving as a blocking socket does.
//!
//! Invariant: what was moved before a time-out, a signal or an error is counted in the result, and the
//! error is given by the next call.

use std::io::{self, IoSlice, IoSliceMut};
use std::time::Duration;

use smc_proto::conn::SendFlags;

use crate::channel::Inner;
use crate::clock::Deadline;
use crate::error;
use crate::socket::Socket;
use crate::types::RecvFlags;

/// What has been moved, or else why not more.
fn partial(moved: usize, error: io::Error) -> io::Result<usize> {
    if moved > 0 { Ok(moved) } else { Err(error) }
}

impl Socket {
    /// Sends all bytes, for `timeout` at most (SO_SNDTIMEO).
    ///
    /// # Errors
    /// If nothing was sent: EAGAIN after the time, EINTR, EPIPE, ECONNRESET.
    pub fn transmit(
        &self,
        buffers: &[IoSlice<'_>],
        flags: SendFlags,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let wanted = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut deadline = None;
        let mut sent = 0;
        loop {
            match self.with(|inner| inner.send(buffers, sent, flags))? {
                Ok(n) => {
                    sent += n;
                    if sent >= wanted || n == 0 {
                        return Ok(sent);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return partial(sent, error),
            }
            let deadline = *deadline.get_or_insert_with(|| Deadline::after(timeout));
            let room = |inner: &mut Inner| inner.conn.send_room().is_ok_and(|it| !it.is_empty());
            let may_go_on = |inner: &mut Inner| room(inner) || inner.conn.send_room().is_err();
            match self.wait_until(deadline, may_go_on) {
                Ok(true) => {}
                Ok(false) => return partial(sent, error::would_block()),
                Err(error) => return partial(sent, error),
            }
        }
    }

    /// Receives at least one byte, or SO_RCVLOWAT of them, or with `all` (MSG_WAITALL) as many as there is
    /// room for; for `timeout` at most (SO_RCVTIMEO). Less at the stream's end and at an urgent mark.
    ///
    /// # Errors
    /// If nothing was received: EAGAIN after the time, EINTR, ECONNRESET.
    pub fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
        all: bool,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        if flags.oob {
            return self.recv(buffers, flags);
        }
        let mut deadline = None;
        let mut got = 0;
        let room: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        loop {
            let behind = if flags.peek { 0 } else { got };
            let (received, target, marked) = self.with(|inner| {
                let received = inner.recv(buffers, behind, flags);
                (received, inner.target(room, all, flags.peek), inner.conn.is_at_mark())
            })?;
            match received {
                Ok(n) => {
                    got = behind + n;
                    if n == 0 || got >= target || marked {
                        return Ok(got);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return partial(got, error),
            }
            let deadline = *deadline.get_or_insert_with(|| Deadline::after(timeout));
            let least = if flags.peek { target } else { 1 };
            match self.wait_until(deadline, |inner| inner.may_receive(least)) {
                Ok(true) => {}
                Ok(false) => return partial(got, error::would_block()),
                Err(error) => return partial(got, error),
            }
        }
    }
}

impl Inner {
    /// Bytes after which a receive is content. Bytes that are only peeked at stay in the ring, so there
    /// can be no more.
    fn target(&self, room: usize, all: bool, peek: bool) -> usize {
        let target = if all { room } else { room.min(self.low_water as usize) };
        if peek { target.min(self.ring.len()) } else { target }
    }

    /// Whether a receive would go on: there are so many bytes, or there will be no more.
    fn may_receive(&self, least: usize) -> bool {
        self.conn.unread() as usize >= least.max(1)
            || self.conn.is_read_shut()
            || self.conn.error().is_some()
    }
}
