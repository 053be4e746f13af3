// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two endpoints shake hands in memory.
//!
//! Invariant: a test's rows are those of the conformance checklist that it would fail for.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]
#![expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests may")]

mod choice;
mod craft;
mod endings;
mod fabric;
mod golden;
mod lies;
mod links;
mod losses;
mod offer;
mod pair;
mod random;
mod smcd;
mod smcr;
mod stand_in;
mod strangers;
mod tables;
mod withdrawn;
