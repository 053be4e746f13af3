// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask demo`: two VMs (or two processes), the same programs over TCP and over SMC-D, in one
//! run.
//!
//! Invariant: it succeeds only if our device carried the SMC-D rows and nothing fell back.

mod cases;
mod host;
mod keep;
mod proof;
mod report;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use ism_harness::{Fabric, Mode, Net, Vm, VmSpec};

use crate::figure::{Row, Transport};
use crate::steps::check_writable;
use cases::Pair;
use proof::Proof;
use report::Report;

/// Socket buffers of SMC in the guests, in bytes. Linux's default of 64 KiB holds one message of
/// the throughput case; TCP's buffers grow by themselves to more than this.
const SMC_BUFFER: &str = "1048576";

/// What to show.
#[derive(Args)]
pub(crate) struct Options {
    /// Two processes of this host instead of VMs, under smc-run: half a minute, as root. Experimental.
    #[arg(long, conflicts_with_all = ["mode", "nocopy", "keep"])]
    host: bool,
    /// How the VMs exchange data.
    #[arg(long, value_enum, default_value_t = ModeOption::Mapped)]
    mode: ModeOption,
    /// Let senders write into the peer's buffer without copying first: for VMs that trust each
    /// other's kernels (spec/decisions/0003-nocopy-is-off.md). Mapped mode only.
    #[arg(long)]
    nocopy: bool,
    /// Seconds that each program measures.
    #[arg(long, default_value_t = 5, value_name = "N")]
    seconds: u32,
    /// Write the result as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave both VMs up afterwards, to type commands into.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeOption {
    /// Through memory that both VMs map.
    Mapped,
    /// The daemon copies; no memory is shared.
    Copied,
}

/// Runs the demo and prints the comparison.
pub(crate) fn demo(options: &Options) -> Result<()> {
    check_writable(options.json.as_deref())?;
    if options.host {
        let (report, failures) = host::measure(options.seconds)?;
        println!("\n{}", report.table());
        host::verdict(&failures)?;
        return write_json(&report, options);
    }
    let mode = match options.mode {
        ModeOption::Mapped => Mode::Mapped,
        ModeOption::Copied => Mode::Copied,
    };
    ensure!(
        !options.nocopy || matches!(options.mode, ModeOption::Mapped),
        "--nocopy needs --mode mapped: in copied mode there is no peer's buffer to write into"
    );
    let fabric = Fabric::new(mode).member("a", &["demo"]).member("b", &["demo"]).start()?;
    let net = Net::create()?;
    eprintln!("booting two VMs ({mode} mode; TCP over {})", net.describe());
    let specs = ["a", "b"].map(|name| {
        let spec = VmSpec::new(name).on(&fabric, &net).with(&["--smcbuf", SMC_BUFFER]);
        if options.nocopy { spec.with(&["--append", "ism.module=nocopy=1"]) } else { spec }
    });
    let [a, b] = Vm::boot(specs)?;
    eprintln!(
        "both are up, accelerator {}; SMC buffers {SMC_BUFFER} bytes{}",
        a.accel(),
        if options.nocopy { "; nocopy" } else { "" }
    );

    let report = measure(&a, &b, mode, &net, options);
    let report = match report {
        Ok(report) => report,
        Err(error) if options.keep => {
            eprintln!("the demo failed: {error:#}");
            keep::keep([&a, &b])?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    println!("\n{}", report.table());
    write_json(&report, options)?;
    if options.keep {
        keep::keep([&a, &b])?;
    }
    Ok(())
}

/// Writes the report where `--json` says.
fn write_json(report: &Report, options: &Options) -> Result<()> {
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(report)?;
        fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure(a: &Vm, b: &Vm, mode: Mode, net: &Net, options: &Options) -> Result<Report> {
    let mut rows: Vec<Row> = Vec::new();
    let mut intact = true;
    let start = Proof::take(a, b)?;
    for transport in [Transport::Tcp, Transport::SmcdKernel] {
        let pair = Pair { server: a, client: b, transport, seconds: options.seconds };
        let before = Proof::take(a, b)?;
        for case in [Pair::ping_pong, Pair::throughput, Pair::iperf3] {
            let row = case(&pair)?;
            eprintln!("  {:<20} {:<12} {:>10.1} {}", row.case, row.transport, row.value, row.unit);
            rows.push(row);
        }
        intact &= pair.stream_is_intact()?;
        let carried = Proof::take(a, b)?.since(&before);
        match transport {
            Transport::Tcp => carried.expect_no_smcd().context("the TCP rows")?,
            _ => carried.expect_smcd(options.nocopy).context("the SMC-D rows")?,
        }
    }
    ensure!(intact, "a stream arrived with another SHA-256 than it was sent with");
    let proof = Proof::take(a, b)?.since(&start);
    eprintln!("proof: {}", proof.words());
    Ok(Report {
        accel: a.accel().to_owned(),
        mode: mode.to_string(),
        nocopy: options.nocopy,
        network: net.describe().to_owned(),
        rows,
        smcd_connections: proof.connections(),
        fallbacks: proof.fallbacks(),
        sha256_equal: intact,
    })
}
