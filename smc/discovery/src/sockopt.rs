// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Marks sockets and asks about their peers, by the private socket options of `../bpf/discovery.bpf.c`.
//!
//! Invariant: without the program `smc-discovery` each call fails as on any unknown option, and changes nothing.
//!
//! Needs no privileges and no other file descriptor: one setsockopt before connect(2) or listen(2), one getsockopt
//! when the connection stands. A listener's mark is inherited by what it accepts. The mark says "the owner of this
//! socket speaks SMC": whoever passes it to a program that does not, by exec(3) or `SCM_RIGHTS`, takes it off first.

#![expect(
    unsafe_code,
    reason = "setsockopt and getsockopt of a level of our own: no safe crate has them"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use crate::rendezvous::Namespace;

/// The level of the options: "SMCd", no protocol's number.
pub const LEVEL: libc::c_int = 0x534d_4364;
/// setsockopt, a 32-bit 1 or 0: the socket's owner speaks SMC, or does not.
pub const MARK: libc::c_int = 1;
/// getsockopt, 32 bits: [`State`].
pub const STATE: libc::c_int = 2;

/// The size of both options' values.
const VALUE_LEN: libc::socklen_t = 4;
const _: () = assert!(size_of::<u32>() == 4, "the options' values");

/// The size of `SO_NETNS_COOKIE`'s.
const COOKIE_LEN: libc::socklen_t = 8;

/// What is known about a socket and its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(u32);

impl State {
    const MARKED: u32 = 0x1;
    const OFFERED: u32 = 0x2;
    const PEER: u32 = 0x4;
    const CONNECTED: u32 = 0x8;
    const LISTED: u32 = 0x10;

    /// The socket is marked, by itself or by the listener it came from.
    pub const fn is_marked(self) -> bool {
        self.0 & Self::MARKED != 0
    }

    /// The socket's SYN carried the option (of a client).
    pub const fn is_offered(self) -> bool {
        self.0 & Self::OFFERED != 0
    }

    /// The connection was established when the socket was marked, so [`peer_speaks_smc`](Self::peer_speaks_smc) is
    /// final.
    pub const fn is_connected(self) -> bool {
        self.0 & Self::CONNECTED != 0
    }

    /// The socket listens, and answers a SYN that carries the option with a SYN-ACK that does.
    pub const fn is_listening(self) -> bool {
        self.0 & Self::LISTED != 0
    }

    /// The peer's SYN or SYN-ACK carried the option, and this socket is marked.
    pub const fn peer_speaks_smc(self) -> bool {
        self.0 & (Self::MARKED | Self::PEER | Self::CONNECTED)
            == Self::MARKED | Self::PEER | Self::CONNECTED
    }
}

/// Marks a TCP socket: its owner speaks SMC. Before connect(2) or listen(2); on Linux 6.12 and newer, a listener also
/// later. Returns whether `smc-discovery` serves this socket; if not, nothing has changed.
///
/// # Errors
///
/// If `socket` is no socket.
pub fn mark(socket: impl AsFd) -> io::Result<bool> {
    set(socket, 1)
}

/// Takes the mark off. What was accepted or connected before keeps its own. Returns what [`mark`] returns.
///
/// # Errors
///
/// If `socket` is no socket.
pub fn unmark(socket: impl AsFd) -> io::Result<bool> {
    set(socket, 0)
}

/// Whether the peer of an established connection speaks SMC; `None` where `smc-discovery` does not serve this socket.
/// `Some(false)` for a connection that is not established, or whose socket was not marked in time.
///
/// A client that is told `true` was told so by the server's kernel for a marked listener: it may propose. A server
/// that is told `true` will see a proposal unless its SYN-ACK lost the option on the way, so it still looks at the
/// first bytes before it takes them for one.
///
/// # Errors
///
/// If `socket` is no socket.
pub fn peer_speaks_smc(socket: impl AsFd) -> io::Result<Option<bool>> {
    Ok(state(socket)?.map(State::peer_speaks_smc))
}

/// All that is known about a socket; `None` where `smc-discovery` does not serve it.
///
/// # Errors
///
/// If `socket` is no socket.
pub fn state(socket: impl AsFd) -> io::Result<Option<State>> {
    let mut value = 0_u32;
    let mut len = VALUE_LEN;
    // SAFETY: `value` and `len` are ours and live on; `len` is `value`'s size, beyond which nothing is written.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            LEVEL,
            STATE,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    // A kernel that answers with another size is not answering us.
    Ok(served(result)?.then_some(State(value)).filter(|_| len == VALUE_LEN))
}

/// The network namespace of a socket, for the [rendezvous](crate::rendezvous). Needs Linux 5.14.
///
/// # Errors
///
/// If `socket` is no socket, or the kernel has no `SO_NETNS_COOKIE` or does not say its `boot_id`.
pub fn namespace(socket: impl AsFd) -> io::Result<Namespace> {
    let mut cookie = 0_u64;
    let mut len = COOKIE_LEN;
    // SAFETY: `cookie` and `len` are ours and live on; `len` is `cookie`'s size, beyond which nothing is written.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Namespace { kernel: kernel()?, cookie })
}

/// The running kernel's `boot_id`.
fn kernel() -> io::Result<u128> {
    static KNOWN: OnceLock<u128> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let id =
        u128::from_str_radix(&boot_id.trim().replace('-', ""), 16).map_err(io::Error::other)?;
    Ok(*KNOWN.get_or_init(|| id))
}

fn set(socket: impl AsFd, value: u32) -> io::Result<bool> {
    // SAFETY: `value` is ours, lives on, and has the size that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            LEVEL,
            MARK,
            (&raw const value).cast(),
            VALUE_LEN,
        )
    };
    served(result)
}

/// Tells a kernel that does not know the option from a failure: which code it gives depends on the socket's family.
fn served(result: libc::c_int) -> io::Result<bool> {
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EINVAL) => Ok(false),
        _ => Err(error),
    }
}
