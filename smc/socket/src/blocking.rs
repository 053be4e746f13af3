// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sending and receiving as a blocking socket does.
//!
//! Invariant: what was moved before a time-out, a signal or an error is counted in the result, and the
//! error is given by the next call.

use std::io::{self, IoSlice, IoSliceMut};
use std::time::Duration;

use smc_proto::conn::SendFlags;

use crate::channel::{Channel, Inner};
use crate::clock::Deadline;
use crate::error;
use crate::socket::Socket;
use crate::spin::Spinning;
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
        let channel = self.channel()?;
        let wanted = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut sent = 0;
        let mut waiting: Option<Waiting<'_>> = None;
        loop {
            let (result, seen) = self.with(|inner| {
                let result = inner.send(buffers, sent, flags);
                let seen = inner.watch_if_blocked(&result);
                (result, seen)
            })?;
            match result {
                Ok(n) => {
                    sent += n;
                    if sent >= wanted || n == 0 {
                        return Ok(sent);
                    }
                }
                Err(error) if is_blocked(&error) => {}
                Err(error) => return partial(sent, error),
            }
            let waiting = waiting.get_or_insert_with(|| Waiting::begin(channel, timeout));
            match self.go_on(channel, waiting, seen, &mut |inner| inner.may_send()) {
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
        let channel = self.channel()?;
        let mut got = 0;
        let mut waiting: Option<Waiting<'_>> = None;
        let room: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        loop {
            let behind = if flags.peek { 0 } else { got };
            let (received, seen, target, marked) = self.with(|inner| {
                let received = inner.recv(buffers, behind, flags);
                let seen = inner.watch_if_blocked(&received);
                let target = inner.target(room, all, flags.peek);
                (received, seen, target, inner.conn.is_at_mark())
            })?;
            match received {
                Ok(n) => {
                    got = behind + n;
                    if n == 0 || got >= target || marked {
                        return Ok(got);
                    }
                }
                Err(error) if is_blocked(&error) => {}
                Err(error) => return partial(got, error),
            }
            let least = if flags.peek { target } else { 1 };
            let waiting = waiting.get_or_insert_with(|| Waiting::begin(channel, timeout));
            match self.go_on(channel, waiting, seen, &mut |inner| inner.may_receive(least)) {
                Ok(true) => {}
                Ok(false) => return partial(got, error::would_block()),
                Err(error) => return partial(got, error),
            }
        }
    }

    /// Waits until it may be worth to try again; false: the time is over.
    fn go_on(
        &self,
        channel: &Channel,
        waiting: &mut Waiting<'_>,
        seen: Option<(u64, u64)>,
        may: &mut dyn FnMut(&mut Inner<'_>) -> bool,
    ) -> io::Result<bool> {
        match seen {
            // Something was moved, and more may be there by now.
            None => self.wait_until(waiting.deadline, may),
            Some(seen) => {
                if waiting.spinning.until_changed(channel, seen, waiting.deadline) {
                    return Ok(true);
                }
                self.sleep(waiting.deadline, &mut |inner| {
                    inner.look();
                    may(inner)
                })
            }
        }
    }
}

/// A call that has begun to wait.
struct Waiting<'a> {
    deadline: Deadline,
    spinning: Spinning<'a>,
}

impl<'a> Waiting<'a> {
    fn begin(channel: &'a Channel, timeout: Option<Duration>) -> Self {
        Self { deadline: Deadline::after(timeout), spinning: channel.spin.begin() }
    }
}

fn is_blocked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl Inner<'_> {
    /// If nothing could be done: watches. What changes are compared with.
    fn watch_if_blocked(&mut self, result: &io::Result<usize>) -> Option<(u64, u64)> {
        result.as_ref().is_err_and(is_blocked).then(|| self.watch())
    }

    /// Whether a send would go on: there is room, or an error to be given.
    fn may_send(&mut self) -> bool {
        self.conn.send_room().map_or(true, |room| !room.is_empty())
    }

    /// Bytes after which a receive is content. Bytes that are only peeked at stay in the ring, so there
    /// can be no more, nor than the peer's SO_SNDBUF.
    fn target(&self, room: usize, all: bool, peek: bool) -> usize {
        let target = if all { room } else { room.min(self.common.low_water as usize) };
        match peek {
            true if self.peer_waits() => target.min(self.conn.unread() as usize),
            true => target.min(self.channel.ring.len()),
            false => target,
        }
    }

    /// Whether a receive would go on: there are so many bytes, or there will be no more.
    fn may_receive(&self, least: usize) -> bool {
        self.conn.unread() as usize >= least.max(1)
            || self.peer_waits()
            || self.conn.is_read_shut()
            || self.conn.error().is_some()
    }
}
