// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask`: the project's chores, as a newcomer and CI run them.
//!
//! Invariant: a chore says what it does, and fails when what it was asked to show is not shown.

mod bench;
mod demo;
mod figure;
mod host;
mod manual;
mod repo;
mod steps;
mod test;

use clap::{Parser, Subcommand};

/// The project's chores. Start with `cargo xtask demo`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Boot two VMs, or with --host start two processes, and compare TCP with SMC-D in one run.
    Demo(demo::Options),
    /// Measure the parts, in release builds.
    Bench(bench::Options),
    /// Run everything that CI runs: formatting, lints, licences, tests, fuzzing, VMs.
    Test(test::Options),
    /// Write man pages of all programs.
    Man(manual::Options),
    /// Write completions of all programs for bash, zsh and fish.
    Completions(manual::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().chore {
        Chore::Demo(options) => demo::demo(&options),
        Chore::Bench(options) => bench::bench(&options),
        Chore::Test(options) => test::test(&options),
        Chore::Man(options) => manual::man(options),
        Chore::Completions(options) => manual::completions(options),
    }
}
