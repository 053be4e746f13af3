// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CDC of SMC-R: a 44-byte message on the connection's queue pair.
//!
//! Invariant: what Linux accepts is accepted, and no more of the message is looked at than Linux does:
//! 26 bytes.

use super::{ConnectionState, Cursor, ProducerFlags, TYPE};
use crate::Error;
use crate::id::AlertToken;

/// A CDC message (RFC 7609, A.4; `struct smc_cdc_msg`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Smcr {
    /// Number of the message on its connection, modulo 2^16; the first is 1.
    pub seqno: u16,
    /// Names the connection to the receiver.
    pub token: AlertToken,
    /// How far the sender has written the receiver's RMB.
    pub prod: Cursor,
    /// How far the sender has read its own RMB.
    pub cons: Cursor,
    /// What the sender says as a writer.
    pub flags: ProducerFlags,
    /// How far the sender has closed.
    pub state: ConnectionState,
}

const WHAT: &str = "CDC message";

impl Smcr {
    /// Bytes of the message.
    pub const LEN: usize = 44;

    /// Bytes that must have been received; the rest is reserved (`smc_cdc_rx_handler`).
    pub const MIN_RECEIVED: usize = 26;

    /// The message that tells the peer of a move to another link: the last sequence number that was
    /// completed and no cursors (`smcr_cdc_msg_send_validation`).
    pub const fn validation(seqno: u16, token: AlertToken) -> Self {
        Self {
            seqno,
            token,
            prod: Cursor::START,
            cons: Cursor::START,
            flags: ProducerFlags::FAILOVER_VALIDATION,
            state: ConnectionState::EMPTY,
        }
    }

    /// Reads a received message.
    ///
    /// # Errors
    /// [`Error::Short`] below 26 bytes, [`Error::Field`] if it is no CDC or its length field is not
    /// 44. Linux drops such messages silently.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let Some(head) = bytes.first_chunk::<{ Self::MIN_RECEIVED }>() else {
            return Err(Error::Short { what: WHAT, need: Self::MIN_RECEIVED, have: bytes.len() });
        };
        // The whole layout in one pattern: this is parsed for every message of every connection.
        let [kind, len, s0, s1, t0, t1, t2, t3, rest @ ..] = *head;
        let [_, _, w0, w1, c0, c1, c2, c3, _, _, v0, v1, d0, d1, d2, d3, flags, state] = rest;
        if kind != TYPE {
            return Err(Error::Field { field: "cdc.type", value: kind.into(), allowed: "0xfe" });
        }
        if usize::from(len) != Self::LEN {
            return Err(Error::Field { field: "cdc.len", value: len.into(), allowed: "44" });
        }
        let cursor = |wrap, count| Cursor {
            wrap: u16::from_be_bytes(wrap),
            count: u32::from_be_bytes(count),
        };
        Ok(Self {
            seqno: u16::from_be_bytes([s0, s1]),
            token: AlertToken(u32::from_be_bytes([t0, t1, t2, t3])),
            prod: cursor([w0, w1], [c0, c1, c2, c3]),
            cons: cursor([v0, v1], [d0, d1, d2, d3]),
            flags: ProducerFlags(flags),
            state: ConnectionState(state),
        })
    }

    /// Writes the message and gives its length, 44.
    ///
    /// # Errors
    /// [`Error::Short`] if the buffer is smaller.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        let have = bytes.len();
        let Some(message) = bytes.first_chunk_mut::<{ Self::LEN }>() else {
            return Err(Error::Short { what: WHAT, need: Self::LEN, have });
        };
        let ([s0, s1], [t0, t1, t2, t3]) = (self.seqno.to_be_bytes(), self.token.0.to_be_bytes());
        let cursor = |cursor: Cursor| (cursor.wrap.to_be_bytes(), cursor.count.to_be_bytes());
        let ([w0, w1], [c0, c1, c2, c3]) = cursor(self.prod);
        let ([v0, v1], [d0, d1, d2, d3]) = cursor(self.cons);
        let (flags, state) = (self.flags.0, self.state.0);
        *message = [
            TYPE, 44, s0, s1, t0, t1, t2, t3, //
            0, 0, w0, w1, c0, c1, c2, c3, //
            0, 0, v0, v1, d0, d1, d2, d3, //
            flags, state, 0, 0, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        Ok(Self::LEN)
    }
}
