// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbered runs: run N of a seed is the same wherever it is run.
//!
//! Invariant: a case depends on the options and its number alone, and shrinks to a case that fails
//! too.

use proptest::prop_oneof;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::coverage::Coverage;
use crate::host::Setup;
use crate::script::{Step, failovers, scripts};
use crate::world::World;

/// Which cases.
#[derive(Debug, Clone, clap::Args)]
pub struct Selection {
    /// Where the random numbers begin.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Most steps of a script.
    #[arg(long, default_value_t = 80)]
    pub steps: usize,
    /// Nothing goes wrong but what applications do.
    #[arg(long)]
    pub no_faults: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self { seed: 1, steps: 80, no_faults: false }
    }
}

/// A world and what happens in it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The ends.
    pub setups: Vec<Setup>,
    /// Where the world's delays and losses begin.
    pub seed: u64,
    /// The script.
    pub script: Vec<Step>,
}

impl Case {
    /// Runs it; with `trace` it prints what happens.
    ///
    /// # Errors
    /// What was not as TCP would have it, in words.
    pub fn play(&self, coverage: &mut Coverage, trace: bool) -> Result<(), String> {
        let mut world = World::new(&self.setups, self.seed)?;
        world.trace = trace;
        let outcome = world.run(&self.script);
        coverage.add(world.coverage());
        outcome
    }
}

/// Cases of any kind.
pub fn cases(steps: usize, faults: bool) -> impl Strategy<Value = Case> {
    let seed = proptest::num::u64::ANY;
    let mixed = (Setup::any(), seed, scripts(steps, faults)).boxed();
    let links = (Setup::two_ports(), seed, failovers(steps)).boxed();
    let parts = if faults { prop_oneof![3 => mixed, 1 => links].boxed() } else { mixed };
    parts.prop_map(|(setups, seed, script)| Case { setups, seed, script })
}

/// Case number `run`, with all that is simpler.
///
/// # Errors
/// If no case can be made.
pub fn case(options: &Selection, run: u64) -> Result<impl ValueTree<Value = Case> + use<>, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&options.seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&run.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let tree = cases(options.steps, !options.no_faults).new_tree(&mut runner);
    tree.map_err(|reason| reason.to_string())
}

/// The simplest case below `tree` that still fails, and how; `why` is how `tree` fails.
pub fn shrink(tree: &mut impl ValueTree<Value = Case>, mut why: String) -> (Case, String) {
    let mut simplest = tree.current();
    let mut ignored = Coverage::default();
    for _ in 0..10_000 {
        let now = tree.current();
        let moved = match now.play(&mut ignored, false) {
            Err(error) => {
                (simplest, why) = (now, error);
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
