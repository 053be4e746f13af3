// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo xtask test`: everything CI runs, in the order in which it fails soonest.
//!
//! Invariant: no step is skipped silently; `--fast` leaves out the VM steps and says so.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::bench;
use crate::repo::{self, cargo};
use crate::steps::{Steps, run};

/// The version that checks licences and sources; installed into the user's cache if missing.
const CARGO_DENY: &str = "0.20.2";
/// Packages whose tests boot VMs.
const VM_TESTS: &str = "ism-vm-tests";
/// Real programs under the preload, from Debian's packages.
const PROGRAM_TESTS: &str = "ism-programs";
/// The fuzz targets, each with its corpus in fuzz/corpus.
const FUZZ_TARGETS: [&str; 6] = ["cdc", "clc", "control", "llc", "moves", "vhost_user_stream"];

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Without the steps that need VMs or minutes of building: no kernel, no QEMU, no fuzzing.
    #[arg(long)]
    fast: bool,
    /// Seconds of fuzzing for each target.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    fuzz: u32,
}

type Step<'a> = (&'a str, Box<dyn FnOnce() -> Result<()> + 'a>);

/// Runs everything; the error names the first step that failed.
pub(crate) fn test(options: &Options) -> Result<()> {
    let mut plan: Vec<Step> = vec![
        ("format", Box::new(|| run(&mut cargo(&["fmt", "--all", "--check"])))),
        ("lints", Box::new(lints)),
        ("unit, property and whole-daemon tests", Box::new(tests)),
        ("lock-free parts under loom", Box::new(loom)),
    ];
    if !options.fast {
        plan.push(("licences and sources", Box::new(deny)));
        plan.push(("instructions of the protocol", Box::new(bench::instructions)));
        plan.push(("fuzzing", Box::new(|| fuzz(options.fuzz))));
        plan.push(("QEMU, guest kernel and userland", Box::new(guest)));
        plan.push(("discovery's BPF object is its source's", Box::new(bpf_object)));
        plan.push(("discovery with the kernel's AF_SMC, in a VM", Box::new(discovery_in_vm)));
        plan.push(("real programs, without SMC and with it", Box::new(program_tests)));
        plan.push(("the bench of processes, one case", Box::new(host_bench)));
        plan.push(("tests in VMs", Box::new(vm_tests)));
        plan.push(("the demo, short", Box::new(demo)));
    }
    let mut steps = Steps::new(plan.len());
    for (name, work) in plan {
        steps.step(name, work)?;
    }
    steps.summary();
    eprintln!(
        "Not run, minutes long: the events of Python's test_asyncio, test_ssl's servers a hundred times, \
         a peer stopped for a minute (cargo test -p {PROGRAM_TESTS} -- --ignored)."
    );
    if options.fast {
        eprintln!(
            "Not run (--fast): licences, instructions, fuzzing, real programs and their bench, VMs."
        );
    }
    Ok(())
}

fn lints() -> Result<()> {
    // Workspaces of their own, which are built much later: whether their locks are up to date.
    for folder in ["fuzz", "tests/iceoryx2"] {
        let tree = ["tree", "--locked", "--quiet", "--depth", "0", "--manifest-path"];
        run(cargo(&tree).arg(repo::root().join(folder).join("Cargo.toml")))?;
    }
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
}

fn tests() -> Result<()> {
    run(&mut cargo(&["build", "--package", "vhost-user-ism"]))?;
    run(&mut cargo(&["test", "--workspace", "--exclude", VM_TESTS, "--exclude", PROGRAM_TESTS]))
}

/// In a target folder of its own: the flag would make cargo rebuild everything else each time.
fn loom() -> Result<()> {
    for package in ["ism-emulator", "smc-ring"] {
        run(cargo(&["test", "--release", "--package", package, "--test", "loom"])
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", repo::root().join("target/loom")))?;
    }
    Ok(())
}

fn deny() -> Result<()> {
    // Advisories come from a database that is not part of the checkout; CI has no access to it.
    run(Command::new(cargo_deny()?)
        .args(["--all-features", "check", "bans", "licenses", "sources"])
        .current_dir(repo::root()))
}

/// The path of a cargo-deny of our version, installed if need be.
fn cargo_deny() -> Result<PathBuf> {
    let root = repo::cache()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let binary = root.join("bin/cargo-deny");
    if !binary.exists() {
        eprintln!("installing cargo-deny {CARGO_DENY} into the cache (a few minutes, once)");
        run(cargo(&["install", "--locked", "--version", CARGO_DENY, "cargo-deny", "--root"])
            .arg(&root))
        .context("cargo-deny could not be installed from crates.io")?;
    }
    Ok(binary)
}

fn fuzz(seconds: u32) -> Result<()> {
    for target in FUZZ_TARGETS {
        run(Command::new(repo::root().join("fuzz/run.sh")).arg(target).arg(seconds.to_string()))?;
    }
    Ok(())
}

fn guest() -> Result<()> {
    run(Command::new(repo::root().join("qemu-scripts/get")).arg("all"))
}

/// The object is checked in, so that a build needs no BPF compiler.
fn bpf_object() -> Result<()> {
    run(Command::new(repo::root().join("smc/discovery/bpf/build")).arg("--check"))
}

fn discovery_in_vm() -> Result<()> {
    run(&mut Command::new(repo::root().join("smc/discovery/helper/tests/in-guest")))
}

/// One after another: some of them fill both cores. Missing packages are installed.
fn program_tests() -> Result<()> {
    let arguments = ["test", "--package", PROGRAM_TESTS, "--", "--test-threads", "1"];
    run(cargo(&arguments).env("ISM_INSTALL", "1"))
}

/// Not for its figures: so that the bench, its proof, its JSON and its drawing still work.
fn host_bench() -> Result<()> {
    let bench = ["run", "--quiet", "--package", "xtask", "--", "bench", "host"];
    let least = ["--case", "msg-100", "--runs", "1", "--seconds", "1"];
    let file = |name: &str| repo::target().join(name);
    run(cargo(&bench)
        .args(least)
        .arg("--json")
        .arg(file("host-bench.json"))
        .arg("--plot")
        .arg(file("host-bench.svg")))
}

/// One after another: two VMs already fill two cores.
fn vm_tests() -> Result<()> {
    run(&mut cargo(&["build", "--release", "--package", "vhost-user-ism"]))?;
    run(&mut cargo(&["test", "--package", VM_TESTS, "--", "--test-threads", "1", "--nocapture"]))
}

fn demo() -> Result<()> {
    run(&mut cargo(&["run", "--quiet", "--package", "xtask", "--", "demo", "--seconds", "2"]))
}
