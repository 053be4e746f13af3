// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask bench`: what the parts cost, measured in release builds.
//!
//! Invariant: the daemon that is measured is built from this checkout.

mod host;

use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::repo::{self, cargo};
use crate::steps::run;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// The device through the daemon: register, attach, move, signal to interrupt, and its rest.
    #[command(disable_help_flag = true)]
    Device {
        /// Options of the benchmark; `--help` shows them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// The SMC protocol: each message, a CDC round, a handshake, bytes of state, instructions.
    #[command(disable_help_flag = true)]
    Proto {
        /// Options of the benchmark; `--help` shows them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Programs between two processes: TCP, AF_UNIX, under smc-run, iceoryx2 and the machine's limit,
    /// on two cores, as root.
    Host(host::Options),
}

/// Builds and runs a benchmark.
pub(crate) fn bench(options: &Options) -> Result<()> {
    match &options.part {
        Part::Device { options } => device(options),
        Part::Proto { options } => proto(options),
        Part::Host(options) => host::host(options),
    }
}

fn device(options: &[String]) -> Result<()> {
    run(&mut cargo(&["build", "--quiet", "--release", "--package", "vhost-user-ism"]))?;
    run(program("bench-device")
        .args(options)
        .env("ISM_DAEMON", repo::target().join("release/vhost-user-ism")))
}

fn proto(options: &[String]) -> Result<()> {
    run(program("bench-proto").args(options))
}

/// Counts the protocol's instructions and compares them with the list in the repository.
pub(crate) fn instructions() -> Result<()> {
    valgrind()?;
    proto(&["--check".to_owned()])
}

/// Installs valgrind if it is not there and may be, else says how.
fn valgrind() -> Result<()> {
    let script = "set -euo pipefail; . qemu-scripts/lib.sh; host_tools valgrind=valgrind";
    run(Command::new("bash").args(["-c", script]).current_dir(repo::root()))
        .context("the protocol's instructions are counted with valgrind")
}

fn program(name: &str) -> Command {
    let options = ["run", "--quiet", "--release", "--package", "ism-bench", "--bin"];
    let mut command = cargo(&options);
    command.args([name, "--"]);
    command
}
