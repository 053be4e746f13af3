// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask demo --host`: two processes of this host, the same programs over TCP and under
//! `smc-run`, in one run and without a VM.
//!
//! Invariant: it succeeds only if every case ran both ways, SMC-D carried what it should have, and no
//! connection fell back.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Error, Result, bail, ensure};
use ism_harness::Lab;

use super::report::Report;
use crate::figure::{Row, Transport};
use crate::host::proof::{Proof, Traffic};
use crate::host::{GRACE, Measured, Run, install, programs};

/// Bytes of the stream whose hash is compared.
const STREAM_BYTES: u32 = 32 << 20;
/// The case that has no figure.
const STREAM: &str = "stream";

type Case = (&'static str, &'static str, fn(&Run<'_>) -> Result<Measured>);

/// By name, with the unit.
const CASES: [Case; 4] = [
    ("sockperf-pp-14", "us", |run| programs::ping_pong(run, 14)),
    ("sockperf-tp-64000", "MB/s", |run| programs::throughput(run, 64_000)),
    ("iperf3", "Gbit/s", programs::iperf3),
    (STREAM, "", stream),
];

/// Measures, and what failed; the report has what did not.
pub(super) fn measure(seconds: u32) -> Result<(Report, Vec<Error>)> {
    install("sockperf=sockperf iperf3=iperf3 socat=socat")?;
    let lab = Lab::start()?;
    eprintln!("a daemon, discovery and a network namespace are up; TCP over its lo");
    let (mut rows, mut failures): (Vec<Row>, Vec<Error>) = (Vec::new(), Vec::new());
    let (mut all, mut intact) = (Proof::default(), true);
    for transport in [Transport::Tcp, Transport::SmcdUser] {
        for (case, unit, run) in CASES {
            let (proof, outcome) = Run::new(&lab, case, transport, seconds).proved(run);
            all.add(&proof);
            match outcome {
                Ok(_) if case == STREAM => {}
                Ok(value) => {
                    eprintln!("  {case:<20} {transport:<12} {value:>10.1} {unit}");
                    rows.push(Row { case, transport, value, unit });
                }
                Err(error) => {
                    intact &= case != STREAM;
                    eprintln!("  {case:<20} {transport:<12} {:>10}", "FAILED");
                    failures.push(error.context(format!("{case} over {transport}")));
                }
            }
        }
    }
    eprintln!("proof: over SMC-D, {}", all.words());
    let report = Report {
        accel: "none".to_owned(),
        mode: "mapped".to_owned(),
        nocopy: false,
        network: "lo of a network namespace".to_owned(),
        rows,
        smcd_connections: all.connections(),
        fallbacks: all.fallbacks(),
        sha256_equal: intact,
    };
    Ok((report, failures))
}

/// Random bytes through socat, whose SHA-256 is compared.
fn stream(run: &Run<'_>) -> Result<Measured> {
    let (port, sent, received) = (run.port, run.file("sent"), run.file("received"));
    let mut random = File::open("/dev/urandom")?.take(STREAM_BYTES.into());
    io::copy(&mut random, &mut File::create(&sent)?)?;
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr");
    let receiver = run.server(&format!("socat -u {listen} CREATE:{}", received.display()))?;
    run.client(&format!("socat -u FILE:{} TCP:127.0.0.1:{port}", sent.display()))?;
    receiver.finish(GRACE).context("socat's receiver")?;
    ensure!(
        sha256(&sent)? == sha256(&received)?,
        "the stream arrived with another SHA-256 than it was sent with"
    );
    Ok(Measured { value: 0.0, traffic: Traffic::of(STREAM_BYTES.into()) })
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").stdin(File::open(file)?).output()?;
    let sum = String::from_utf8(output.stdout)?;
    ensure!(sum.len() > 64, "sha256sum printed «{sum}»");
    Ok(sum)
}

/// Fails with every failure in words.
pub(super) fn verdict(failures: &[Error]) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = failures.iter().map(|failure| format!("- {failure:#}")).collect();
    bail!("{} of the cases failed:\n{}", failures.len(), words.join("\n"))
}
