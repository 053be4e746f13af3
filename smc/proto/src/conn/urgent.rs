// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Urgent data: one byte that is told of ahead of the stream (RFC 7609, 4.7; `MSG_OOB`).
//!
//! Invariant: an urgent byte is in the stream's place where it was sent; unless the application wants
//! it inline, reading passes over it and it is kept aside.
//!
//! The sender lets nothing follow an urgent byte before the peer has consumed it
//! (`smc_connection.urg_tx_pend`), so at most one is in the ring. It says so with two flags:
//!
//! ```text
//!            some bytes before it wait for space      the byte is in the ring   the peer consumed it
//!  Staged ───────────── PENDING ──────────▶ Due ── PENDING, PRESENT ──▶ Sent ── PRESENT ──▶ None
//! ```
//!
//! Linux clears PRESENT after one CDC. SMC-D's area holds only the last one: if a CDC that merely
//! credits comes before the receiver has looked, the urgent byte ends up in the stream. So here it
//! stays set until the byte is consumed; a receiver looks at it only together with new bytes.

use smc_wire::cdc::{Cursor, ProducerFlags};

use super::cursor::Ring;
use super::error::NoUrgent;

/// The urgent byte that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Outgoing {
    /// There is none.
    #[default]
    None,
    /// It is in the send ring, the last byte there.
    Staged,
    /// It is in the peer's ring, not published yet.
    Due,
    /// It was published.
    Sent,
}

impl Outgoing {
    /// The flags of a CDC that is published now.
    pub(super) const fn flags(self) -> ProducerFlags {
        match self {
            Self::None => ProducerFlags::EMPTY,
            Self::Staged => ProducerFlags::URGENT_PENDING,
            Self::Due => ProducerFlags::URGENT_PENDING.union(ProducerFlags::URGENT_PRESENT),
            Self::Sent => ProducerFlags::URGENT_PRESENT,
        }
    }

    /// Follows a CDC that was published.
    pub(super) const fn published(&mut self) {
        if matches!(self, Self::Due) {
            *self = Self::Sent;
        }
    }
}

/// The urgent byte that the peer sent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// The cursor just past it.
    end: Cursor,
    /// No byte came behind it, so a flag that says it again says nothing new.
    is_last: bool,
    /// Bytes from the consumer cursor to just past it, 0 once it was passed.
    ahead: u32,
    /// The application wanted it in the stream when it came.
    inline: bool,
    /// It was the last thing passed: the stream is at the mark.
    at: bool,
    value: Value,
}

/// What is known of an urgent byte that is not in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Value {
    /// There is none or it was taken.
    #[default]
    Absent,
    /// The peer announced one.
    Announced,
    /// It is in the ring.
    InRing,
    /// It was fetched.
    Held(u8),
}

impl Mark {
    /// New bytes came behind the last mark.
    pub(super) const fn outdated(&mut self) {
        self.is_last = false;
    }

    /// Whether the mark that ends at `end` is known already.
    pub(super) fn is_at(&self, end: Cursor) -> bool {
        self.is_last && self.end == end
    }

    /// The last of `unread` bytes, which end at `end`, is urgent.
    ///
    /// A mark that was not passed yet gives way: its byte stays in the stream, as in TCP.
    pub(super) const fn arrived(&mut self, end: Cursor, unread: u32, inline: bool) {
        let value = if inline { Value::Absent } else { Value::InRing };
        *self = Self { end, is_last: true, ahead: unread, inline, at: false, value };
    }

    /// The peer said that urgent data will come.
    pub(super) const fn announced(&mut self) {
        if matches!(self.value, Value::Absent) && self.ahead == 0 {
            self.value = Value::Announced;
        }
    }

    /// The offset of the byte in the ring, also when bytes came behind it.
    pub(super) const fn offset(&self, ring: Ring) -> u32 {
        ring.retreat(self.end, 1).count
    }

    /// Takes the byte that was fetched.
    pub(super) const fn fetched(&mut self, byte: u8) {
        if matches!(self.value, Value::InRing) {
            self.value = Value::Held(byte);
        }
    }

    /// The byte for `recv(MSG_OOB)`; it stays if it is only peeked at.
    pub(super) const fn take(&mut self, peek: bool) -> Result<u8, NoUrgent> {
        match self.value {
            Value::Held(byte) => {
                if !peek {
                    self.value = Value::Absent;
                }
                Ok(byte)
            }
            Value::Announced => Err(NoUrgent::NotYet),
            Value::Absent | Value::InRing => Err(NoUrgent::Absent),
        }
    }

    /// Whether there is an urgent byte to be read, aside or in the stream.
    pub(super) const fn is_present(&self) -> bool {
        matches!(self.value, Value::Held(_)) || (self.inline && self.ahead > 0)
    }

    /// Whether the next byte of the stream is the one behind the urgent byte, or inline the urgent
    /// byte itself (`SIOCATMARK`).
    ///
    /// The kernel's skips the byte as soon as all before it was read and then says no.
    pub(super) const fn is_at_mark(&self) -> bool {
        if self.inline { self.ahead == 1 } else { self.at }
    }

    /// How many of `unread` bytes one read may give: it stops at the mark.
    pub(super) fn limit(&self, unread: u32) -> u32 {
        match (self.ahead, self.inline) {
            (0, _) => unread,
            (1, true) => 1,
            (ahead, _) => ahead - 1,
        }
    }

    /// Bytes of the ring that no read will give.
    pub(super) const fn hidden(&self) -> u32 {
        (self.ahead > 0 && !self.inline) as u32
    }

    /// Follows the consumer cursor, `n` bytes of the stream having been read, and says what of the
    /// mark was passed.
    pub(super) const fn consumed(&mut self, n: u32) -> Passed {
        if self.ahead == 0 {
            if n > 0 && self.at {
                self.at = false;
                self.value = Value::Absent;
            }
            return Passed::Nothing;
        }
        self.ahead -= n;
        match (self.ahead, self.inline) {
            (0, _) => Passed::Mark,
            (1, false) => {
                self.ahead = 0;
                self.at = true;
                Passed::MarkUnread
            }
            _ => Passed::Nothing,
        }
    }
}

/// What [`Mark::consumed`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// The mark is not passed, or was before.
    Nothing,
    /// The urgent byte was read in the stream.
    Mark,
    /// The urgent byte is next and must be passed over.
    MarkUnread,
}
