// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CDC of SMC-D: the first 32 bytes of a DMB, which the peer writes.
//!
//! Invariant: numbers are in the host's order, as Linux has them; the flags that count are those of
//! the consumer half.

use super::{ConnectionState, Cursor, ProducerFlags, TYPE};
use crate::Error;
use crate::bytes::{Reader, Writer};

/// What a peer last wrote into the CDC area of a DMB (`struct smcd_cdc_msg`).
///
/// | Offset | Bytes | Field |
/// |---|---|---|
/// | 0 | 1 | type, 0xFE |
/// | 1 | 7 | reserved |
/// | [`Smcd::PROD_AT`] | 8 | producer half: wrap 2, count 4, two flag bytes that Linux leaves 0 |
/// | [`Smcd::CONS_AT`] | 8 | consumer half: wrap 2, count 4, producer flags, connection state |
/// | 24 | 8 | reserved |
///
/// The peer may write while this side reads. So the area is not parsed as bytes but as its two
/// halves, each of which must be one 8-byte load: [`Smcd::parse_halves`]. Linux writes all 32 bytes
/// with one signalled `move_data` ([`Smcd::emit`]); who shares the memory with the peer stores
/// [`Smcd::to_halves`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Smcd {
    /// How far the peer has written this DMB's ring.
    pub prod: Cursor,
    /// How far the peer has read the ring that this side writes.
    pub cons: Cursor,
    /// What the peer says as a writer.
    pub flags: ProducerFlags,
    /// How far the peer has closed.
    pub state: ConnectionState,
}

const WHAT: &str = "CDC area";

impl Smcd {
    /// Bytes of the area; the ring begins behind it.
    pub const LEN: usize = Self::BYTES as usize;

    /// [`Smcd::LEN`] as lengths and offsets of a DMB count.
    pub const BYTES: u32 = 32;

    /// Offset of the producer half.
    pub const PROD_AT: usize = 8;

    /// Offset of the consumer half.
    pub const CONS_AT: usize = 16;

    /// Takes the two halves, each read from the area with one 8-byte load.
    ///
    /// Nothing is checked: a new DMB's area is zero, and the type byte could not be read together
    /// with a half (Linux does not read it either: `smcd_cdc_rx_tsklet`).
    pub const fn parse_halves(prod: u64, cons: u64) -> Self {
        let (prod, ..) = split(prod);
        let (cons, flags, state) = split(cons);
        Self { prod, cons, flags: ProducerFlags(flags), state: ConnectionState(state) }
    }

    /// The halves `(prod, cons)`, each to be stored with one 8-byte store.
    pub const fn to_halves(&self) -> (u64, u64) {
        (join(self.prod, 0, 0), join(self.cons, self.flags.0, self.state.0))
    }

    /// Reads an area that nobody writes any more: a capture.
    ///
    /// # Errors
    /// [`Error::Short`] below 32 bytes, [`Error::Field`] if the type byte is not 0xFE, as in a DMB
    /// whose peer has not written yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(WHAT, bytes);
        let [kind, ..] = reader.array::<{ Self::PROD_AT }>()?;
        let prod = u64::from_ne_bytes(reader.array()?);
        let cons = u64::from_ne_bytes(reader.array()?);
        reader.take(Self::LEN - reader.position())?;
        if kind != TYPE {
            return Err(Error::Field { field: "cdc.type", value: kind.into(), allowed: "0xfe" });
        }
        Ok(Self::parse_halves(prod, cons))
    }

    /// Writes the whole area as Linux does and gives its length, 32.
    ///
    /// # Errors
    /// [`Error::Short`] if the buffer is smaller.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        let mut writer = Writer::new(WHAT, bytes);
        let (prod, cons) = self.to_halves();
        writer.put(&[TYPE, 0, 0, 0, 0, 0, 0, 0])?;
        writer.put(&prod.to_ne_bytes())?;
        writer.put(&cons.to_ne_bytes())?;
        writer.put(&[0; 8])?;
        Ok(writer.position())
    }
}

/// A half's cursor and its two flag bytes.
const fn split(half: u64) -> (Cursor, u8, u8) {
    let [w0, w1, c0, c1, c2, c3, flags, state] = half.to_ne_bytes();
    let cursor =
        Cursor { wrap: u16::from_ne_bytes([w0, w1]), count: u32::from_ne_bytes([c0, c1, c2, c3]) };
    (cursor, flags, state)
}

/// The inverse of [`split`].
const fn join(cursor: Cursor, flags: u8, state: u8) -> u64 {
    // Shifts, because compilers do not see that the bytes of an array are one number.
    let (wrap, count) = (cursor.wrap as u64, cursor.count as u64);
    let (flags, state) = (flags as u64, state as u64);
    if cfg!(target_endian = "little") {
        wrap | count << 16 | flags << 48 | state << 56
    } else {
        wrap << 48 | count << 16 | flags << 8 | state
    }
}
