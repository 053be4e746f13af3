// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Link groups, their buffers and SMC-D's events, from outside.
//!
//! Invariant: every test drives [`smc_proto::group::Groups`] by its public words only.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that does not get what it expects shall fail"
)]

mod buffers;
mod engine;
mod events;
mod members;
mod model;
mod steps;
