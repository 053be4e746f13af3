// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ends of SMC in one process with a virtual clock, faults, and TCP's behaviour as the judge.
//!
//! Invariant: a run is a function of its set-up, script and seed; no time but the virtual one.
//!
//! | Module | What |
//! |---|---|
//! | [`script`] | what applications do and what goes wrong |
//! | [`model`] | what TCP would do |
//! | [`world`] | the ends, and time |
//! | `application`, `wishes`, `links` | the two sides of a socket library: calls, and the protocol's wishes |
//! | [`ism`], `roce` | the fabrics |
//! | [`coverage`] | what was seen |
//! | [`runs`] | numbered cases, and their shrinking |

mod application;
pub mod coverage;
pub mod host;
pub mod ism;
mod links;
pub mod model;
mod roce;
pub mod runs;
pub mod schedule;
pub mod script;
mod socket;
mod wishes;
pub mod world;
