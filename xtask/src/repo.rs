// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where things are: the repository and the user's cache.
//!
//! Invariant: the same cache folder as qemu-scripts/lib.sh.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A cargo command that runs in the repository.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(root());
    command
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The project's folder in the user's cache; not created.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("VHOST_USER_ISM_CACHE") {
        return Ok(dir.into());
    }
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("no cache folder: set HOME, XDG_CACHE_HOME or VHOST_USER_ISM_CACHE")?;
    Ok(base.join("vhost-user-ism"))
}
