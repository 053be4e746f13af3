// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The launcher and its library, which cargo does not build for another package's tests.
//!
//! Invariant: they are of the sources that the test was built from.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `smc-run`, with `libsmc_preload.so` beside it.
///
/// # Panics
/// They cannot be built.
pub fn launcher() -> &'static Path {
    static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();
    LAUNCHER.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--release", "--package", "smc-preload"]);
        let status = build.current_dir(&root).status().expect("cargo runs");
        assert!(status.success(), "smc-preload cannot be built");
        target.join("release/smc-run")
    })
}
