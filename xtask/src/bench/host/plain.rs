// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Cases of our own plain program with blocking sockets (tests/plain).
//!
//! Invariant: client and server are two processes, and neither knows over what it talks.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ism_harness::Process;

use crate::figure::Transport;
use crate::host::proof::Traffic;
use crate::host::{End, GRACE, Measured, Run, parse};
use crate::repo;

/// The kernel counts a process's time in hundredths of a second.
const TICKS: f64 = 100.0;
/// Awake for fewer of the answers than this, an end counts as asleep: now and then one is there before
/// it can be waited for.
const MOSTLY_ASLEEP: f64 = 0.2;
/// Idle processes are watched for so many times the seconds of other cases: one tick is 1 % of one.
const LONGER: u32 = 3;

/// Messages a second, there and back.
pub(super) fn messages(run: &Run<'_>, bytes: u32) -> Result<Measured> {
    Ok(ping(run, bytes)?.0)
}

/// The mean of half a round trip, in µs.
pub(super) fn half_round_trip(run: &Run<'_>, bytes: u32) -> Result<Measured> {
    let measured = messages(run, bytes)?;
    Ok(Measured { value: 1e6 / measured.value, ..measured })
}

/// The same, of ends that sleep before each message; an error if the client did not.
pub(super) fn half_round_trip_asleep(run: &Run<'_>, bytes: u32) -> Result<Measured> {
    let (measured, awake, output) = ping(run, bytes)?;
    ensure!(awake < MOSTLY_ASLEEP, "the client did not sleep before each message: {output}");
    Ok(Measured { value: 1e6 / measured.value, ..measured })
}

/// Messages a second, the share of the answers for which the client did not sleep, and its words.
fn ping(run: &Run<'_>, bytes: u32) -> Result<(Measured, f64, String)> {
    let _server = start(run, "serve", &format!(" {bytes}"))?;
    let ping = format!("ping {} {bytes} {}", address(run), run.seconds);
    let output = run.client(&program(&ping))?;
    let (messages, seconds) = parse::plain(&output, "messages")?;
    let traffic = Traffic::of(messages * u64::from(bytes));
    let awake = 1.0 - 2.0 * parse::plain_sleeps(&output)? as f64 / messages as f64;
    Ok((Measured { value: messages as f64 / seconds, traffic }, awake, output))
}

/// Connections a second: made, used for a byte each way, and ended.
pub(super) fn connections(run: &Run<'_>) -> Result<Measured> {
    let _server = start(run, "answer", "")?;
    let output = run.client(&program(&format!("connect {} {}", address(run), run.seconds)))?;
    let (connections, seconds) = parse::plain(&output, "connections")?;
    let traffic = Traffic::of_connections(2 * connections, connections);
    Ok(Measured { value: connections as f64 / seconds, traffic })
}

/// Per cent of a core that both processes use while a connection is open and nobody sends.
pub(super) fn idle(run: &Run<'_>) -> Result<Measured> {
    let server = start(run, "serve", " 1")?;
    let mut client = run.spawn(End::Client, &program(&format!("hold {}", address(run))))?;
    let said = run.file("Client");
    client.wait_until("its connection is open", GRACE, || {
        fs::read_to_string(&said).unwrap_or_default().contains("open")
    })?;
    let used = || Ok::<_, anyhow::Error>(ticks(&server)? + ticks(&client)?);
    let (before, start) = (used()?, Instant::now());
    // The measurement itself.
    sleep(Duration::from_secs((LONGER * run.seconds).into()));
    let share = (used()? - before) / TICKS / start.elapsed().as_secs_f64();
    Ok(Measured { value: share * 100.0, traffic: Traffic::of_connections(2, 1) })
}

/// Ticks that a process has used, in the kernel and outside.
fn ticks(process: &Process) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
    // The name, in brackets, may have spaces; utime and stime are fields 14 and 15.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let times: Vec<f64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = times[..] else { return Err(anyhow::anyhow!("no times in «{stat}»")) };
    Ok(user + system)
}

fn program(arguments: &str) -> String {
    format!("{} {arguments}", repo::target().join("release/ism-plain").display())
}

fn address(run: &Run<'_>) -> String {
    if run.transport == Transport::Unix {
        run.file("socket").display().to_string()
    } else {
        format!("127.0.0.1:{}", run.port)
    }
}

/// Starts the server and waits until it listens.
fn start(run: &Run<'_>, what: &str, more: &str) -> Result<Process> {
    let command = program(&format!("{what} {}{more}", address(run)));
    if run.transport != Transport::Unix {
        return run.server(&command);
    }
    let socket = run.file("socket");
    let mut server = run.spawn(End::Server, &command)?;
    server.wait_until("it listens", GRACE, || socket.exists()).context("AF_UNIX")?;
    Ok(server)
}
