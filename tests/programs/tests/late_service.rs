// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Servers that listen before the daemon or discovery serves, or serves again.
//!
//! Invariant tested: what comes first may be TCP's, later clients' connections are SMC's, without a restart.

use std::time::Duration;

use anyhow::Result;
use ism_harness::{Lab, LabSpec, Process, Way};
use ism_programs::{need, unused_port};

/// Sends back what it gets, to one client after another.
const SERVER: &str = "
import socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    with listener.accept()[0] as s: s.sendall(s.recv(5, socket.MSG_WAITALL))
";
/// The same, by three processes that share the listener.
const SERVERS: &str = "
import os, socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
os.fork() and os.fork()
while True:
    with listener.accept()[0] as s: s.sendall(s.recv(5, socket.MSG_WAITALL))
";
/// Its client.
const CLIENT: &str = "
import socket, sys
with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as s:
    s.sendall(b'hello')
    assert s.recv(5, socket.MSG_WAITALL) == b'hello'
";
/// A try to find the daemon that failed stands for 10 s.
const LONGEST: Duration = Duration::from_secs(60);
const SMC: &str = ": SMC-D\n";

fn python(lab: &Lab, name: &str, script: &str, port: u16) -> Result<Process> {
    let mut argv = lab.prefix(Way::Smc, &lab.file(&format!("{name}.log")))?;
    argv.extend(["/usr/bin/python3", "-c", script].map(str::to_owned));
    argv.push(port.to_string());
    Process::start(name, &argv, lab.file(name))
}

/// Whether a client's connection is SMC's at both ends.
fn meets(lab: &Lab, port: u16) -> Result<bool> {
    let log = |name: &str| std::fs::read_to_string(lab.file(name)).unwrap_or_default();
    let before = log("client.log").matches(SMC).count();
    python(lab, "client", CLIENT, port)?.finish(LONGEST)?;
    let is_smc = log("client.log").matches(SMC).count() > before;
    Ok(is_smc && log("server.log").contains(SMC))
}

/// Starts a lab by `first`, a server in it, and the rest by `then`; whether a client's connection is SMC's at once, and
/// whether one is later.
fn served_late(
    server: &str,
    first: impl Fn(&mut Lab, &LabSpec) -> Result<()>,
    then: impl Fn(&mut Lab, &LabSpec) -> Result<()>,
) -> Result<[bool; 2]> {
    need("python3", "python3");
    let spec = LabSpec::new().unserved();
    let (mut lab, port) = (spec.start()?, unused_port()?);
    first(&mut lab, &spec)?;
    let mut server = python(&lab, "server", server, port)?;
    lab.wait_listening(&mut server, port)?;
    then(&mut lab, &spec)?;
    let at_once = meets(&lab, port)?;
    let mut met = Ok(false);
    server.wait_until("a client's connection is SMC's", LONGEST, || {
        met = meets(&lab, port);
        !matches!(met, Ok(false))
    })?;
    // Whichever process accepts them.
    for _ in 0..8 {
        meets(&lab, port)?;
    }
    Ok([at_once, met?])
}

#[test]
fn a_server_that_listened_before_discovery_served_is_smcs_for_the_second_client() -> Result<()> {
    let met = served_late(SERVER, Lab::start_daemon, |lab, _| lab.start_discovery())?;
    assert_eq!(met, [false, true]);
    Ok(())
}

#[test]
fn a_server_that_listened_before_the_daemon_did_is_smcs_for_a_later_client() -> Result<()> {
    let met = served_late(SERVER, |lab, _| lab.start_discovery(), Lab::start_daemon)?;
    assert_eq!(met, [false, true]);
    Ok(())
}

/// A server that sleeps in accept does not hear of the daemon's end.
#[test]
fn a_server_that_sleeps_while_the_daemon_is_started_again_is_smcs_for_the_first_client()
-> Result<()> {
    let all = |lab: &mut Lab, spec: &LabSpec| {
        lab.start_daemon(spec)?;
        lab.start_discovery()
    };
    let met = served_late(SERVER, all, Lab::restart_daemon)?;
    assert_eq!(met, [true, true]);
    Ok(())
}

#[test]
fn a_server_that_was_on_the_board_of_a_daemon_that_ended_is_on_that_of_the_next() -> Result<()> {
    let met = served_late(SERVER, Lab::start_daemon, Lab::restart_daemon)?;
    assert_eq!(met, [false, true]);
    Ok(())
}

/// Those that have not found out by themselves take no proposal for data.
#[test]
fn of_several_processes_that_accept_at_one_listener_the_first_makes_it_smcs() -> Result<()> {
    let first = |lab: &mut Lab, _: &LabSpec| lab.start_discovery();
    let met = served_late(SERVERS, first, Lab::start_daemon)?;
    assert!(met[1]);
    Ok(())
}
