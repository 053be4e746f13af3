// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections joined to one another, by the rules of the conformance checklist.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

mod close;
mod counts;
mod data;
mod failover;
mod hostile;
mod linux;
mod model;
mod states;
mod urgent;
mod world;
