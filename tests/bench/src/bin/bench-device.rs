// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `bench-device`: the device's costs without a VM, beside the machine's own, as a table and JSON.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ism_abi::mode::{COPIED, MAPPED};
use ism_bench::report::Report;
use ism_bench::{Effort, at_rest, bare, operations, signals};

/// Measures the daemon's device model through a vhost-user front-end.
#[derive(Parser)]
struct Options {
    /// Write the rows as JSON to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs of each operation
    #[arg(long, default_value_t = 5000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    runs: u32,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let options = Options::parse();
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-device: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        eprintln!("bench-device: built without optimisation; the figures are not the device's");
    }
    let runs = usize::try_from(options.runs)?;
    let effort = Effort { runs, slow_runs: (runs / 10).max(2) };
    let mut report = Report::default();
    let rows = &mut report.0;
    // At rest first: the process is not pinned yet, and neither are its daemons.
    for count in [0, 1, 8] {
        rows.extend(at_rest::memory(count)?);
    }
    rows.push(at_rest::cpu()?);
    for mode in [MAPPED, COPIED] {
        rows.extend(on_a_thread(move || operations::control(mode, effort))??);
    }
    for len in [1, 64 << 10] {
        rows.push(on_a_thread(move || bare::memcpy(len, effort))?);
        for mode in [MAPPED, COPIED] {
            rows.push(on_a_thread(move || operations::move_data(mode, len, effort))??);
        }
    }
    for spin in [true, false] {
        rows.push(on_a_thread(move || bare::eventfd_hop(spin, effort))??);
        for asleep in [false, true] {
            rows.push(on_a_thread(move || signals::signal(MAPPED, asleep, spin, effort))??);
        }
    }
    print!("{report}");
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", report.to_json()))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// On a thread of its own: a pinned thread's children, the daemon too, would stay pinned.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    std::thread::spawn(work).join().map_err(|_| "a measuring thread panicked".into())
}
