// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The programs below test.
//!
//! Invariant: they are of the sources that the test was built from.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder with `smc-run`, `libsmc_preload.so` beside it, the daemon, `smc-discovery`,
/// `smcss` and `smcd`.
///
/// # Panics
/// They cannot be built.
pub fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| ism_harness::programs().expect("the programs build"))
}
