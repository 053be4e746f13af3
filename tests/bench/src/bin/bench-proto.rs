// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `bench-proto`: what the SMC protocol costs, as a table and JSON, and whether it costs more
//! instructions than it did.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ism_bench::heap::Counted;
use ism_bench::pin_to_first;
use ism_bench::proto::instructions::{self, Counts};
use ism_bench::proto::{cases, state, time};
use ism_bench::report::Report;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Measures the protocol: messages, a CDC round, a handshake, the state they need.
#[derive(Parser)]
struct Options {
    /// Write the rows as JSON to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Samples of each operation; a sample is a batch of many runs
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u16).range(5..))]
    samples: u16,
    /// Instead: run this case 1000 times for valgrind to count
    #[arg(long, value_name = "CASE")]
    instructions: Option<String>,
    /// Instead: count instructions with valgrind and compare them with the list
    #[arg(long)]
    check: bool,
    /// Instead: count instructions with valgrind and write the list
    #[arg(long)]
    bless: bool,
    /// The list of instructions
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json"))]
    list: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("bench-proto: built without optimisation; the figures are not the protocol's");
    }
    let outcome = match &options {
        Options { instructions: Some(case), .. } => instructions::run(case),
        Options { check: true, list, .. } => check(list),
        Options { bless: true, list, .. } => bless(list),
        _ => measure(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-proto: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), String> {
    pin_to_first();
    let mut report = Report(time::measure(&mut cases()?, options.samples.into()));
    report.0.extend(state::rows()?);
    print!("{report}");
    match &options.json {
        Some(path) => write(path, &format!("{:#}\n", report.to_json())),
        None => Ok(()),
    }
}

fn check(list: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(list).map_err(|error| at(list, &error))?;
    let before: Counts = serde_json::from_str(&text).map_err(|error| at(list, &error))?;
    let now = instructions::count()?;
    let (table, bad) = instructions::compare(&before, &now);
    print!("{table}");
    if bad {
        return Err(format!(
            "instructions grew by more than {} % (or cases changed); if that is right, \
             write the list with `cargo xtask bench proto --bless`",
            instructions::TOLERANCE
        ));
    }
    println!("{} cases take no more instructions than they did", now.len());
    Ok(())
}

fn bless(list: &Path) -> Result<(), String> {
    let counts = instructions::count()?;
    let text = serde_json::to_string_pretty(&counts).map_err(|error| at(list, &error))?;
    write(list, &format!("{text}\n"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}
