// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smc-simulator`: many random scripts, a report of what they covered, and the replay of one.
//!
//! Invariant: run N of a seed is the same in every invocation.

use std::process::ExitCode;

use clap::Parser;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use smc_simulator::coverage::Coverage;
use smc_simulator::host::Setup;
use smc_simulator::script::{Step, scripts};
use smc_simulator::world::World;

/// Runs random scripts of two or three ends of SMC against what TCP would do.
///
/// A script that fails is shrunk and printed; `--seed` and `--only` run it again.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// How many scripts.
    #[arg(long, default_value_t = 1000)]
    runs: u64,
    /// Where the random numbers begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this one of them only.
    #[arg(long, value_name = "RUN")]
    only: Option<u64>,
    /// Most steps of a script.
    #[arg(long, default_value_t = 80)]
    steps: usize,
    /// Nothing goes wrong but what applications do.
    #[arg(long)]
    no_faults: bool,
}

type Case = (Vec<Setup>, u64, Vec<Step>);

/// A random case of `seed`, with all that is simpler.
fn case(options: &Options, run: u64) -> Result<impl ValueTree<Value = Case>, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&options.seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&run.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let seeds = proptest::num::u64::ANY;
    let cases = (Setup::any(), seeds, scripts(options.steps, !options.no_faults));
    cases.new_tree(&mut runner).map_err(|reason| reason.to_string())
}

fn play((setups, seed, script): &Case, coverage: &mut Coverage) -> Result<(), String> {
    let mut world = World::new(setups, *seed)?;
    let outcome = world.run(script);
    coverage.add(world.coverage());
    outcome
}

/// The simplest case below `tree` that still fails, and how.
fn shrink(tree: &mut impl ValueTree<Value = Case>, mut why: String) -> (Case, String) {
    let mut simplest = tree.current();
    let mut ignored = Coverage::default();
    for _ in 0..10_000 {
        let failed = play(&tree.current(), &mut ignored);
        let moved = match failed {
            Err(error) => {
                simplest = tree.current();
                why = error;
                tree.simplify()
            }
            Ok(()) => tree.complicate(),
        };
        if !moved {
            break;
        }
    }
    (simplest, why)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runs = options.only.map_or(0..options.runs, |only| only..only + 1);
    let mut coverage = Coverage::default();
    let mut failures = 0;
    for run in runs {
        let mut tree = match case(&options, run) {
            Ok(tree) => tree,
            Err(error) => {
                eprintln!("run {run}: no script: {error}");
                return ExitCode::FAILURE;
            }
        };
        if let Err(error) = play(&tree.current(), &mut coverage) {
            failures += 1;
            let (simplest, error) = shrink(&mut tree, error);
            println!("run {run} of seed {}: {error}\n{simplest:#?}", options.seed);
        }
    }
    println!("{coverage}{failures} failures");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
