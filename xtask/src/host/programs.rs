// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! sockperf and iperf3, and how each is run.
//!
//! Invariant: what a program measured is what it prints in its own summary.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::parse;
use super::proof::Traffic;
use super::{End, GRACE, Measured, Run};

/// sockperf keeps a table of 600 000 messages for each second of `-t`, and gives up when that is full.
/// With so many times the seconds there is room for 3.6 million messages a second; SIGINT ends it after
/// the seconds that are meant, and it prints its summary as at any other end.
const ROOM: u32 = 6;
/// What sockperf leaves out of its figures, at the beginning and the end.
const WARM_UP: Duration = Duration::from_millis(450);

/// `sockperf ping-pong`: the median latency, half a round trip, in µs.
pub(crate) fn ping_pong(run: &Run<'_>, bytes: u32) -> Result<Measured> {
    let output = sockperf(run, "ping-pong", bytes)?;
    // There and back.
    let traffic = Traffic::of(2 * u64::from(bytes) * parse::sockperf_received(&output)?);
    Ok(Measured { value: parse::sockperf_p50(&output)?, traffic })
}

/// `sockperf throughput`, in MB/s.
pub(crate) fn throughput(run: &Run<'_>, bytes: u32) -> Result<Measured> {
    let output = sockperf(run, "throughput", bytes)?;
    let traffic = Traffic::of(u64::from(bytes) * parse::sockperf_sent(&output)?);
    Ok(Measured { value: parse::sockperf_mb_per_s(&output)?, traffic })
}

fn sockperf(run: &Run<'_>, test: &str, bytes: u32) -> Result<String> {
    let address = format!("--tcp -i 127.0.0.1 -p {}", run.port);
    let _server = run.server(&format!("sockperf server {address}"))?;
    let room = ROOM * (run.seconds + 1);
    let command = format!("sockperf {test} {address} -m {bytes} -t {room}");
    let mut client = run.spawn(End::Client, &command)?;
    let output = run.file("Client");
    client.wait_until("it measures", GRACE, || {
        fs::read_to_string(&output).unwrap_or_default().contains("Starting test...")
    })?;
    // The measurement itself; it fails if the program ends before.
    sleep(Duration::from_secs(run.seconds.into()) + WARM_UP);
    client.signal("INT")?;
    client.finish(GRACE)
}

/// `iperf3`, one stream, in Gbit/s.
pub(crate) fn iperf3(run: &Run<'_>) -> Result<Measured> {
    let (port, seconds) = (run.port, run.seconds);
    let server = run.server(&format!("iperf3 -s -1 -B 127.0.0.1 -p {port}"))?;
    let output = run.client(&format!("iperf3 -c 127.0.0.1 -p {port} -t {seconds} --json"))?;
    server.finish(GRACE).context("iperf3's server")?;
    let traffic = Traffic::of(parse::iperf3_bytes(&output)?);
    Ok(Measured { value: parse::iperf3_gbit_per_s(&output)?, traffic })
}
