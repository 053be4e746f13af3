// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a program hands in: the TCP connection, flags, observers.
//!
//! Invariant: plain values and traits; nothing here acts.

use std::os::fd::AsFd;

pub use smc_proto::conn::{How, Ready, SendFlags};

/// A TCP connection below a `Socket`: whatever owns its descriptor, or knows its number.
///
/// `as_fd` may be called from any thread until the engine drops the value, which it does in
/// `Socket::close`.
pub trait Tcp: AsFd + Send + Sync {}

impl<T: AsFd + Send + Sync> Tcp for T {}

/// Which side of the TCP connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It connected.
    Client,
    /// It was accepted.
    Server,
}

/// Flags of a receive, as `recvmsg(2)` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecvFlags {
    /// MSG_PEEK: the bytes stay.
    pub peek: bool,
    /// MSG_OOB: the urgent byte that is kept aside.
    pub oob: bool,
    /// MSG_TRUNC: the bytes are dropped instead of copied.
    pub discard: bool,
}

/// Told of each event of a socket, by the thread that found it; it holds no lock of this crate.
pub trait Observe: Send + Sync {
    /// `news` has happened, as edge-triggered epoll reports it: bytes came even if some were there,
    /// room came where there was none, an end, an error. `Socket::readiness` has the levels.
    ///
    /// Called after the handshake's end too, with what the socket is ready for then.
    fn ready(&self, news: Ready);
}

/// Whether some of `one` are in `other`.
pub(crate) fn meets(one: Ready, other: Ready) -> bool {
    let all = [
        Ready::READABLE,
        Ready::WRITABLE,
        Ready::URGENT,
        Ready::ERROR,
        Ready::HANG_UP,
        Ready::READ_CLOSED,
    ];
    all.into_iter().any(|it| one.contains(it) && other.contains(it))
}
