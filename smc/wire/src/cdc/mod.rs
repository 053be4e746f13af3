// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connection data control: the cursors and flags with which the two ends of a connection tell each
//! other how far they have written and read.
//!
//! Invariant: a parsed message says what the peer wrote and no more; whether its cursors are possible
//! is for the connection to judge.
//!
//! SMC-R sends a [`Smcr`] on the queue pair after each RDMA write (RFC 7609, A.4). SMC-D has no
//! messages: each end writes a [`Smcd`] into the first [`Smcd::LEN`] bytes of the peer's DMB
//! (`net/smc/smc_cdc.h`).

mod cursor;
mod flags;
mod smcd;
mod smcr;

pub use cursor::Cursor;
pub use flags::{ConnectionState, ProducerFlags};
pub use smcd::Smcd;
pub use smcr::Smcr;

/// The first byte of both forms (`SMC_CDC_MSG_TYPE`): no LLC message begins with it.
pub const TYPE: u8 = 0xFE;
