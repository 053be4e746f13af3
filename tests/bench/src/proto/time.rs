// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Nanoseconds of a case.
//!
//! Invariant: a sample is the mean of a batch that is long against the clock, and the samples of a
//! case come from several rounds through all cases, so that no one disturbance hits them all.

use std::time::Duration;

use super::Case;
use crate::report::Row;

/// Rounds through all cases.
const ROUNDS: usize = 5;
/// What a batch takes at least.
const BATCH: Duration = Duration::from_micros(50);

/// Measures each of `cases` with `samples` samples in all.
pub fn measure(cases: &mut [Case], samples: usize) -> Vec<Row> {
    let each = samples.div_ceil(ROUNDS);
    let mut all: Vec<Vec<f64>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (case, samples) in cases.iter_mut().zip(&mut all) {
            let batch = batch(case);
            samples.extend((0..each).map(|_| nanoseconds(case, batch)));
        }
    }
    let row = |(case, samples): (&Case, _)| {
        let row = Row::of_samples(&*case.name, samples);
        match case.target {
            Some(target) => row.within(target),
            None => row,
        }
    };
    cases.iter().zip(all).map(row).collect()
}

/// Repetitions that take [`BATCH`]; also warms up.
fn batch(case: &mut Case) -> u32 {
    let mut batch = 1;
    while case.repeat(batch) < BATCH {
        batch *= 2;
    }
    batch
}

fn nanoseconds(case: &mut Case, batch: u32) -> f64 {
    case.repeat(batch).as_secs_f64() * 1e9 / f64::from(batch)
}
