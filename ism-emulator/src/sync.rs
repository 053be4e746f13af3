// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The atomics of the two lock-free parts: loom's under `--cfg loom`, else the standard library's.
//!
//! Invariant: `signals.rs` and `gate.rs` use no others, so loom sees every access. Run it with
//! `RUSTFLAGS="--cfg loom" cargo test -p ism-emulator --test loom --release`.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
