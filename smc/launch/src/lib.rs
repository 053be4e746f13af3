// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Becoming a program with a library preloaded: what `smc-run` (`smc/preload`) and `smc_run` (`smc/kernel-run`) have in
//! common.
//!
//! Invariant: no process stays in between, and the environment is untouched but for what [`Start`] says.

#![forbid(unsafe_code)]

mod program;
mod start;

pub use start::Start;
