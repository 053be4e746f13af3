// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The atomics of the lock-free parts: loom's under `--cfg loom`, else the standard library's.
//!
//! Invariant: `area.rs`, `signal_page.rs` and `turn.rs` use no others, so loom sees every access. Run it with
//! `RUSTFLAGS="--cfg loom" cargo test -p smc-ring --test loom --release`.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
