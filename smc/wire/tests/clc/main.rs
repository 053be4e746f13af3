// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CLC: tables of bytes that are or are not messages, and round trips of any message.
//!
//! Invariant: the tables count bytes by hand from `net/smc/smc_clc.h`, not by the code they test.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test's way to fail, and lengths of a few hundred bytes"
)]

mod answers;
mod frames;
mod proposals;
mod reserved;
mod round_trips;
mod samples;
mod strategies;
mod ueids;
mod words;
