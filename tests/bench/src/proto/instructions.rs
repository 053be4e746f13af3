// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Instructions of a case, counted by valgrind, and what they were before.
//!
//! Invariant: only the case's own repetitions are counted, so that the counts are the same on each
//! run; one that grew by more than [`TOLERANCE`] is an error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::{Case, cases};

/// Growth that is not yet a regression, in percent: compilers and C libraries differ.
pub const TOLERANCE: u64 = 10;

/// Growth that never is: of the shortest cases 10 % is less than an instruction.
const SLACK: u64 = 4;

/// Repetitions that are counted.
const TIMES: u32 = 1000;

/// The function that valgrind looks for.
const COUNTED: &str = "*ism_bench::proto::measured*";

/// Instructions of each case, by name.
pub type Counts = BTreeMap<String, u64>;

/// Runs the case, in a process that valgrind watches.
///
/// # Errors
/// If no case has that name.
pub fn run(name: &str) -> Result<(), String> {
    let mut cases = cases()?;
    let case = cases.iter_mut().find(|case| case.name == name);
    let case = case.ok_or_else(|| format!("no case is called {name:?}"))?;
    case.repeat(TIMES);
    Ok(())
}

/// Counts every case's instructions with valgrind.
///
/// # Errors
/// If valgrind is missing or says something else than expected.
pub fn count() -> Result<Counts, String> {
    let program = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let count = |case: Case| count_one(&program, &case.name).map(|count| (case.name, count));
    cases()?.into_iter().map(count).collect()
}

fn count_one(program: &Path, case: &str) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(program)
        .args(["--instructions", case])
        .output()
        .map_err(|error| format!("valgrind (Debian package valgrind): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    match collected.map(|(_, count)| count.trim().parse::<u64>()) {
        Some(Ok(count)) if output.status.success() && count > 0 => Ok(count / u64::from(TIMES)),
        _ => Err(format!("{case}: valgrind counted nothing:\n{said}")),
    }
}

/// Compares `now` with `before`: a table of what changed by more than the tolerance, and whether
/// something grew, came or went.
pub fn compare(before: &Counts, now: &Counts) -> (String, bool) {
    let (mut table, mut bad) = (String::new(), false);
    let mut line = |case: &str, was: &str, is: &str, verdict: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(table, "{case:40} {was:>10} {is:>10}  {verdict}");
    };
    for (case, &is) in now {
        let Some(&was) = before.get(case) else {
            line(case, "-", &is.to_string(), "not in the list");
            bad = true;
            continue;
        };
        let slack = (was * TOLERANCE / 100).max(SLACK);
        if is > was + slack {
            line(case, &was.to_string(), &is.to_string(), "GREW");
            bad = true;
        } else if is + slack < was {
            line(case, &was.to_string(), &is.to_string(), "shrank: write the list again");
        }
    }
    for (case, was) in before.iter().filter(|(case, _)| !now.contains_key(*case)) {
        line(case, &was.to_string(), "-", "is no case");
        bad = true;
    }
    (table, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> Counts {
        counts.iter().map(|(case, count)| ((*case).to_owned(), *count)).collect()
    }

    #[test]
    fn growth_beyond_the_tolerance_is_bad() {
        let before = counts(&[("a", 1000), ("b", 10)]);
        for (a, b, expected) in [
            (1000, 10, false),
            (1100, 14, false),
            (1101, 10, true),
            (1000, 15, true),
            (1, 1, false),
        ] {
            let (table, bad) = compare(&before, &counts(&[("a", a), ("b", b)]));
            assert_eq!(bad, expected, "{table}");
        }
    }

    #[test]
    fn shrinking_is_told_and_good() {
        let (table, bad) = compare(&counts(&[("a", 1000)]), &counts(&[("a", 899)]));
        assert!(table.contains("shrank") && !bad);
    }

    #[test]
    fn the_lists_have_the_same_cases() {
        let (one, two) = (counts(&[("a", 1)]), counts(&[("a", 1), ("b", 1)]));
        assert!(compare(&one, &two).1 && compare(&two, &one).1);
    }
}
