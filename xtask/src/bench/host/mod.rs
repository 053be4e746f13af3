// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask bench host`: what programs gain from SMC-D between two processes of this host, beside
//! TCP, AF_UNIX, iceoryx2 and what the machine allows.
//!
//! Invariant: a figure is the median of runs in which nothing fell back; the transports of a case take
//! turns, so that what the machine does meanwhile meets all of them.

mod beside;
mod case;
mod plain;
mod plot;
mod report;
mod servers;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail, ensure};
use clap::Args;
use ism_harness::Lab;

use crate::figure::Transport;
use crate::host::proof::Proof;
use crate::host::{Run, install};
use crate::repo::{self, cargo};
use crate::steps::{check_writable, run};
use case::{CASES, Case};
use report::{Figure, Report};

/// What to measure.
#[derive(Args)]
pub(super) struct Options {
    /// Write the rows as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios to TCP as SVG too.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Runs of which each figure is the median.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds that each program measures in a run.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only this case; may be given more than once.
    #[arg(long = "case", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(CASES.map(|case| case.name)))]
    cases: Vec<String>,
    /// Show these rows of an earlier --json too, of cases that are not measured now; may be given more
    /// than once.
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// Measure nothing: show what --add names.
    #[arg(long, requires = "add", conflicts_with = "cases")]
    show: bool,
}

/// Where the programs of the bench run.
struct Bench {
    lab: Lab,
    /// The server's and the client's.
    cores: [usize; 2],
    runs: u32,
    seconds: u32,
}

/// Measures, shows and fails if a case did.
pub(super) fn host(options: &Options) -> Result<()> {
    check_writable(options.json.as_deref())?;
    check_writable(options.plot.as_deref())?;
    let mut report = Report::default();
    let mut failures = Vec::new();
    if !options.show {
        let is_asked = |case: &&Case| {
            options.cases.is_empty() || options.cases.iter().any(|name| name == case.name)
        };
        let cases: Vec<&Case> = CASES.iter().filter(is_asked).collect();
        let bench = Bench::start(&cases, options)?;
        let mut proof = Proof::default();
        for case in &cases {
            bench.case(case, &mut report, &mut proof, &mut failures);
        }
        eprintln!("proof: over SMC-D, {}", proof.words());
        report.commit = commit();
    }
    for path in &options.add {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        report.add(&text).with_context(|| format!("{}", path.display()))?;
    }
    print!("{}", report.table());
    if let Some(path) = &options.json {
        write(path, &(serde_json::to_string_pretty(&report.to_json())? + "\n"))?;
    }
    if let Some(path) = &options.plot {
        write(path, &plot::svg(&report))?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = failures.iter().map(|failure| format!("- {failure:#}")).collect();
    bail!("{} runs failed, and their figures are missing:\n{}", failures.len(), words.join("\n"))
}

impl Bench {
    /// Builds what the cases need and starts the lab on two cores.
    fn start(cases: &[&Case], options: &Options) -> Result<Self> {
        install(
            "sockperf=sockperf iperf3=iperf3 taskset=util-linux nginx=nginx-light wrk=wrk \
             redis-server=redis-server redis-benchmark=redis-tools",
        )?;
        let uses = |transport| cases.iter().any(|case| case.transports.contains(&transport));
        run(&mut cargo(&["build", "--release", "--quiet", "--package", "ism-plain"]))?;
        if uses(Transport::Limit) {
            let limit = ["--package", "ism-bench", "--bin", "bench-limit"];
            run(cargo(&["build", "--release", "--quiet"]).args(limit))?;
        }
        if uses(Transport::Iceoryx2) {
            beside::build_iceoryx2()?;
        }
        let cores = pin()?;
        let lab = Lab::start()?;
        let (runs, seconds) = (options.runs, options.seconds);
        eprintln!(
            "servers on core {}, clients on core {}; {runs} runs of {seconds} s each",
            cores[0], cores[1]
        );
        Ok(Self { lab, cores, runs, seconds })
    }

    /// Measures a case over all its transports in turn.
    fn case(
        &self,
        case: &'static Case,
        report: &mut Report,
        proof: &mut Proof,
        failures: &mut Vec<Error>,
    ) {
        let mut figures: Vec<Figure> =
            case.transports.iter().map(|&transport| Figure::new(case, transport)).collect();
        for number in 1..=self.runs {
            for figure in &mut figures {
                let transport = figure.transport;
                let line = format!("  {:<18} {number}/{} {transport:<10}", case.name, self.runs);
                match self.one(case, transport, proof) {
                    Ok(value) => {
                        eprintln!("{line} {value:>12.3} {}", case.unit);
                        figure.samples.push(value);
                    }
                    Err(error) => {
                        eprintln!("{line} {:>12}", "FAILED");
                        let what = format!("{} over {transport}, run {number}", case.name);
                        failures.push(error.context(what));
                    }
                }
            }
        }
        // The median of the runs that went well would be another figure than the one that was asked for.
        figures.retain(|figure| figure.samples.len() == self.runs as usize);
        report.figures.extend(figures);
    }

    fn one(&self, case: &Case, transport: Transport, proof: &mut Proof) -> Result<f64> {
        let mut run = Run::new(&self.lab, case.name, transport, self.seconds).pinned(self.cores);
        match transport {
            Transport::Limit => return beside::limit(case, self.seconds),
            Transport::Iceoryx2 => return beside::iceoryx2(&run),
            _ => {}
        }
        if let Some(variable) = case.environment {
            run = run.with(variable);
        }
        let (carried, outcome) = run.proved(case.run);
        proof.add(&carried);
        outcome
    }
}

/// Keeps this program and all that it starts on two cores.
fn pin() -> Result<[usize; 2]> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cores = list.into_iter().flat_map(|list| list.trim().split(',')).flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<usize>().ok();
        number(first).zip(number(last)).into_iter().flat_map(|(first, last)| first..=last)
    });
    let pair = cores.next().zip(cores.next());
    let (server, client) = pair.context("the bench needs two cores")?;
    let mut taskset = Command::new("taskset");
    taskset.args(["-cp", &format!("{server},{client}"), &std::process::id().to_string()]);
    ensure!(taskset.stdout(Stdio::null()).status()?.success(), "taskset does not pin");
    Ok([server, client])
}

/// What is measured: the checkout's commit, and whether it was changed since.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude", "*"]).current_dir(repo::root());
    let output = git.stderr(Stdio::null()).output().map(|output| output.stdout);
    String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_owned()
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
