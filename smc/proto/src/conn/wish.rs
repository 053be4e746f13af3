// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a connection wants done.
//!
//! Invariant: wishes are carried out in the order in which they come; bytes are written before the
//! CDC that publishes them, and an urgent byte is fetched before the CDC that gives its place back.

use std::ops::{BitOr, BitOrAssign};

use smc_wire::cdc;

/// Something that the owner of a connection shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Read the byte at this offset of our ring and give it to `handle_urgent_byte`.
    FetchUrgent {
        /// Offset in our ring.
        at: u32,
    },
    /// Copy bytes of the send ring into the peer's ring.
    Write(Write),
    /// SMC-D: write the CDC area of the peer's DMB, all bytes of earlier [`Wish::Write`]s before it,
    /// then signal. If it cannot be done: `handle_gone(Gone::Unreachable)`.
    ///
    /// With plain stores, each of release order: the producer half, then the consumer half, which
    /// carries the flags. It is the order of addresses, in which Linux's one copy goes too.
    PublishSmcd(cdc::Smcd),
    /// SMC-R: post this message on the link that the earlier [`Wish::Write`]s were posted on. Its
    /// completion goes to `handle_completion` with the receipt.
    PublishSmcr(cdc::Smcr, Receipt),
    /// Whoever waits for one of these may look again.
    Wake(Ready),
    /// Shut down the TCP connection below.
    ShutdownTcp(How),
    /// Reset the TCP connection below (`tcp_abort`).
    AbortTcp,
    /// The rings are not touched any more: buffers and the TCP connection can go, and may be used
    /// again if [`is_ring_reusable`](super::Connection::is_ring_reusable). The last wish.
    Release,
}

/// Bytes to be copied, one piece in both rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Offset in the send ring.
    pub from: u32,
    /// Offset in the peer's ring, which begins 32 bytes behind the DMB's begin in SMC-D.
    pub to: u32,
    /// Bytes, at least 1.
    pub len: u32,
}

/// Names a posted CDC message until its completion (`struct smc_cdc_tx_pend`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Bytes ever sent, modulo 2^32, when the message was posted.
    pub(super) sent: u32,
    /// The message's sequence number.
    pub(super) seqno: u16,
    /// Counts the links that the connection was on.
    pub(super) link: u16,
}

/// Directions of a shutdown, as in `shutdown(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// SHUT_RD: local only.
    Read,
    /// SHUT_WR.
    Write,
    /// SHUT_RDWR.
    Both,
}

/// What a connection is ready for, as `poll(2)` sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready(u8);

impl Ready {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// Bytes or the end of the stream can be read: EPOLLIN.
    pub const READABLE: Self = Self(0x01);
    /// Bytes can be sent, or sending fails at once: EPOLLOUT.
    pub const WRITABLE: Self = Self(0x02);
    /// There is an urgent byte: EPOLLPRI; as a wake-up also SIGURG.
    pub const URGENT: Self = Self(0x04);
    /// There is an error: EPOLLERR.
    pub const ERROR: Self = Self(0x08);
    /// Both directions are over: EPOLLHUP.
    pub const HANG_UP: Self = Self(0x10);
    /// The peer sends no more: EPOLLRDHUP.
    pub const READ_CLOSED: Self = Self(0x20);

    /// Whether all of `other` are here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether this is nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// `self` if `on`.
    pub(super) const fn when(self, on: bool) -> Self {
        if on { self } else { Self::NOTHING }
    }
}

impl BitOr for Ready {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Wishes that are due, beside wake-ups: there is at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Due(u8);

impl Due {
    pub(super) const FETCH: Self = Self(0x01);
    pub(super) const VALIDATE: Self = Self(0x02);
    pub(super) const TRANSMIT: Self = Self(0x04);
    pub(super) const PUBLISH: Self = Self(0x08);
    pub(super) const SHUT_TCP_READ: Self = Self(0x10);
    pub(super) const SHUT_TCP_WRITE: Self = Self(0x20);
    pub(super) const ABORT_TCP: Self = Self(0x40);
    pub(super) const RELEASE: Self = Self(0x80);
    /// What goes to the peer.
    pub(super) const OUTBOUND: Self = Self(Self::VALIDATE.0 | Self::TRANSMIT.0 | Self::PUBLISH.0);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Removes `other` and says whether some of it was there.
    pub(super) const fn take(&mut self, other: Self) -> bool {
        let was = self.intersects(other);
        self.remove(other);
        was
    }
}
