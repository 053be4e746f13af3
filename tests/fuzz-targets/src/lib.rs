// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fuzz targets: functions that take any bytes, and panic if an invariant does not hold.
//!
//! Invariant: what a target does depends on its bytes only, so a corpus replays the same way under
//! the fuzzer and in `cargo test`. The daemon behind `vhost_user_stream` has threads, so there the
//! order of its work may differ, not what it is given.

pub mod bytes;
pub mod cdc;
pub mod clc;
pub mod control;
pub mod llc;
pub mod moves;
pub mod vhost_user_stream;

/// A target's name, as in fuzz/corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("cdc", cdc::run),
    ("clc", clc::run),
    ("control", control::run),
    ("llc", llc::run),
    ("moves", moves::run),
    ("vhost_user_stream", vhost_user_stream::run),
];
