// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls whose end does not depend on what the other end does, and what becomes of what they took.
//!
//! Invariant: what the programs see is the same each way; which connections are SMC's is not.

use ism_programs::{compare, need, output};

#[test]
fn calls_end_and_options_count_as_with_tcp() {
    need("python3", "python3");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/calls.py");
    compare(|way| {
        let said = output(way.command("/usr/bin/python3").arg(program))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    });
}
