// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What SMC-D is compared with besides sockets: the machine's limit, and iceoryx2.
//!
//! Invariant: on the same two cores as the sockets.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::case::Case;
use crate::host::{End, GRACE, Run, parse};
use crate::repo::{self, cargo};
use crate::steps::run;

/// In a workspace of its own.
const ICEORYX2: &str = "tests/iceoryx2/Cargo.toml";

/// What two threads that share memory reach, in the case's unit.
pub(super) fn limit(case: &Case, seconds: u32) -> Result<f64> {
    Ok(match case.name {
        "sockperf-pp-14" | "pp-14" => measure("ping-pong", 14, seconds)?,
        "msg-100" => 1e6 / measure("ping-pong", 100, seconds)?,
        "sockperf-tp-64000" => measure("two-copies", 64_000, seconds)?,
        // iperf3 writes 128 KiB at a time.
        "iperf3" => measure("two-copies", 128 << 10, seconds)? * 8.0 / 1e3,
        name => bail!("{name} has no limit"),
    })
}

fn measure(what: &str, bytes: u32, seconds: u32) -> Result<f64> {
    let mut command = Command::new(repo::target().join("release/bench-limit"));
    let output = command.args([what, &bytes.to_string(), &seconds.to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn folder() -> std::path::PathBuf {
    repo::target().join("iceoryx2")
}

/// Minutes the first time.
pub(super) fn build_iceoryx2() -> Result<()> {
    eprintln!("building iceoryx2's ping-pong (a minute or two the first time)");
    let options = ["build", "--release", "--quiet", "--locked", "--manifest-path", ICEORYX2];
    run(cargo(&options).arg("--target-dir").arg(folder()))
}

/// Half a round trip of 14 bytes, spinning, in µs.
pub(super) fn iceoryx2(run: &Run<'_>) -> Result<f64> {
    let program = folder().join("release/ism-iceoryx2").display().to_string();
    let name = format!("vhost-user-ism-{}-{}", std::process::id(), run.port);
    let answerer = run.spawn(End::Server, &format!("{program} answer {name}"))?;
    let output = run.client(&format!("{program} ask {name} {}", run.seconds))?;
    answerer.finish(GRACE)?;
    parse::iceoryx2(&output)
}
