// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What an end posts on the board.
//!
//! Invariant: an entry has one form in bytes, and bytes of any other form are refused.

use super::Side;

/// One entry under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An end is here, on this side.
    Announce {
        /// The end's number, of its own choice.
        id: u64,
        /// Which of the two addresses is its own.
        side: Side,
    },
    /// An end sees one other, and will follow if that sees it.
    Accept {
        /// The end's number.
        id: u64,
        /// The other's.
        other: u64,
    },
    /// An end is not here any more, whether it has met another or not.
    Leave {
        /// The end's number.
        id: u64,
    },
}

/// Bytes that are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a board entry of kind {kind} with side {side} is not known; kinds 1 to 3 are, and sides 0 and 1"
)]
pub struct UnknownEntry {
    /// The first byte.
    pub kind: u8,
    /// The second byte.
    pub side: u8,
}

impl Entry {
    /// Bytes: kind (1: announce 1, accept 2, leave 3), side (1: low 0, high 1; 0 if it has none), 6 of 0, the end's
    /// number (8), the other's (8; 0 if it has none); big-endian.
    pub const LEN: usize = 24;

    /// The end that it is about.
    pub fn id(&self) -> u64 {
        match *self {
            Self::Announce { id, .. } | Self::Accept { id, .. } | Self::Leave { id } => id,
        }
    }

    /// As the board carries it.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let (kind, side, other) = match *self {
            Self::Announce { side: Side::Low, .. } => (1, 0, 0),
            Self::Announce { side: Side::High, .. } => (1, 1, 0),
            Self::Accept { other, .. } => (2, 0, other),
            Self::Leave { .. } => (3, 0, 0),
        };
        let [a, b, c, d, e, f, g, h] = self.id().to_be_bytes();
        let [i, j, k, l, m, n, o, p] = other.to_be_bytes();
        [kind, side, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// From the board, where any member may have posted anything.
    ///
    /// # Errors
    ///
    /// If it is of no known kind.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, UnknownEntry> {
        let [kind, side, _, _, _, _, _, _, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
        let id = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let other = u64::from_be_bytes([i, j, k, l, m, n, o, p]);
        match (kind, side) {
            (1, 0) => Ok(Self::Announce { id, side: Side::Low }),
            (1, 1) => Ok(Self::Announce { id, side: Side::High }),
            (2, 0) => Ok(Self::Accept { id, other }),
            (3, 0) => Ok(Self::Leave { id }),
            _ => Err(UnknownEntry { kind, side }),
        }
    }
}
