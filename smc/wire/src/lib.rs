// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC's messages, byte for byte: CLC, LLC, CDC and the TCP option.
//!
//! Invariant: a value that was parsed can be emitted, and gives the bytes it came from but for those
//! that are reserved; bytes that break a bound give an [`Error`], never a panic.
//!
//! Each message is a plain struct with `parse(&[u8]) -> Result<Self, Error>` and
//! `emit(&self, &mut [u8]) -> Result<usize, Error>`, the number of bytes written. Numbers are
//! big-endian but where Linux takes the host's order: LLC v2's `length_v2` and `num_rkeys`, and
//! SMC-D's CDC.
//!
//! | Module | What | Source |
//! |---|---|---|
//! | [`tcp_option`] | the option of SYN and SYN-ACK that says "I speak SMC" | RFC 7609, 3.1 |
//! | [`clc`] | the handshake over TCP: proposal, accept, confirm, decline | RFC 7609, A.2; `net/smc/smc_clc.h` |
//! | [`llc`] | SMC-R's link control | RFC 7609, A.3; `net/smc/smc_llc.c` |
//! | [`cdc`] | a connection's cursors and flags | RFC 7609, A.4; `net/smc/smc_cdc.h` |
//! | [`id`], [`size`] | what several of them carry | |

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod bytes;
pub mod cdc;
pub mod clc;
mod error;
pub mod id;
pub mod llc;
pub mod size;
pub mod tcp_option;

pub use error::Error;
