// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! DMBs: where a connection's element lies in the peer's, and which connection a signal is for.
//!
//! Invariant: an element lies whole within the peer's DMB as far as its size is known, and always
//! within the 32 bits that `move_data` takes as offset.

use smc_wire::cdc::Smcd;
use smc_wire::id::DmbToken;
use smc_wire::size::BufferSize;

use crate::id::ConnId;

/// Our own DMB, as the device registered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Dmb {
    /// What the peer writes by.
    pub token: DmbToken,
    /// What the device's signals name it by (`sba_idx`).
    pub index: u16,
}

/// A connection's element in a peer's DMB, from Accept or Confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerElement {
    token: DmbToken,
    offset: u32,
    size: u32,
}

/// Why a peer's DMB cannot be what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// `dmbe_idx` × size is beyond what an offset can say.
    #[error("DMB element {index} of {size} bytes: ends beyond offset 2^32")]
    TooFar {
        /// The index that the peer sent.
        index: u8,
        /// Bytes of an element.
        size: u32,
    },
    /// The element ends beyond the DMB's end.
    #[error("DMB element {index} of {size} bytes: the DMB has {len}")]
    Outside {
        /// The index that the peer sent.
        index: u8,
        /// Bytes of an element.
        size: u32,
        /// Bytes of the DMB.
        len: u64,
    },
}

impl PeerElement {
    /// From `token`, `dmbe_size` and `dmbe_idx` of Accept or Confirm (`smcd_conn_save_peer_info`).
    ///
    /// # Errors
    /// [`ElementError::TooFar`] if it does not end within 2^32 bytes of offset; Linux does not look.
    pub fn new(token: DmbToken, size: BufferSize, index: u8) -> Result<Self, ElementError> {
        let bytes = size.bytes();
        let offset = u32::from(index).checked_mul(bytes);
        match offset {
            Some(offset) if offset.checked_add(bytes - 1).is_some() => {
                Ok(Self { token, offset, size: bytes })
            }
            _ => Err(ElementError::TooFar { index, size: bytes }),
        }
    }

    /// Checks the element against the length of the DMB, for a device that knows it (an attached
    /// one). Linux never compares them, and a mapped sender would write beyond the mapping.
    ///
    /// # Errors
    /// [`ElementError::Outside`] if it ends beyond `len`.
    pub fn within(self, len: u64) -> Result<Self, ElementError> {
        if u64::from(self.offset) + u64::from(self.size) <= len {
            return Ok(self);
        }
        let index = u8::try_from(self.offset / self.size).unwrap_or(u8::MAX);
        Err(ElementError::Outside { index, size: self.size, len })
    }

    /// What to write by.
    pub const fn token(&self) -> DmbToken {
        self.token
    }

    /// Bytes from the DMB's begin to our CDC message.
    pub const fn cdc_offset(&self) -> u32 {
        self.offset
    }

    /// Bytes from the DMB's begin to the ring.
    pub const fn ring_offset(&self) -> u32 {
        self.offset + Smcd::BYTES
    }

    /// Bytes of the ring: the element without the CDC message.
    pub const fn ring_len(&self) -> u32 {
        self.size - Smcd::BYTES
    }
}

/// Which connection each DMB of one device belongs to (`smcd->conn[]`), for the device's signals.
///
/// It stands alone so that signals need not wait for whoever holds the link groups.
#[derive(Debug, Default)]
pub struct Indices {
    conns: Vec<Option<ConnId>>,
}

impl Indices {
    /// For a device with at most `max_dmbs` DMBs, up to 65 536.
    pub fn new(max_dmbs: usize) -> Self {
        Self { conns: vec![None; max_dmbs.min(1 << 16)] }
    }

    /// Says whose DMB `index` is from now on, nobody's with `None` (`smc_ism_set_conn`,
    /// `smc_ism_unset_conn`). False if the device has no such index.
    #[must_use]
    pub fn set(&mut self, index: u16, conn: Option<ConnId>) -> bool {
        let slot = self.conns.get_mut(usize::from(index));
        slot.map(|slot| *slot = conn).is_some()
    }

    /// Whom a signal for DMB `index` wakes; nobody for an index that is unused or too large.
    pub fn get(&self, index: u16) -> Option<ConnId> {
        self.conns.get(usize::from(index)).copied().flatten()
    }
}
