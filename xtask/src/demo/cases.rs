// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The programs of the demo, run between two VMs over one transport.
//!
//! Invariant: both transports run the same unmodified programs with the same arguments; SMC only
//! adds `smc_run` in front.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ism_harness::Vm;

use crate::figure::{Row, Transport};
use crate::host::parse;

/// Bytes of the stream whose hash is compared.
const STREAM_BYTES: u32 = 32 << 20;
/// A case's programs end by themselves; this is for those that do not.
const GRACE: Duration = Duration::from_secs(60);

/// Two VMs and how their programs are to talk.
pub(crate) struct Pair<'a> {
    pub(crate) server: &'a Vm,
    pub(crate) client: &'a Vm,
    pub(crate) transport: Transport,
    /// How long each program measures.
    pub(crate) seconds: u32,
}

impl Pair<'_> {
    fn program(&self, command: &str) -> String {
        if self.transport == Transport::Tcp {
            command.to_owned()
        } else {
            format!("smc_run {command}")
        }
    }

    /// A port of its own for each run of sockperf, which ends without closing its connections.
    fn port(&self, bytes: u32) -> u16 {
        let case = u16::from(bytes > 14);
        if self.transport == Transport::Tcp { 11111 + case } else { 11121 + case }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.seconds.into()) + GRACE
    }

    fn row(&self, case: &'static str, value: f64, unit: &'static str) -> Row {
        Row { case, transport: self.transport, value, unit }
    }

    /// `sockperf ping-pong`, 14-byte messages: the median latency.
    pub(crate) fn ping_pong(&self) -> Result<Row> {
        let output = self.sockperf("ping-pong", 14)?;
        Ok(self.row("sockperf-pp-14", parse::sockperf_p50(&output)?, "us"))
    }

    /// `sockperf throughput`, 64 000-byte messages.
    pub(crate) fn throughput(&self) -> Result<Row> {
        let output = self.sockperf("throughput", 64_000)?;
        Ok(self.row("sockperf-tp-64000", parse::sockperf_mb_per_s(&output)?, "MB/s"))
    }

    fn sockperf(&self, test: &str, bytes: u32) -> Result<String> {
        let (ip, port, seconds) = (self.server.ip(), self.port(bytes), self.seconds);
        let server = self.program(&format!("sockperf server --tcp -i {ip} -p {port}"));
        let _server = self.server.spawn(&server)?;
        self.server.wait_listening(port)?;
        let client = format!("sockperf {test} --tcp -i {ip} -p {port} -m {bytes} -t {seconds}");
        Ok(self.client.run_for(&self.program(&client), self.patience())?.stdout)
    }

    /// `iperf3`, one stream.
    pub(crate) fn iperf3(&self) -> Result<Row> {
        let server = self.server.spawn(&self.program("iperf3 --server --one-off"))?;
        self.server.wait_listening(5201)?;
        let (ip, seconds) = (self.server.ip(), self.seconds);
        let client = self.program(&format!("iperf3 --client {ip} --time {seconds} --json"));
        let output = self.client.run_for(&client, self.patience())?;
        server.succeed(GRACE).context("iperf3's server")?;
        Ok(self.row("iperf3", parse::iperf3_gbit_per_s(&output.stdout)?, "Gbit/s"))
    }

    /// Sends random bytes through socat and compares their SHA-256 at both ends.
    pub(crate) fn stream_is_intact(&self) -> Result<bool> {
        let receive = self.program("socat -u TCP-LISTEN:5000,reuseaddr STDOUT | sha256sum");
        let receiver = self.server.spawn(&receive)?;
        self.server.wait_listening(5000)?;
        let make = format!("head -c {STREAM_BYTES} /dev/urandom > /tmp/stream");
        // Random bytes are slow under TCG.
        self.client.run_for(&make, self.patience())?;
        let sent = self.client.run("sha256sum < /tmp/stream")?.stdout;
        let ip = self.server.ip();
        let send = self.program(&format!("socat -u FILE:/tmp/stream TCP:{ip}:5000"));
        self.client.run_for(&send, self.patience())?;
        let received = receiver.succeed(GRACE).context("socat's receiver")?.stdout;
        self.client.run("rm /tmp/stream")?;
        ensure!(sent.len() > 64, "sha256sum printed «{sent}»");
        Ok(sent == received)
    }
}
