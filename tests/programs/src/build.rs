// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The programs below test, which cargo does not build for another package's tests.
//!
//! Invariant: they are of the sources that the test was built from.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with `smc-run`, `libsmc_preload.so` beside it, the daemon, `smc-discovery`,
/// `smcss` and `smcd`.
///
/// # Panics
/// They cannot be built.
pub fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--release"]);
        build.args(
            ["smc-preload", "vhost-user-ism", "smc-discovery-helper", "smc-tools"]
                .map(|it| format!("-p{it}")),
        );
        let status = build.current_dir(&root).status().expect("cargo runs");
        assert!(status.success(), "the programs cannot be built");
        target.join("release")
    })
}
