// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The TCP connection below: CLC messages in and out, how it ends.
//!
//! Invariant: never blocks, never raises SIGPIPE; takes exactly the bytes it is told to out of the
//! stream. System calls are made directly, so an interposed libc is not entered again.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use crate::clock;
use crate::types::Tcp;

/// Bytes looked at in one go: more than any CLC message has.
pub(crate) const LOOK: usize = 4096;

/// What is in front in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// So many bytes were copied.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The stream has ended or the connection is broken.
    End,
}

/// How the connection stands as seen from outside of SMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// As ever.
    Up,
    /// The peer's FIN has come.
    HalfClosed,
    /// Both directions are over.
    Closed,
    /// It was reset.
    Reset,
}

/// Looks at the bytes in front, which stay.
pub(crate) fn peek(tcp: impl AsFd, buffer: &mut [u8]) -> Front {
    match recv(tcp, buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Front::End,
        Ok((n, _)) => Front::Bytes(n),
        Err(Errno::AGAIN | Errno::INTR) => Front::Nothing,
        Err(_) => Front::End,
    }
}

/// Whether bytes have come, or the stream's end. As quick as a look at them, but it does not take the socket's lock,
/// for which the peer's bytes would wait.
pub fn has_come(tcp: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&tcp, PollFlags::IN | PollFlags::RDHUP)];
    poll(&mut fds, Some(&clock::timespec(std::time::Duration::ZERO))).is_ok_and(|ready| ready > 0)
}

/// Takes out `n` bytes that were peeked at. False if they are not there any more.
pub(crate) fn eat(tcp: impl AsFd, n: usize) -> bool {
    let mut buffer = [MaybeUninit::<u8>::uninit(); LOOK];
    let Some(buffer) = buffer.get_mut(..n) else { return false };
    recv(tcp, buffer, RecvFlags::DONTWAIT).is_ok_and(|(_, taken)| taken == n)
}

/// Writes what TCP takes now; how many bytes that is.
///
/// # Errors
/// The connection is broken.
pub(crate) fn write(tcp: &dyn Tcp, bytes: &[u8]) -> Result<usize, Errno> {
    match send(tcp, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        other => other,
    }
}

/// Shuts both directions down. It may be so already.
pub(crate) fn shut(tcp: &dyn Tcp) {
    let _ = shutdown(tcp, Shutdown::Both);
}

/// Resets the connection: the peer gets an RST. It may be over already.
pub(crate) fn reset(tcp: &dyn Tcp) {
    let _ = rustix::net::connect_unspec(tcp);
}

/// How the connection stands.
pub(crate) fn standing(tcp: &dyn Tcp) -> Standing {
    let mut fds = [PollFd::from_borrowed_fd(tcp.as_fd(), PollFlags::RDHUP)];
    let zero = clock::timespec(std::time::Duration::ZERO);
    match poll(&mut fds, Some(&zero)) {
        Ok(_) => Standing::of(fds.iter().fold(PollFlags::empty(), |all, fd| all | fd.revents())),
        Err(_) => Standing::Up,
    }
}

impl Standing {
    /// What poll says.
    pub(crate) fn of(flags: PollFlags) -> Self {
        if flags.intersects(PollFlags::ERR | PollFlags::NVAL) {
            Self::Reset
        } else if flags.contains(PollFlags::HUP) {
            Self::Closed
        } else if flags.contains(PollFlags::RDHUP) {
            Self::HalfClosed
        } else {
            Self::Up
        }
    }
}

/// The remote address; unspecified if it cannot be had.
pub(crate) fn peer_address(tcp: &dyn Tcp) -> IpAddr {
    let address = rustix::net::getpeername(tcp).ok().flatten();
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}
