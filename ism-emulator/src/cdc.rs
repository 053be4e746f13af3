// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The check of SMC-D's CDC header in copied mode (option of a group).
//!
//! Invariant: a header that passes has both cursors inside the largest ring they can mean, so a
//! receiver that trusts them (net/smc/smc_cdc.c does) stays inside its buffers' bounds by each
//! cursor alone. What the check cannot see: the distance between the two cursors, because the
//! device does not know which DMB of the other direction belongs to the connection.

use ism_abi::{Field, MAX_DMB_LEN};

use crate::refusal::Refusal;

/// Bytes at a DMB's start that hold the header (net/smc/smc_cdc.h, struct smcd_cdc_msg).
const HEADER: u32 = 32;
/// `common.type`: SMC_CDC_MSG_TYPE.
const TYPE: u8 = 0xfe;
/// smc_cdc_producer_flags: its three reserved bits.
const PRODUCER_RESERVED: u8 = 0b0000_0111;
/// smc_cdc_conn_state_flags: its five reserved bits.
const STATE_RESERVED: u8 = 0b0001_1111;

/// A move that may touch a DMB's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CdcCheck {
    /// Where in the DMB the payload goes.
    pub(crate) offset: u32,
    /// Bytes of the DMB.
    pub(crate) dmb_len: u32,
}

impl CdcCheck {
    /// A payload of `len` bytes reaches into the header.
    pub(crate) fn applies(self, len: u32) -> bool {
        self.offset < HEADER && len > 0
    }

    /// Checks the whole payload of the move. Guests are little-endian, as this device's are: the
    /// header is in the byte order of the host that both share.
    ///
    /// # Errors
    /// [`Refusal::BadCdc`]: the payload reaches into the header and is not exactly a header that a
    /// correct peer writes.
    pub fn check(&self, payload: &[u8]) -> Result<(), Refusal> {
        if self.offset >= HEADER {
            return Ok(());
        }
        let header: [u8; HEADER as usize] = payload.try_into().map_err(|_| Refusal::BadCdc)?;
        let producer = Cursor::get(&header, 8).ok_or(Refusal::BadCdc)?;
        let consumer = Cursor::get(&header, 16).ok_or(Refusal::BadCdc)?;
        let starts_well = self.offset == 0 && header.starts_with(&[TYPE, 0, 0, 0, 0, 0, 0, 0]);
        // Linux sends both kinds of flags in the consumer's half only (smc_cdc.c,
        // smcd_cdc_msg_send). Bytes 24–31 are reserved and nobody's: drivers may agree on them.
        let flags_well = producer.flags == [0, 0]
            && consumer.flags.first().is_some_and(|f| f & PRODUCER_RESERVED == 0)
            && consumer.flags.last().is_some_and(|f| f & STATE_RESERVED == 0);
        let cursors_well = producer.count < self.dmb_len.saturating_sub(HEADER)
            && consumer.count < MAX_DMB_LEN - HEADER;
        if starts_well && flags_well && cursors_well { Ok(()) } else { Err(Refusal::BadCdc) }
    }
}

/// union smcd_cdc_cursor: le16 wrap, le32 count, producer flags, connection state flags.
struct Cursor {
    count: u32,
    flags: [u8; 2],
}

impl Cursor {
    fn get(header: &[u8], at: usize) -> Option<Self> {
        let count = Field::get(header.get(at + 2..)?)?;
        let flags = Field::get(header.get(at + 6..)?)?;
        Some(Self { count, flags })
    }
}
