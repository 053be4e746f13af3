// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two SMC-R link groups joined by simulated queue pairs.
//!
//! Invariant: no test waits: time is a number that the tests advance.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "a test that fails may panic"
)]

mod ending;
mod fabric;
mod failover;
mod first_contact;
mod host;
mod keys;
mod limits;
mod links;
mod random;
mod refused;
mod replay;
mod stream;
