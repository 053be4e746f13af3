// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ways a program is run.
//!
//! Invariant: the ways differ in what is put before the program's name, and in nothing else.

use std::fmt::Debug;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use anyhow::Result;

use crate::build::programs;
use crate::lab::Lab;
use crate::network::Network;

/// How the connections of a test's programs go.
#[derive(Debug, Clone, Copy)]
pub enum Way<'a> {
    /// Without the preload.
    Plain,
    /// With the preload, which looks at all calls and stays with TCP.
    Fallback,
    /// Over SMC-D.
    Smc(&'a Lab),
}

impl Way<'_> {
    /// The command that starts `program` this way.
    pub fn command(self, program: &str) -> Command {
        match self {
            Self::Plain => Command::new(program),
            Self::Fallback => {
                let mut command = Command::new(programs().join("smc-run"));
                command.args(["-n", program]);
                command
            }
            Self::Smc(lab) => lab.command(program),
        }
    }
}

/// What the preload says of each end of an SMC connection.
const PROOF: &str = ": SMC-D\n";
/// What it says of an end that became TCP, or was reset.
const OTHERS: [&str; 2] = [": TCP: ", ": reset: "];
/// What it says where the other program has ended, or closed, in the middle of a handshake.
const ENDED: &str = ": reset: the peer ended the TCP connection during the handshake";

/// Ends of connections that became SMC's in a process, as the log of [`Lab::log`] says.
pub fn smc_ends(log: &str, process: u32) -> usize {
    let begin = format!("libsmc_preload[{process}]: ");
    let is_one = |line: &&str| line.starts_with(&begin) && line.ends_with(": SMC-D");
    log.lines().filter(is_one).count()
}

/// Runs `test` each way, in a network namespace of its own. Over SMC-D both ends of at least one
/// connection must have been SMC's.
///
/// # Panics
/// It fails one way, its results differ, or a way cannot be tried.
pub fn compare<T: Debug + PartialEq>(test: impl Fn(Way<'_>) -> Result<T>) {
    run_each_way(test);
}

/// The same, and no end of a connection whose other end speaks SMC may have been anything else, if the
/// other end's program was there.
///
/// # Panics
/// As [`compare`].
pub fn compare_strictly<T: Debug + PartialEq>(test: impl Fn(Way<'_>) -> Result<T>) {
    let log = run_each_way(test);
    let is_other =
        |line: &&str| OTHERS.iter().any(|it| line.contains(it)) && !line.ends_with(ENDED);
    let others: Vec<&str> = log.lines().filter(is_other).collect();
    assert!(others.is_empty(), "{} ends were not SMC's: {others:#?}", others.len());
}

/// As [`compare`], all ways at the same time, each in a network namespace of its own: for programs that mostly
/// wait.
///
/// # Panics
/// As [`compare`].
pub fn compare_at_once<T: Debug + PartialEq + Send>(test: impl Fn(Way<'_>) -> Result<T> + Sync) {
    // Cargo may need the machine's network.
    programs();
    let (plain, fallback, smc) = thread::scope(|scope| {
        let plain = scope.spawn(|| in_network(|| run(&test, Way::Plain)));
        let fallback = scope.spawn(|| in_network(|| run(&test, Way::Fallback)));
        let smc = in_network(|| run_over_smc(&test));
        // One that panicked has said why.
        let ended = |it: thread::Result<T>| it.unwrap_or_else(|why| resume_unwind(why));
        (ended(plain.join()), ended(fallback.join()), smc)
    });
    judge(&plain, &fallback, &smc);
}

fn in_network<R>(act: impl FnOnce() -> R) -> R {
    let network = Network::new().and_then(|network| network.inside(act));
    network.unwrap_or_else(|error| panic!("no network namespace: {error:?}"))
}

fn run<T>(test: impl Fn(Way<'_>) -> Result<T>, way: Way<'_>) -> T {
    test(way).unwrap_or_else(|error| panic!("{way:?}: {error:?}"))
}

/// The result over SMC-D, and what the programs have said.
fn run_over_smc<T>(test: impl Fn(Way<'_>) -> Result<T>) -> (T, String) {
    // A way that cannot be tried is no success.
    let lab =
        Lab::start().unwrap_or_else(|error| panic!("over SMC-D, which needs root: {error:?}"));
    let smc = test(Way::Smc(&lab));
    let log = lab.log();
    let smc = smc.unwrap_or_else(|error| panic!("over SMC-D: {error:?}\n{log}"));
    (smc, log)
}

fn judge<T: Debug + PartialEq>(plain: &T, fallback: &T, (smc, log): &(T, String)) {
    assert_eq!(fallback, plain, "with all connections falling back it differs");
    assert_eq!(smc, plain, "over SMC-D it differs\n{log}");
    assert!(log.matches(PROOF).count() >= 2, "no connection was one of SMC\n{log}");
}

/// What the programs over SMC-D have said.
fn run_each_way<T: Debug + PartialEq>(test: impl Fn(Way<'_>) -> Result<T>) -> String {
    // Cargo may need the machine's network.
    programs();
    in_network(|| {
        let (plain, fallback) = (run(&test, Way::Plain), run(&test, Way::Fallback));
        let smc = run_over_smc(&test);
        judge(&plain, &fallback, &smc);
        smc.1
    })
}
