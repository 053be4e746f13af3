// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A socket: a TCP connection, its handshake, and after that an SMC connection or plain TCP again.
//!
//! Invariant: a method of the SMC connection on a socket that has none gives ENOTCONN and does nothing.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::time::Duration;

use smc_proto::conn::{How, LINGER, NotConnected, Ready, SendFlags};
use smc_proto::handshake::reason::{Failure, Reason};

use crate::channel::{Channel, Inner};
use crate::clock;
use crate::error;
use crate::home::Home;
use crate::shared::{Outcome, Shared};
use crate::tcp::Standing;
use crate::types::{Observe, RecvFlags, Role};

/// A socket of a [`Stack`](crate::Stack). Closed when dropped.
pub struct Socket {
    pub(crate) home: Home,
    pub(crate) shared: Arc<Shared>,
}

/// As many bytes as the smallest ring has.
const LEAST_BUFFER: u32 = 16 << 10;

/// How a handshake stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// It goes on: call again when TCP is readable.
    Pending,
    /// The connection is one of SMC.
    Smc,
    /// It goes on as plain TCP, all bytes of the application in their place.
    Tcp(Reason),
    /// It goes on as plain TCP and can be written, but not be read yet: what the peer may still say of
    /// the handshake has to be taken out first. Call [`Socket::advance`] when TCP is readable.
    Late(Reason),
    /// It was reset.
    Failed(Failure),
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl Socket {
    pub(crate) fn new(home: Home, shared: Arc<Shared>) -> Self {
        Self { home, shared }
    }

    /// Which side this is.
    pub fn role(&self) -> Role {
        self.shared.role
    }

    /// How the handshake stands, without going on with it.
    pub fn handshake(&self) -> Handshake {
        match self.shared.outcome() {
            None => Handshake::Pending,
            Some(Outcome::Smc(_)) => Handshake::Smc,
            Some(Outcome::Tcp(reason, word)) if word.is_over() => Handshake::Tcp(*reason),
            Some(Outcome::Tcp(reason, _)) => Handshake::Late(*reason),
            Some(Outcome::Failed(failure)) => Handshake::Failed(*failure),
        }
    }

    /// Changes who is told of events, [`Ready`] as they happen. As long as there is somebody, the peer
    /// signals each of its writes.
    pub fn observe(&self, observer: Option<Arc<dyn Observe>>) {
        let due = self.shared.set_observer(observer);
        self.home.follow(due, &self.shared);
    }

    #[inline]
    pub(crate) fn channel(&self) -> io::Result<&Channel> {
        self.shared.channel().ok_or_else(error::not_connected)
    }

    /// Runs `act` on the connection.
    #[inline]
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Inner<'_>) -> R) -> io::Result<R> {
        let acted = self.shared.act(self.channel()?, act);
        let (result, due) = acted.ok_or_else(error::would_block)?;
        self.home.follow(due, &self.shared);
        Ok(result)
    }

    // Data, without waiting

    /// Sends what there is room for.
    ///
    /// # Errors
    /// EAGAIN; EPIPE (SIGPIPE is the caller's to raise); ECONNRESET.
    #[inline]
    pub fn send(&self, buffers: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
        self.with(|inner| inner.send(buffers, 0, flags))?
    }

    /// Receives what is there; 0 at the stream's end.
    ///
    /// # Errors
    /// EAGAIN; ECONNRESET; EINVAL if there is no urgent byte.
    #[inline]
    pub fn recv(&self, buffers: &mut [IoSliceMut<'_>], flags: RecvFlags) -> io::Result<usize> {
        self.with(|inner| {
            let received = inner.recv(buffers, 0, flags);
            if received.is_err() {
                inner.command(|conn| conn.confirm());
            }
            received
        })?
    }

    /// What can be done without waiting. [`Ready::NOTHING`] during the handshake.
    pub fn readiness(&self) -> Ready {
        let look = |inner: &mut Inner<'_>| {
            inner.look();
            inner.readiness()
        };
        self.with(look).unwrap_or(Ready::NOTHING)
    }

    /// Tells the engine that poll has seen these events on the TCP connection: RDHUP, HUP, ERR.
    pub fn tcp_stands(&self, events: rustix::event::PollFlags) {
        self.home.tcp_stands(&self.shared, Standing::of(events));
    }

    // The end

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn shutdown(&self, how: How) -> io::Result<()> {
        let now = clock::now();
        let shut = self.with(|inner| inner.command(|conn| conn.shutdown(now, how, LINGER)))?;
        self.home.tell_others(&self.shared);
        shut.map_err(|NotConnected| error::not_connected())
    }

    /// `close(2)` of this process's last descriptor, which is the connection's end unless another process has it
    /// too; `linger` of zero resets the connection (SO_LINGER). Never
    /// blocks: what was sent is at the peer.
    ///
    /// The [`Tcp`](crate::Tcp) is dropped. If that does not close the TCP connection, the caller does.
    pub fn close(&self, linger: Option<Duration>) {
        if !self.shared.begin_close() {
            return;
        }
        if self.shared.outcome().is_none()
            && let Some(core) = self.home.own()
        {
            core.give_up(&self.shared);
        }
        let now = clock::now();
        let closed = self.with(|inner| {
            let seat = inner.channel.seat();
            if seat.is_alone() {
                // What came and was not read makes it a reset. The peer's last word must be signalled, as
                // nobody will look by himself.
                inner.unwatch();
                inner.command(|conn| {
                    if linger == Some(Duration::ZERO) {
                        conn.abort();
                    }
                    conn.close(now, linger.unwrap_or(LINGER));
                });
            }
            // After the commands: if this process is killed in between, others give them.
            seat.leave(seat.member().process());
        });
        // There is nothing to do for a socket of TCP.
        if self.shared.channel().is_some() && closed.is_err() {
            // Who is in the middle of it drops it after that.
            return self.shared.end_close();
        }
        self.shared.drop_tcp();
        self.home.take();
    }

    // Options and getters

    /// TCP_CORK.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn set_cork(&self, on: bool) -> io::Result<()> {
        self.with(|inner| inner.command(|conn| conn.set_cork(on)))
    }

    /// SO_SNDBUF: sends are taken as long as the peer has not read fewer bytes than this; 16 KiB at least, and more
    /// than a tenth of the ring of a peer that is a kernel.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn set_send_buffer(&self, bytes: u32) -> io::Result<()> {
        self.with(|inner| inner.limit_sending(bytes.max(LEAST_BUFFER)))
    }

    /// Sends what is held back, as setting TCP_NODELAY does.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn flush(&self) -> io::Result<()> {
        self.with(|inner| inner.command(|conn| conn.flush()))
    }

    /// SO_OOBINLINE.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn set_oob_inline(&self, on: bool) -> io::Result<()> {
        self.with(|inner| inner.command(|conn| conn.set_oob_inline(on)))
    }

    /// SO_RCVLOWAT: fewer bytes do not make the socket readable.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn set_low_water(&self, bytes: u32) -> io::Result<()> {
        self.with(|inner| {
            let ring = u32::try_from(inner.channel.ring.len()).unwrap_or(u32::MAX);
            inner.common.low_water = bytes.clamp(1, (ring / 2).max(1));
        })
    }

    /// FIONREAD: bytes that can be read.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn pending_in(&self) -> io::Result<u32> {
        self.with(|inner| {
            inner.look();
            inner.conn.unread()
        })
    }

    /// SIOCOUTQ: bytes that the peer has not read, as far as it has said.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn pending_out(&self) -> io::Result<u32> {
        self.with(|inner| {
            inner.look();
            inner.conn.unfinished()
        })
    }

    /// SIOCOUTQNSD: bytes that are held back.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn held_back(&self) -> io::Result<u32> {
        self.with(|inner| inner.conn.unsent())
    }

    /// SIOCATMARK.
    ///
    /// # Errors
    /// ENOTCONN.
    pub fn at_mark(&self) -> io::Result<bool> {
        self.with(|inner| {
            inner.look();
            inner.conn.is_at_mark()
        })
    }

    /// SO_ERROR: the error that nobody has been told yet.
    pub fn take_error(&self) -> Option<io::Error> {
        if let Some(Outcome::Failed(failure)) = self.shared.outcome() {
            return Some(error::handshake(*failure));
        }
        self.with(|inner| inner.conn.take_error()).ok().flatten().map(|_| error::lost())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close(None);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::{Config, Stack};
    use ism_client::loopback::Loopback;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_handshake_that_ends_while_the_program_closes_is_a_connection_that_is_closed() {
        let fabric = Loopback::new(0xFF02).unwrap();
        let stacks =
            [1, 2].map(|n| Stack::new(fabric.join([n; 16]).unwrap(), &Config::default()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let client = stacks[0].begin(Box::new(tcp), Role::Client, true);
        let tcp = listener.accept().unwrap().0;
        let server = stacks[1].begin(Box::new(tcp), Role::Server, true);
        while [client.advance(), server.advance()] != [Handshake::Smc; 2] {
            std::thread::yield_now();
        }
        // As in Socket::close, when another thread ends it after the look.
        client.home.own().unwrap().give_up(&client.shared);
        assert_eq!(stacks[0].sockets(), 1);
        assert_eq!(client.send(&[IoSlice::new(b"x")], SendFlags::default()).unwrap(), 1);
        client.close(None);
        let mut bytes = [0; 2];
        let mut receive = || {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            server.receive(&mut buffers, RecvFlags::default(), false, None).unwrap()
        };
        assert_eq!([receive(), receive()], [1, 0]);
        server.close(None);
        while stacks.iter().any(|stack| stack.sockets() > 0) {
            stacks.iter().for_each(Stack::dispatch);
        }
    }
}
