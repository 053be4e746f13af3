// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Benchmarking tools: they run to their end and find nothing wrong with what they received.

use anyhow::{Context, Result, ensure};
use ism_programs::{Running, Way, compare_strictly, need, output, unused_port, wait_for_port};
use serde_json::Value;

#[test]
fn sockperf_loses_and_reorders_nothing() {
    need("sockperf", "sockperf");
    compare_strictly(|way| {
        let port = unused_port()?.to_string();
        let address = ["--tcp", "-i", "127.0.0.1", "-p", &port];
        let _server = Running::start(way.command("sockperf").arg("server").args(address))?;
        wait_for_port(port.parse()?)?;
        let mut client = way.command("sockperf");
        // As fast as it can it counts to at most 600 000 a second, and gives up.
        let arguments = ["--time", "1", "--mps", "20000"];
        let report = output(client.arg("ping-pong").args(address).args(arguments))?;
        let report = String::from_utf8_lossy(&report).into_owned();
        let line = report.lines().find(|line| line.contains("dropped messages"));
        Ok(line.with_context(|| report.clone())?.to_owned())
    });
}

/// Runs iperf3 for a second; whether bytes went each way that was asked for.
fn iperf3(way: Way<'_>, arguments: &[&str]) -> Result<Vec<bool>> {
    let port = unused_port()?.to_string();
    let mut server = way.command("iperf3");
    let server = Running::start(server.args(["-s", "-1", "-B", "127.0.0.1", "-p", &port]))?;
    wait_for_port(port.parse()?)?;
    let mut client = way.command("iperf3");
    client.args(["-c", "127.0.0.1", "-J", "-t", "1", "-p", &port]).args(arguments);
    let report: Value = serde_json::from_slice(&output(&mut client)?)?;
    server.finish()?;
    ensure!(report.get("error").is_none(), "{report}");
    let sums = ["sum_sent", "sum_received", "sum_sent_bidir_reverse", "sum_received_bidir_reverse"];
    let bytes = |sum: &&str| report["end"].get(sum).and_then(|sum| sum["bytes"].as_u64());
    let all: Vec<u64> = sums.iter().filter_map(bytes).collect();
    Ok(all.iter().map(|&bytes| bytes > 1 << 20).collect())
}

#[test]
fn iperf3_sends_and_receives() {
    need("iperf3", "iperf3");
    compare_strictly(|way| iperf3(way, &[]));
    compare_strictly(|way| iperf3(way, &["-R"]));
}

#[test]
fn iperf3_sends_over_eight_connections_and_both_ways() {
    need("iperf3", "iperf3");
    compare_strictly(|way| iperf3(way, &["-P", "8"]));
    compare_strictly(|way| iperf3(way, &["--bidir"]));
}
