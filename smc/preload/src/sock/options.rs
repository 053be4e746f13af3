// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options and requests that concern the data, which TCP knows nothing of.
//!
//! Invariant: every option is set on the TCP socket as well, so what is read back, and what a fallback has,
//! is what was set.

use std::ffi::{c_int, c_ulong};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use smc_socket::Socket;

use super::calls::Side;
use super::{Answer, Route, Sock, Stage};
use crate::buffers;
use crate::table::File;
use crate::touched;

/// `SIOCOUTQNSD` of linux/sockios.h.
const SIOCOUTQNSD: c_ulong = 0x894b;
/// `SIOCATMARK` of asm-generic/sockios.h.
const SIOCATMARK: c_ulong = 0x8905;

fn micros(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1))
}

impl Sock {
    /// Takes over what was set on the TCP socket before.
    pub(super) fn take_options(&self, engine: &Socket) {
        self.take_timeouts();
        // It is off where it cannot be read, as with a new socket. This fails only without a connection.
        if touched::is_set(touched::URGENT) {
            let inline = sockopt::socket_oobinline(&self.number).unwrap_or(false);
            let _ = engine.set_oob_inline(inline);
        }
        if let Some(bytes) = buffers::low_water(self.number()) {
            self.low_water.store(bytes, Ordering::Relaxed);
        }
        let _ = engine.set_low_water(self.low_water.load(Ordering::Relaxed));
        self.take_send_buffer(engine);
    }

    fn take_send_buffer(&self, engine: &Socket) {
        if let Some(bytes) = buffers::send(self.number()) {
            // As above.
            let _ = engine.set_send_buffer(bytes);
        }
    }

    pub(super) fn take_timeouts(&self) {
        if !touched::is_set(touched::TIMEOUTS) {
            return;
        }
        let sides = [(Side::Receive, sockopt::Timeout::Recv), (Side::Send, sockopt::Timeout::Send)];
        for (side, which) in sides {
            let time = sockopt::socket_timeout(&self.number, which).ok().flatten();
            if let Some(timeout) = self.timeouts.get(side as usize) {
                timeout.store(micros(time), Ordering::Relaxed);
            }
        }
    }

    /// SO_LINGER, if it is on.
    pub(super) fn linger(&self) -> Option<Duration> {
        let may = touched::is_set(touched::LINGER);
        may.then(|| sockopt::socket_linger(&self.number).ok().flatten()).flatten()
    }

    /// Whether an option may be set at all: an upper layer protocol on TCP would miss the data.
    ///
    /// # Errors
    /// EOPNOTSUPP, as the kernel's SMC has it.
    pub(crate) fn may_set(&self, level: c_int, name: c_int) -> io::Result<()> {
        let is_ulp = (level, name) == (libc::IPPROTO_TCP, libc::TCP_ULP);
        if is_ulp && matches!(self.stage(), Stage::Late | Stage::Smc) {
            Err(Errno::OPNOTSUPP.into())
        } else {
            Ok(())
        }
    }

    /// An option was set on the TCP socket, to a number if it is one.
    pub(crate) fn was_set(&self, level: c_int, name: c_int, value: Option<c_int>) {
        let value = value.unwrap_or_default();
        let on = value != 0;
        if (level, name) == (libc::SOL_SOCKET, libc::SO_RCVLOWAT) {
            let bytes = u32::try_from(value).unwrap_or(u32::MAX).max(1);
            self.low_water.store(bytes, Ordering::Relaxed);
        }
        let Some(engine) = self.smc() else { return };
        // These fail only without a connection.
        let _ = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) => {
                self.take_timeouts();
                Ok(())
            }
            (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => {
                engine.set_low_water(self.low_water.load(Ordering::Relaxed))
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_SNDBUFFORCE) => {
                self.take_send_buffer(engine);
                Ok(())
            }
            (libc::SOL_SOCKET, libc::SO_OOBINLINE) => engine.set_oob_inline(on),
            _ => Ok(()),
        };
    }

    /// `SO_ERROR`, as getsockopt gives it.
    pub(crate) fn error(&self, file: &Arc<File>) -> Answer<c_int> {
        match self.route(file) {
            Route::Smc(engine) => {
                let error = engine.take_error().and_then(|error| error.raw_os_error());
                Answer::Ours(Ok(error.unwrap_or(0)))
            }
            Route::Broken => Answer::Ours(Ok(libc::ECONNRESET)),
            Route::Ended => Answer::Ours(Ok(0)),
            // Not even the program knows yet that TCP is connected.
            Route::Pending if self.stage() > Stage::Connecting => Answer::Ours(Ok(0)),
            Route::Pending | Route::Late | Route::Tcp => Answer::Theirs,
        }
    }

    /// `ioctl(2)` requests that ask for a number.
    pub(crate) fn number_of(&self, file: &Arc<File>, request: c_ulong) -> Answer<c_int> {
        let asked = [libc::FIONREAD, libc::TIOCOUTQ, SIOCOUTQNSD, SIOCATMARK];
        if !asked.contains(&request) {
            return Answer::Theirs;
        }
        let engine = match self.route(file) {
            Route::Smc(engine) => engine,
            Route::Tcp => return Answer::Theirs,
            Route::Late if request != libc::FIONREAD => return Answer::Theirs,
            Route::Pending | Route::Late | Route::Ended | Route::Broken => {
                return Answer::Ours(Ok(0));
            }
        };
        let number = match request {
            libc::FIONREAD => engine.pending_in(),
            libc::TIOCOUTQ => engine.pending_out(),
            SIOCOUTQNSD => engine.held_back(),
            _ => engine.at_mark().map(u32::from),
        };
        Answer::Ours(number.map(|number| c_int::try_from(number).unwrap_or(c_int::MAX)))
    }
}
