// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sending, receiving and shutting down, as the calls have it.
//!
//! Invariant: waits only where the call may; a connection that is TCP is left to TCP.

use std::ffi::c_int;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libc::{MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL};
use rustix::io::Errno;
use rustix::net::Shutdown;
use smc_socket::{How, RecvFlags, SendFlags, Socket};

use super::{Route, Sock, Stage};
use crate::table::File;
use crate::{process, signals};

/// What becomes of a call.
pub(crate) enum Answer<T> {
    /// This.
    Ours(io::Result<T>),
    /// It is the next library's.
    Theirs,
}

/// Bytes of a file that are read in one go.
const PIECE: usize = 64 << 10;
/// Up to here a buffer of this size does.
const PAGE: usize = 4 << 10;

/// The program has shut a direction during the handshake.
const SHUT_READ: u8 = 1;
const SHUT_WRITE: u8 = 2;

/// How long a send that must not wait does so for the handshake.
const MOMENT: Duration = Duration::from_millis(20);

/// Which of the two timeouts.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Receive = 0,
    Send = 1,
}

/// Runs a call that may wait; again after a signal whose handler wants that, as signal(7) has it.
fn restarted<T>(
    timeout: Option<Duration>,
    call: &mut dyn FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match call() {
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted
                    && timeout.is_none()
                    && signals::restart_calls() => {}
            result => return result,
        }
    }
}

/// Runs `act` with a buffer for pieces of a file of which `count` bytes are wanted: a page's worth is not to cost as much
/// as a large one does in making room.
fn with_room<R>(count: usize, act: impl FnOnce(&mut [u8]) -> R) -> R {
    if count <= PAGE { act(&mut [0; PAGE]) } else { act(&mut [0; PIECE]) }
}

impl Sock {
    pub(super) fn timeout(&self, side: Side) -> Option<Duration> {
        let [receive, send] = &self.timeouts;
        let timeout = match side {
            Side::Receive => receive,
            Side::Send => send,
        };
        Some(timeout.load(Ordering::Relaxed)).filter(|us| *us > 0).map(Duration::from_micros)
    }

    /// The connection if it is one of SMC, after its handshake's end.
    fn engine(&self, file: &Arc<File>, wait: bool, side: Side) -> Answer<&Socket> {
        // Who waits for its other end begins to look for it.
        let route =
            if wait && self.meeting().is_some() { Route::Pending } else { self.route(file) };
        let route = match route {
            Route::Pending if wait => {
                self.take_timeouts();
                let timeout = self.timeout(side);
                restarted(timeout, &mut || self.finish(file, timeout))
            }
            // TCP would take bytes at once, so the other end is given a moment.
            Route::Pending if matches!(side, Side::Send) => {
                self.finish(file, Some(MOMENT)).map_err(|error| match error.kind() {
                    // What does not wait is not interrupted.
                    io::ErrorKind::Interrupted => Errno::AGAIN.into(),
                    _ => error,
                })
            }
            Route::Pending => Err(Errno::AGAIN.into()),
            route => Ok(route),
        };
        let route = match route {
            Ok(Route::Late) if matches!(side, Side::Send) => return Answer::Theirs,
            Ok(Route::Late) if wait => {
                self.take_timeouts();
                let timeout = self.timeout(side);
                restarted(timeout, &mut || self.wait_for_word(file, timeout))
            }
            route => route,
        };
        match route {
            Ok(Route::Smc(engine)) => Answer::Ours(Ok(engine)),
            Ok(Route::Tcp) => Answer::Theirs,
            Ok(Route::Pending | Route::Late) => Answer::Ours(Err(Errno::AGAIN.into())),
            Ok(Route::Ended) => Answer::Ours(Err(Errno::PIPE.into())),
            Ok(Route::Broken) => Answer::Ours(Err(Errno::CONNRESET.into())),
            Err(error) => Answer::Ours(Err(error)),
        }
    }

