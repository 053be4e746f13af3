// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask bench`: what the parts cost, measured in release builds.
//!
//! Invariant: the daemon that is measured is built from this checkout.

use anyhow::Result;
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
}

/// Builds and runs a benchmark.
pub(crate) fn bench(options: &Options) -> Result<()> {
    let Part::Device { options } = &options.part;
    run(&mut cargo(&["build", "--quiet", "--release", "--package", "vhost-user-ism"]))?;
    let program = ["--package", "ism-bench", "--bin", "bench-device", "--"];
    run(cargo(&["run", "--quiet", "--release"])
        .args(program)
        .args(options)
        .env("ISM_DAEMON", repo::target().join("release/vhost-user-ism")))
}
