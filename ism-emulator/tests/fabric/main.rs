// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device model from outside, as a daemon sees it.
//!
//! Invariant: every test drives the fabric through [`world::World`], which checks each wish.

#![cfg(not(loom))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failing test may panic")]

mod board;
mod hostile;
mod life;
mod limits;
mod model;
mod moves;
mod plain;
mod random;
mod threads;
mod world;
