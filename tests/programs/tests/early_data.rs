// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that let TCP carry data with its handshake, or hide connections until there is some.
//!
//! Invariant: what the programs see is the same each way; which connections are SMC's is not.

use ism_programs::{compare, need, output};

// row 78: without a kernel
#[test]
fn fast_open_and_deferred_accept_are_as_ever() {
    need("python3", "python3");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/early_data.py");
    compare(|way| {
        let said = output(way.command("/usr/bin/python3").arg(program))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    });
}
