// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smc-simulator`: many random scripts, a report of what they covered, and the replay of one.
//!
//! Invariant: run N of a seed is the same in every invocation.

use std::process::ExitCode;

use clap::Parser;
use proptest::strategy::ValueTree;
use smc_simulator::coverage::Coverage;
use smc_simulator::runs::{self, case, shrink};

/// Runs random scripts of two or three ends of SMC against what TCP would do.
///
/// A script that fails is shrunk and printed; with its `--seed` and `--only` it is run again, and
/// with `--trace` each thing that happens is printed.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// How many scripts.
    #[arg(long, default_value_t = 1000)]
    runs: u64,
    /// Run this one of them only.
    #[arg(long, value_name = "RUN")]
    only: Option<u64>,
    /// Print all that happens in the simplest script that fails.
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    cases: runs::Selection,
}

/// Runs case number `run`; whether it went as TCP would have it.
fn play(options: &Options, run: u64, coverage: &mut Coverage) -> Result<bool, String> {
    let mut tree = case(&options.cases, run)?;
    let Err(why) = tree.current().play(coverage, false) else { return Ok(true) };
    let (simplest, why) = shrink(&mut tree, why);
    if options.trace {
        // It fails again, and says how.
        let _ = simplest.play(&mut Coverage::default(), true);
    }
    println!("run {run} of seed {}: {why}\n{simplest:#?}", options.cases.seed);
    Ok(false)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runs = options.only.map_or(0..options.runs, |only| only..only + 1);
    let mut coverage = Coverage::default();
    let mut failures = 0;
    for run in runs {
        match play(&options, run, &mut coverage) {
            Ok(went_well) => failures += u64::from(!went_well),
            Err(error) => {
                eprintln!("run {run}: no script: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{coverage}{failures} failures");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Options::command().debug_assert();
    }
}
