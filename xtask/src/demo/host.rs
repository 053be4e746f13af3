// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask demo --host`: two processes of this host, the same programs over TCP and under
//! `smc-run`, in one run and without a VM.
//!
//! Invariant: it succeeds only if every case ran both ways, SMC-D carried what it should have, and no
//! connection fell back.

mod cases;
mod lab;
mod proof;

use anyhow::{Error, Result, bail};

use super::report::{Report, Row, Transport};
use cases::{Case, Pair};
use lab::Lab;
use proof::Proof;

/// Measures, and what failed; the report has what did not.
pub(super) fn measure(seconds: u32) -> Result<(Report, Vec<Error>)> {
    let lab = Lab::start()?;
    eprintln!("a daemon, discovery and a network namespace are up; TCP over its lo");
    let (mut rows, mut failures): (Vec<Row>, Vec<Error>) = (Vec::new(), Vec::new());
    let (mut all, mut intact) = (Proof::default(), true);
    for transport in [Transport::Tcp, Transport::SmcdUser] {
        let pair = Pair { lab: &lab, transport, seconds };
        for case in Case::ALL {
            let (proof, outcome) = proved(&lab, transport, case, || pair.run(case));
            all.add(&proof);
            match outcome {
                Ok(Some(row)) => {
                    let Row { case, transport, value, unit } = row;
                    eprintln!("  {case:<20} {transport:<12} {value:>10.1} {unit}");
                    rows.push(row);
                }
                Ok(None) => {}
                Err(error) => {
                    intact &= case != Case::Stream;
                    eprintln!("  {:<20} {transport:<12} {:>10}", case.name(), "FAILED");
                    failures.push(error.context(format!("{} over {transport}", case.name())));
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

/// Runs a case and judges what carried it; what SMC-D's part was, and the figure.
fn proved(
    lab: &Lab,
    transport: Transport,
    case: Case,
    run: impl FnOnce() -> Result<cases::Measured>,
) -> (Proof, Result<Option<Row>>) {
    let before = lab.lo_bytes();
    let measured = run();
    let said = lab.said(transport, case.name());
    let lo = before.and_then(|before| Ok(lab.lo_bytes()?.saturating_sub(before)));
    let payload = measured.as_ref().map_or(0, |measured| measured.bytes);
    let proof = Proof::new(&said, payload, *lo.as_ref().unwrap_or(&0));
    let outcome = measured.and_then(|measured| {
        lo?;
        match transport {
            Transport::Tcp => proof.expect_tcp()?,
            _ => proof.expect_smcd()?,
        }
        Ok(measured.row)
    });
    let outcome = outcome.map_err(|error| proof.explain(error));
    // What TCP carried is no part of the proof.
    (if transport == Transport::Tcp { Proof::default() } else { proof }, outcome)
}

/// Fails with every failure in words.
pub(super) fn verdict(failures: &[Error]) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = failures.iter().map(|failure| format!("- {failure:#}")).collect();
    bail!("{} of the cases failed:\n{}", failures.len(), words.join("\n"))
}
