// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes from the application's buffers into the peer's ring, and from ours into its buffers.
//!
//! Invariant: what is counted as sent is in the peer's ring, what is counted as received was copied
//! whole; nothing waits, nothing is allocated.

use std::io::{self, IoSlice, IoSliceMut};

use smc_proto::conn::SendFlags;
use smc_ring::Ring;

use crate::channel::Inner;
use crate::error;
use crate::tally::Tally;
use crate::types::RecvFlags;

/// Bytes after which the other side is told, so that it copies while this side does.
const PIECE: usize = 32 << 10;

/// Bytes of all buffers.
fn len_of<T: std::ops::Deref<Target = [u8]>>(buffers: &[T]) -> usize {
    buffers.iter().fold(0, |sum, buffer| sum.saturating_add(buffer.len()))
}

impl Inner<'_> {
    /// Sends what there is room for, without the first `skip` bytes.
    ///
    /// Nothing, after a `skip`, means an error that the next call will give.
    ///
    /// # Errors
    /// EAGAIN, EPIPE, ECONNRESET.
    pub(crate) fn send(
        &mut self,
        buffers: &[IoSlice<'_>],
        skip: usize,
        flags: SendFlags,
    ) -> io::Result<usize> {
        let wanted = len_of(buffers).saturating_sub(skip);
        let sent = self.send_bytes(buffers, skip, wanted, flags);
        let moved = *sent.as_ref().unwrap_or(&0);
        self.local.tally.sent(wanted, skip, moved);
        if moved < wanted {
            Tally::blocked(self.conn, wanted);
        }
        if flags.oob {
            self.local.tally.urgent();
        }
        sent
    }

    fn send_bytes(
        &mut self,
        buffers: &[IoSlice<'_>],
        skip: usize,
        wanted: usize,
        flags: SendFlags,
    ) -> io::Result<usize> {
        self.look();
        let mut sent = 0;
        loop {
            let room = match self.conn.send_room() {
                Ok(room) => room,
                Err(_) if sent + skip > 0 => return Ok(sent),
                Err(why) => return Err(self.send_error(why)),
            };
            let n = (room.total() as usize).min(wanted - sent).min(PIECE);
            if n == 0 {
                break;
            }
            let Some(ring) = self.far().map(|far| far.ring.len()) else { break };
            let (past_caches, timing) = self.local.pace.begin(n, ring);
            let Some(far) = self.far() else { break };
            let [first, _] = room.ranges();
            gather(&far.ring, first.start, buffers, skip + sent, n, past_caches);
            self.local.pace.end(n, ring, timing);
            sent += n;
            let last = sent == wanted;
            let flags = SendFlags { more: flags.more && last, oob: flags.oob && last };
            // A piece is at most the room, which is 32 bits.
            self.conn.commit(u32::try_from(n).unwrap_or(u32::MAX), flags);
            self.pump();
        }
        if sent == 0 && wanted > 0 { Err(error::would_block()) } else { Ok(sent) }
    }

    fn send_error(&mut self, why: smc_proto::conn::SendError) -> io::Error {
        match self.conn.take_error() {
            Some(_) => error::lost(),
            None => error::sending(why),
        }
    }

    /// Receives what is there, behind the first `skip` bytes of the buffers.
    ///
    /// Nothing means the end, or after a `skip` an error that the next call will give.
    ///
    /// # Errors
    /// EAGAIN, ECONNRESET; for an urgent byte EINVAL.
    pub(crate) fn recv(
        &mut self,
        buffers: &mut [IoSliceMut<'_>],
        skip: usize,
        flags: RecvFlags,
    ) -> io::Result<usize> {
        if flags.oob {
            return self.recv_urgent(buffers, flags.peek);
        }
        let wanted = len_of(buffers).saturating_sub(skip);
        let got = self.recv_stream(buffers, skip, wanted, flags);
        if !flags.peek {
            self.local.tally.received(skip, got);
        }
        if got > 0 || wanted == 0 {
            return Ok(got);
        }
        if self.conn.unread() == 0 {
            // Whoever has got something already gets the error by the next call.
            if skip > 0 && (self.conn.error().is_some() || self.conn.is_read_shut()) {
                return Ok(0);
            }
            if self.conn.take_error().is_some() {
                return Err(error::lost());
            }
            if self.conn.is_read_shut() {
                return Ok(0);
            }
        }
        Err(error::would_block())
    }

    fn recv_stream(
        &mut self,
        buffers: &mut [IoSliceMut<'_>],
        skip: usize,
        wanted: usize,
        flags: RecvFlags,
    ) -> usize {
        let (mut got, mut looked) = (0, false);
        while got < wanted {
            let peeked = if flags.peek { u32::try_from(got).unwrap_or(u32::MAX) } else { 0 };
            let there = self.conn.readable(peeked);
            if (there.total() as usize) < wanted - got && !looked {
                looked = true;
                self.look();
                continue;
            }
            let n = (there.total() as usize).min(wanted - got).min(PIECE);
            if n == 0 {
                break;
            }
            if !flags.discard {
                let [first, _] = there.ranges();
                scatter(&self.channel.ring, first.start, buffers, skip + got, n);
            }
            got += n;
            if !flags.peek {
                self.conn.consume(u32::try_from(n).unwrap_or(u32::MAX));
                self.pump();
                if self.conn.is_at_mark() {
                    break;
                }
            }
        }
        got
    }

    #[cold]
    fn recv_urgent(&mut self, buffers: &mut [IoSliceMut<'_>], peek: bool) -> io::Result<usize> {
        self.local.tally.urgent();
        self.look();
        if self.conn.is_read_shut() && self.conn.unread() == 0 && self.conn.error().is_none() {
            if let Ok(byte) = self.conn.take_urgent(peek) {
                return Ok(put(buffers, byte));
            }
            return Ok(0);
        }
        let byte = self.conn.take_urgent(peek).map_err(error::urgent)?;
        Ok(put(buffers, byte))
    }
}

/// Puts one byte into the first buffer that has room.
fn put(buffers: &mut [IoSliceMut<'_>], byte: u8) -> usize {
    let first = buffers.iter_mut().find_map(|buffer| buffer.first_mut());
    first.map_or(0, |first| {
        *first = byte;
        1
    })
}

/// The place `n` bytes behind `at`.
fn behind(ring: &Ring, at: usize, n: usize) -> usize {
    let place = at + n;
    if place >= ring.len() { place - ring.len() } else { place }
}

/// Less than this of a buffer is not worth to go past the caches: it is few lines.
const PART: usize = 1 << 10;

/// Copies `n` bytes of the buffers, behind their first `skip`, into the ring at `at`.
#[inline]
fn gather(
    ring: &Ring,
    at: usize,
    buffers: &[IoSlice<'_>],
    mut skip: usize,
    n: usize,
    past_caches: bool,
) {
    let mut done = 0;
    for buffer in buffers {
        if skip >= buffer.len() {
            skip -= buffer.len();
            continue;
        }
        let part = buffer.get(skip..).unwrap_or_default();
        skip = 0;
        let part = part.get(..n - done).unwrap_or(part);
        // It is inside: the machine named the place, and at most a ring's length is copied.
        let at = behind(ring, at, done);
        let _ = match past_caches && part.len() >= PART {
            true => ring.write_past_caches(at, part),
            false => ring.write(at, part),
        };
        done += part.len();
        if done == n {
            return;
        }
    }
}

/// Copies `n` bytes of the ring from `at` into the buffers, behind their first `skip` bytes.
#[inline]
fn scatter(ring: &Ring, at: usize, buffers: &mut [IoSliceMut<'_>], mut skip: usize, n: usize) {
    let mut done = 0;
    for buffer in buffers {
        if skip >= buffer.len() {
            skip -= buffer.len();
            continue;
        }
        let end = buffer.len().min(skip + (n - done));
        let part = buffer.get_mut(skip..end).unwrap_or_default();
        skip = 0;
        // As in `gather`.
        let _ = ring.read(behind(ring, at, done), part);
        done += part.len();
        if done == n {
            return;
        }
    }
}
