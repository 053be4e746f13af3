// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random scripts over SMC-D, judged by what TCP would do.
//!
//! Invariant: a failure is shrunk, printed with its seed, and kept in proptest-regressions.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use smc_simulator::host::Setup;
use smc_simulator::script::{Step, scripts};
use smc_simulator::world::World;

fn run(setups: &[Setup], seed: u64, script: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new(setups, seed).map_err(TestCaseError::fail)?;
    world.run(script).map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 4000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            concat!(env!("CARGO_MANIFEST_DIR"), "/regressions/smcd.txt"),
        ))),
        ..ProptestConfig::with_cases(256)
    })]

    // row 45
    #[test]
    fn without_faults_every_byte_arrives(setups in Setup::any(), seed: u64, script in scripts(60, false)) {
        run(&setups, seed, &script)?;
    }

    #[test]
    fn with_faults_no_byte_is_wrong_and_nothing_stalls(
        setups in Setup::any(), seed: u64, script in scripts(80, true)
    ) {
        run(&setups, seed, &script)?;
    }
}
