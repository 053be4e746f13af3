// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs under the preload when something else fails: peers that stop, the daemon's death, no
//! descriptors, no memory, no room in the daemon; and many connections.
//!
//! Invariant: a program sees what it would see with TCP, or a reset within a bounded time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ism_programs::{Lab, Network, need, output, programs};

/// Connections that come and go; `FAULTS_CONNECTIONS` sets another number.
const CONNECTIONS: &str = "10000";
/// How long a peer is stopped; `FAULTS_SECONDS` sets another time.
const SECONDS: &str = "2";

/// Runs a case of the program over SMC-D, with these lines in the daemon's configuration; what the
/// preload said.
fn run(case: &str, lines: &str) -> String {
    let seconds = std::env::var("FAULTS_SECONDS").unwrap_or_else(|_| SECONDS.into());
    run_for(case, lines, &seconds)
}

/// The same; a peer is stopped for so long.
fn run_for(case: &str, lines: &str, seconds: &str) -> String {
    need("python3", "python3");
    programs();
    let network = Network::new().unwrap();
    let said = network.inside(|| {
        let lab = Lab::start_with(lines).unwrap();
        let mut command = lab.command("/usr/bin/python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults.py")).arg(case);
        let set = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
        command.env("FAULTS_CONNECTIONS", set("FAULTS_CONNECTIONS", CONNECTIONS));
        command.env("FAULTS_SECONDS", seconds);
        command.env("FAULTS_LOG", lab.log_file()).env("FAULTS_CONFIG", lab.config());
        command.env("FAULTS_DAEMON", programs().join("vhost-user-ism"));
        command.env("FAULTS_DAEMON_PID", lab.daemon().unwrap().to_string());
        let said = output(&mut command);
        let log = lab.log();
        let tail: Vec<_> = log.lines().rev().take(40).collect();
        let said = said.unwrap_or_else(|error| panic!("{case}: {error:?}\n{tail:#?}"));
        println!("{}", String::from_utf8_lossy(&said));
        log
    });
    said.unwrap()
}

/// Ends of connections that became SMC's, and TCP's.
fn ends(log: &str) -> (usize, usize) {
    (log.matches(": SMC-D\n").count(), log.matches(": TCP: ").count())
}

#[test]
fn many_connections_leave_nothing() {
    run("churn", "");
}

#[test]
fn a_peer_that_is_stopped_costs_others_nothing() {
    run("stopped", "");
}

#[test]
#[ignore = "a minute of a CPU"]
fn a_peer_that_is_stopped_for_a_minute_costs_others_nothing() {
    run_for("stopped", "", "60");
}

#[test]
fn a_daemon_that_is_killed_means_resets_then_tcp_then_smc() {
    run("daemon", "");
}

#[test]
fn an_event_loop_lives_through_the_daemons_death_and_return() {
    run("loops", "");
}

#[test]
fn without_descriptors_a_program_is_told_so_and_nothing_else_fails() {
    run("descriptors", "");
}

#[test]
fn without_memory_for_the_device_connections_are_tcps() {
    let log = run("memory", "");
    let (_, tcp) = ends(&log);
    assert!(tcp >= 2, "the limit was none\n{log}");
}

#[test]
fn beyond_a_quota_of_the_daemon_connections_are_tcps() {
    for quota in ["dmbs = 8", "bytes = \"1M\""] {
        let log = run("quota", quota);
        let (smc, tcp) = ends(&log);
        assert!(smc >= 4 && tcp >= 8, "{quota}: {smc} ends of SMC, {tcp} of TCP\n{log}");
    }
}
