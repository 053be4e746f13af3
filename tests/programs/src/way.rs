// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ways a program is run.
//!
//! Invariant: the ways differ in what is put before the program's name, and in nothing else.

use std::collections::{BTreeMap, BTreeSet};
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
/// What both ends say where the client has waited for 250 ms: its server may not have had a core in that time.
const LATE: &str = "timeout while waiting for Confirm Link";
/// How often what depends on the time is tried.
const TRIES: usize = 3;

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
    // Cargo may need the machine's network.
    programs();
    in_network(|| {
        let plain = run_over_tcp(&test);
        compare_smc(&test, &plain);
    });
}

/// The same, and no end of a connection whose other end speaks SMC may have been anything else, if the
/// other end's program was there, but those whose server was late.
///
/// # Panics
/// As [`compare`].
pub fn compare_but_late<T: Debug + PartialEq>(test: impl Fn(Way<'_>) -> Result<T>) {
    programs();
    in_network(|| {
        let plain = run_over_tcp(&test);
        let log = compare_smc(&test, &plain);
        let others: Vec<_> = others(&log).filter(|line| !line.contains(LATE)).collect();
        assert!(others.is_empty(), "{} ends were not SMC's: {others:#?}", others.len());
    });
}

/// The same, and none may have been late. On a busy machine some are: then it is tried again over SMC-D, and if that
/// does not help, more than a tenth of them may not be.
///
/// # Panics
/// As [`compare`].
pub fn compare_strictly<T: Debug + PartialEq>(test: impl Fn(Way<'_>) -> Result<T>) {
    programs();
    in_network(|| {
        let plain = run_over_tcp(&test);
        for attempt in 1..=TRIES {
            let log = compare_smc(&test, &plain);
            let others: Vec<_> = others(&log).collect();
            if others.is_empty() {
                return;
            }
            let ends = others.len() + log.matches(PROOF).count();
            let are_few = attempt < TRIES || others.len() * 10 <= ends;
            let are_late = others.iter().all(|line| line.contains(LATE));
            assert!(
                are_late && are_few,
                "{} of {ends} ends were not SMC's: {others:#?}",
                others.len()
            );
            eprintln!("{} of {ends} ends were late", others.len());
        }
    });
}

/// Parts of a test, by name, and how each ended.
pub type Parts = BTreeMap<String, &'static str>;

/// Runs `test` as [`compare`] does, all ways at the same time, each in a network namespace of its own: for programs
/// that mostly wait. It is told which of its parts are to run; none are all. Parts may depend on the time, of which a
/// busy machine has little: those that differ are run again, alone, one way after the other.
///
/// # Panics
/// As [`compare`].
pub fn compare_at_once(test: impl Fn(Way<'_>, &[&str]) -> Result<Parts> + Sync) {
    programs();
    let (plain, fallback, (smc, log)) = thread::scope(|scope| {
        let all = |way: Way<'_>| test(way, &[]);
        let plain = scope.spawn(move || in_network(|| run(all, Way::Plain)));
        let fallback = scope.spawn(move || in_network(|| run(all, Way::Fallback)));
        let smc = in_network(|| run_over_smc(all));
        // One that panicked has said why.
        let ended = |it: thread::Result<Parts>| it.unwrap_or_else(|why| resume_unwind(why));
        (ended(plain.join()), ended(fallback.join()), smc)
    });
    prove(&log);
    let mut differ = differences([&plain, &fallback, &smc]);
    for _ in 1..TRIES {
        if differ.is_empty() {
            return;
        }
        eprintln!("these differ, once more: {differ:#?}");
        let parts: Vec<&str> = differ.keys().map(String::as_str).collect();
        let again = |way: Way<'_>| test(way, &parts);
        differ = in_network(|| {
            let (plain, fallback) = (run(again, Way::Plain), run(again, Way::Fallback));
            differences([&plain, &fallback, &run_over_smc(again).0])
        });
    }
    assert!(differ.is_empty(), "plain, falling back and over SMC-D differ: {differ:#?}\n{log}");
}

/// The parts that did not end the same each way, or were not there.
fn differences(ways: [&Parts; 3]) -> BTreeMap<String, [Option<&'static str>; 3]> {
    let names: BTreeSet<_> = ways.iter().flat_map(|parts| parts.keys()).collect();
    let all = names.into_iter().map(|name| (name.clone(), ways.map(|it| it.get(name).copied())));
    all.filter(|(_, [plain, others @ ..])| others.iter().any(|it| it != plain)).collect()
}

fn in_network<R>(act: impl FnOnce() -> R) -> R {
    let network = Network::new().and_then(|network| network.inside(act));
    network.unwrap_or_else(|error| panic!("no network namespace: {error:?}"))
}

fn run<T>(test: impl Fn(Way<'_>) -> Result<T>, way: Way<'_>) -> T {
    test(way).unwrap_or_else(|error| panic!("{way:?}: {error:?}"))
}

/// The result without the preload, which is that of connections that fall back.
fn run_over_tcp<T: Debug + PartialEq>(test: impl Fn(Way<'_>) -> Result<T>) -> T {
    let (plain, fallback) = (run(&test, Way::Plain), run(&test, Way::Fallback));
    assert_eq!(fallback, plain, "with all connections falling back it differs");
    plain
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

/// Runs it over SMC-D, where it must end as without; what the programs have said. If all connections were late, it is
/// tried again.
fn compare_smc<T: Debug + PartialEq>(test: impl Fn(Way<'_>) -> Result<T>, plain: &T) -> String {
    let mut attempt = 1;
    loop {
        let (smc, log) = run_over_smc(&test);
        assert_eq!(smc, *plain, "over SMC-D it differs\n{log}");
        if is_proven(&log) || attempt == TRIES || !log.contains(LATE) {
            prove(&log);
            return log;
        }
        eprintln!("all connections were late, once more");
        attempt += 1;
    }
}

/// Whether both ends of a connection were SMC's.
fn is_proven(log: &str) -> bool {
    log.matches(PROOF).count() >= 2
}

fn prove(log: &str) {
    assert!(is_proven(log), "no connection was one of SMC\n{log}");
}

/// What is said of ends that are none of SMC's, and whose other end's program was there.
fn others(log: &str) -> impl Iterator<Item = &str> {
    let is_other =
        |line: &&str| OTHERS.iter().any(|it| line.contains(it)) && !line.ends_with(ENDED);
    log.lines().filter(is_other)
}