    /// `recvmsg(2)` with these flags.
    pub(crate) fn receive(
        &self,
        file: &Arc<File>,
        buffers: &mut [IoSliceMut<'_>],
        flags: c_int,
    ) -> Answer<usize> {
        // An urgent byte is the application's, wherever it lies.
        let urgent = flags & MSG_OOB != 0 && self.stage() == Stage::Late;
        if flags & MSG_ERRQUEUE != 0 || urgent {
            return Answer::Theirs;
        }
        if self.is_noted(SHUT_READ) {
            return Answer::Ours(Ok(0));
        }
        let wait = !self.is_nonblocking() && flags & MSG_DONTWAIT == 0;
        let engine = match self.engine(file, wait, Side::Receive) {
            Answer::Ours(Ok(engine)) => engine,
            Answer::Ours(Err(_)) if self.stage() == Stage::Ended => return Answer::Ours(Ok(0)),
            Answer::Ours(Err(error)) => return Answer::Ours(Err(error)),
            Answer::Theirs => return Answer::Theirs,
        };
        let has = |flag| flags & flag != 0;
        let how = RecvFlags { peek: has(MSG_PEEK), oob: has(MSG_OOB), discard: has(MSG_TRUNC) };
        if !wait {
            return Answer::Ours(engine.recv(buffers, how));
        }
        let timeout = self.timeout(Side::Receive);
        let mut receive = || engine.receive(buffers, how, has(MSG_WAITALL), timeout);
        Answer::Ours(restarted(timeout, &mut receive))
    }

    /// `sendmsg(2)` with these flags.
    pub(crate) fn send(
        &self,
        file: &Arc<File>,
        buffers: &[IoSlice<'_>],
        flags: c_int,
    ) -> Answer<usize> {
        match self.send_on(file, buffers, flags) {
            Answer::Ours(Err(error)) if Errno::from_io_error(&error) == Some(Errno::PIPE) => {
                Answer::Ours(self.sent_in_vain(buffers))
            }
            answer => answer,
        }
    }

    /// A send after the peer has closed. As TCP's end has not yet heard of it, the first one is taken and
    /// lost, and the second meets the reset. One of nothing never hears of it.
    fn sent_in_vain(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = buffers.iter().map(|buffer| buffer.len()).sum();
        let shut = self.is_shut.load(Ordering::Relaxed);
        if !shut && (len == 0 || !self.was_vain.swap(true, Ordering::Relaxed)) {
            return Ok(len);
        }
        Err(Errno::PIPE.into())
    }

    fn send_on(&self, file: &Arc<File>, buffers: &[IoSlice<'_>], flags: c_int) -> Answer<usize> {
        if self.is_noted(SHUT_WRITE) {
            return Answer::Ours(Err(Errno::PIPE.into()));
        }
        let wait = !self.is_nonblocking() && flags & MSG_DONTWAIT == 0;
        let engine = match self.engine(file, wait, Side::Send) {
            Answer::Ours(Ok(engine)) => engine,
            Answer::Ours(Err(error)) => return Answer::Ours(Err(error)),
            Answer::Theirs => return Answer::Theirs,
        };
        // MSG_MORE holds nothing back, nor does TCP_CORK: TCP does so for 200 ms, and no longer than the process lives.
        let how = SendFlags { more: false, oob: flags & MSG_OOB != 0 };
        if !wait {
            return Answer::Ours(engine.send(buffers, how));
        }
        let timeout = self.timeout(Side::Send);
        Answer::Ours(restarted(timeout, &mut || engine.transmit(buffers, how, timeout)))
    }

    /// `sendfile(2)`: sends from what `read` copies out of the file at a distance from its start, at most
    /// `count` bytes.
    pub(crate) fn send_file(
        &self,
        file: &Arc<File>,
        count: usize,
        mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>,
    ) -> Answer<usize> {
        // The file is not touched before the connection is known to take bytes at all.
        match self.send(file, &[], 0) {
            Answer::Ours(Ok(_)) => {}
            other => return other,
        }
        with_room(count, |buffer| self.send_pieces(file, count, buffer, &mut read))
    }

    /// Sends what `read` copies into the buffer, piece by piece.
    fn send_pieces(
        &self,
        file: &Arc<File>,
        count: usize,
        buffer: &mut [u8],
        read: &mut dyn FnMut(&mut [u8], usize) -> io::Result<usize>,
    ) -> Answer<usize> {
        let mut sent = 0;
        while sent < count {
            let room = buffer.len().min(count - sent);
            let piece = buffer.get_mut(..room).unwrap_or_default();
            let there = match read(piece, sent) {
                Ok(0) => break,
                Ok(n) => piece.get(..n).unwrap_or_default(),
                Err(error) => return Answer::Ours(if sent > 0 { Ok(sent) } else { Err(error) }),
            };
            match self.send(file, &[IoSlice::new(there)], 0) {
                Answer::Ours(Ok(n)) => {
                    sent += n;
                    if n < there.len() {
                        break;
                    }
                }
                Answer::Ours(Err(_)) if sent > 0 => break,
                other => return other,
            }
        }
        Answer::Ours(Ok(sent))
    }

    /// `shutdown(2)`, which does not wait: during the handshake it is noted, and done at its end.
    pub(crate) fn shut(&self, file: &Arc<File>, how: c_int) -> Answer<()> {
        let how = match how {
            libc::SHUT_RD => How::Read,
            libc::SHUT_WR => How::Write,
            libc::SHUT_RDWR => How::Both,
            _ => return Answer::Ours(Err(Errno::INVAL.into())),
        };
        let mut route = self.route(file);
        if matches!(route, Route::Pending) {
            if self.stage() == Stage::Connecting {
                // TCP gives its connect up.
                return Answer::Theirs;
            }
            self.note_shut(how);
            // Nobody may wait for the handshake, nor have it looked after.
            process::mind(file, true);
            // If it has ended meanwhile, who ended it may not have seen the note.
            route = self.routed();
        }
        match route {
            Route::Smc(engine) => {
                if how != How::Read {
                    self.is_shut.store(true, Ordering::Relaxed);
                }
                Answer::Ours(engine.shutdown(how))
            }
            Route::Tcp | Route::Late => Answer::Theirs,
            Route::Pending => Answer::Ours(Ok(())),
            Route::Ended | Route::Broken => Answer::Ours(Err(Errno::NOTCONN.into())),
        }
    }

    fn note_shut(&self, how: How) {
        let bits = match how {
            How::Read => SHUT_READ,
            How::Write => SHUT_WRITE,
            How::Both => SHUT_READ | SHUT_WRITE,
        };
        if bits & SHUT_WRITE != 0 {
            self.is_shut.store(true, Ordering::Relaxed);
        }
        self.noted.fetch_or(bits, Ordering::AcqRel);
    }

    /// Whether the program has shut a direction before the handshake's end, which is still to come.
    fn is_noted(&self, bit: u8) -> bool {
        self.noted.load(Ordering::Acquire) & bit != 0 && self.stage() < Stage::Late
    }

    /// The handshake has just ended: does what was noted.
    pub(super) fn shut_as_noted(&self) {
        // Not only read: who notes after this sees the handshake's end.
        let noted = self.noted.fetch_or(0, Ordering::AcqRel);
        let (how, tcp) = match (noted & SHUT_READ != 0, noted & SHUT_WRITE != 0) {
            (false, false) => return,
            (true, false) => (How::Read, Shutdown::Read),
            (false, true) => (How::Write, Shutdown::Write),
            (true, true) => (How::Both, Shutdown::Both),
        };
        // The program was told that it is done: what fails now is what has ended by itself.
        match self.stage() {
            Stage::Smc => drop(self.smc().map(|engine| engine.shutdown(how))),
            Stage::Late | Stage::Tcp => drop(rustix::net::shutdown(&self.number, tcp)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_read_into_a_small_buffer_and_a_large_one_in_large_pieces() {
        for (count, room) in [(612, PAGE), (PAGE, PAGE), (PAGE + 1, PIECE), (8 << 20, PIECE)] {
            assert_eq!(with_room(count, |buffer| buffer.len()), room, "{count}");
        }
    }
}
