// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The repository's scripts and programs, made on demand.
//!
//! Invariant: progress goes to the user's terminal; only paths are captured.

use std::env;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The repository's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// A script of qemu-scripts.
pub(crate) fn script(name: &str) -> PathBuf {
    root().join("qemu-scripts").join(name)
}

/// The path that `qemu-scripts/get WHAT` prints; what is missing is made first.
pub(crate) fn get(what: &str) -> Result<PathBuf> {
    let output = Command::new(script("get"))
        .arg(what)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start qemu-scripts/get")?;
    if !output.status.success() {
        bail!("qemu-scripts/get {what} ended with {}; its message is above", output.status);
    }
    let paths = String::from_utf8(output.stdout).context("qemu-scripts/get printed no path")?;
    let path = paths.lines().last().context("qemu-scripts/get printed nothing")?;
    Ok(path.into())
}

/// The daemon's program: `$ISM_DAEMON`, or built in release mode.
pub(crate) fn daemon() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_daemon().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build_daemon() -> Result<PathBuf> {
    if let Some(path) = env::var_os("ISM_DAEMON") {
        return Ok(path.into());
    }
    eprintln!("building the daemon (release), if it is not built yet");
    Ok(build(&["vhost-user-ism"])?.join("vhost-user-ism"))
}

/// The folder with `smc-run`, the library beside it, the daemon, `smc-discovery`, `smcss` and `smcd`,
/// built from this checkout in release mode: cargo does not build them for another package.
///
/// # Errors
/// They do not build.
pub fn programs() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let packages = ["smc-preload", "vhost-user-ism", "smc-discovery-helper", "smc-tools"];
    let built = BUILT.get_or_init(|| {
        eprintln!("building {} (minutes the first time)", packages.join(", "));
        build(&packages).map_err(|error| format!("{error:#}"))
    });
    built.clone().map_err(anyhow::Error::msg)
}

/// Builds packages in release mode; the folder of their programs.
fn build(packages: &[&str]) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Who looks on sees how far it is.
    let quiet = (!std::io::stderr().is_terminal()).then_some("--quiet");
    let status = Command::new(cargo)
        .args(["build", "--release"])
        .args(quiet)
        .args(packages.iter().map(|name| format!("-p{name}")))
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("{} do not build: cargo build ended with {status}", packages.join(", "));
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    Ok(target.join("release"))
}
