// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random scripts over SMC-D and SMC-R, judged by what TCP would do.
//!
//! Invariant: a failure is shrunk, printed, and kept in regressions/.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use smc_simulator::coverage::Coverage;
use smc_simulator::runs::{Case, cases};

fn run(case: &Case) -> Result<(), TestCaseError> {
    case.play(&mut Coverage::default(), false).map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 4000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            concat!(env!("CARGO_MANIFEST_DIR"), "/regressions/random.txt"),
        ))),
        ..ProptestConfig::with_cases(256)
    })]

    // row 45
    #[test]
    fn without_faults_every_byte_arrives(case in cases(60, false)) {
        run(&case)?;
    }

    #[test]
    fn with_faults_no_byte_is_wrong_and_nothing_stalls(case in cases(80, true)) {
        run(&case)?;
    }
}
