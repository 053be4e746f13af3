// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program `smc-run` from outside, where no program is started.
//!
//! Invariant: its exit status is what its help says, by which a script knows whose it is.

use std::process::Command;

#[test]
fn wrong_options_are_2() {
    for (options, status) in [(&["-p", "x", "true"][..], 2), (&[], 2), (&["--help"], 0)] {
        let output = Command::new(env!("CARGO_BIN_EXE_smc-run")).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{options:?}: {output:?}");
    }
}
