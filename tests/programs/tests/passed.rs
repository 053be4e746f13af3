// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that pass sockets on: by SCM_RIGHTS, and to programs that they execute without their environment.
//!
//! Invariant: nobody reads a byte of SMC's handshake.

use anyhow::{Context, Result, bail};
use ism_programs::{Lab, Network, compare, need, output, programs};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/passed.py");
/// How often a connection that is to be one of SMC is tried.
const TRIES: usize = 5;

#[test]
fn who_gets_a_socket_reads_what_was_sent() {
    need("python3", "python3");
    compare(|way| {
        let said = output(way.command("/usr/bin/python3").arg(PROGRAM))?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    });
}

#[test]
fn a_connection_in_use_is_not_passed_on_and_goes_on() -> Result<()> {
    need("python3", "python3");
    programs();
    Network::new()?.inside(|| {
        for _ in 0..TRIES {
            let lab = Lab::start()?;
            let said = output(lab.command("/usr/bin/python3").args([PROGRAM, "in-use"]));
            let log = lab.log();
            let said = said.with_context(|| log.clone())?;
            // On a busy machine the server may be late, and the connection TCP's.
            if log.contains(": SMC-D\n") {
                assert_eq!(String::from_utf8_lossy(&said), "True\n", "{log}");
                return Ok(());
            }
        }
        bail!("no connection was one of SMC")
    })?
}
