// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command lines of `smcss` and `smcd`; `--help`, man pages and completions are made from them.
//!
//! Invariant: what smc-tools accepts is accepted and means the same, but for what docs/smc-tools.md lists.

pub mod smcd;
pub mod smcss;
