// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that send before anybody accepts: TCP waits for no accept, so nothing else may.
//!
//! Invariant: what the programs see is the same each way; which connections are SMC's is not.

use ism_programs::{compare, need, output};

// row 75: without a kernel
#[test]
fn what_is_sent_before_the_accept_arrives() {
    need("python3", "python3");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/late_accept.py");
    compare(|way| {
        let said = output(way.command("/usr/bin/python3").arg(program))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    });
}
