// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Real programs, run three ways, whose results must be equal.
//!
//! Invariant: what a test started is gone when the test ends, however it ends.
//!
//! A test describes what the programs do as a function of a [`Way`]; [`compare`] runs it each way. Its
//! result is what must be equal: a checksum, a count, a text without times.

mod build;
mod container;
mod lab;
mod network;
pub mod nginx;
mod process;
mod way;

pub use build::programs;
pub use container::Container;
pub use lab::{Lab, USER};
pub use network::Network;
pub use process::{
    Running, accepted, need, output, output_of, run, unused_port, wait_for_port, wait_until,
};
pub use way::{Parts, Way, compare, compare_at_once, compare_but_late, compare_strictly, smc_ends};
