// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The programs of the demo, run between two processes over one transport.
//!
//! Invariant: both transports run the same unmodified programs with the same arguments; SMC only
//! adds `smc-run` in front.

use std::fs::File;
use std::io::{self, Read};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ism_harness::Process;

use super::lab::Lab;
use crate::demo::parse;
use crate::demo::report::{Row, Transport};

/// Bytes of the stream whose hash is compared.
const STREAM_BYTES: u32 = 32 << 20;
/// A case's programs end by themselves; this is for those that do not.
const GRACE: Duration = Duration::from_secs(20);

/// What is run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// `sockperf ping-pong`, 14-byte messages: the median latency.
    PingPong,
    /// `sockperf throughput`, 64 000-byte messages.
    Throughput,
    /// `iperf3`, one stream.
    Iperf3,
    /// Random bytes through socat, whose SHA-256 is compared.
    Stream,
}

impl Case {
    pub(super) const ALL: [Self; 4] =
        [Self::PingPong, Self::Throughput, Self::Iperf3, Self::Stream];

    /// As in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PingPong => "sockperf-pp-14",
            Self::Throughput => "sockperf-tp-64000",
            Self::Iperf3 => "iperf3",
            Self::Stream => "stream",
        }
    }
}

/// What a case showed.
pub(super) struct Measured {
    /// The stream has none.
    pub(super) row: Option<Row>,
    /// Bytes of user data that the programs say they exchanged.
    pub(super) bytes: u64,
}

/// Where and how the programs talk.
pub(super) struct Pair<'a> {
    pub(super) lab: &'a Lab,
    pub(super) transport: Transport,
    /// How long each program measures.
    pub(super) seconds: u32,
}

impl Pair<'_> {
    /// Runs one case.
    pub(super) fn run(&self, case: Case) -> Result<Measured> {
        match case {
            Case::PingPong => {
                let output = self.sockperf(case, "ping-pong", 14)?;
                let messages = parse::sockperf_received(&output)?;
                // There and back.
                let bytes = 2 * 14 * messages;
                Ok(self.measured(case, parse::sockperf_p50(&output)?, "us", bytes))
            }
            Case::Throughput => {
                let output = self.sockperf(case, "throughput", 64_000)?;
                let bytes = 64_000 * parse::sockperf_sent(&output)?;
                Ok(self.measured(case, parse::sockperf_mb_per_s(&output)?, "MB/s", bytes))
            }
            Case::Iperf3 => self.iperf3(),
            Case::Stream => self.stream(),
        }
    }

    fn measured(&self, case: Case, value: f64, unit: &'static str, bytes: u64) -> Measured {
        let row = Row { case: case.name(), transport: self.transport, value, unit };
        Measured { row: Some(row), bytes }
    }

    /// A port of its own for each run: sockperf ends without closing its connections.
    fn port(&self, case: Case) -> u16 {
        let base = if self.transport == Transport::Tcp { 11111 } else { 11121 };
        base + case as u16
    }

    fn spawn(&self, case: Case, end: &str, command: &str) -> Result<Process> {
        self.lab.spawn(case.name(), end, self.transport, command)
    }

    /// Runs a client to its end; its standard output.
    fn client(&self, case: Case, command: &str) -> Result<String> {
        let client = self.spawn(case, "client", command)?;
        finish(client, Duration::from_secs(self.seconds.into()) + GRACE)
            .with_context(|| format!("«{command}»"))
    }

    fn sockperf(&self, case: Case, test: &str, bytes: u32) -> Result<String> {
        let (port, seconds) = (self.port(case), self.seconds);
        let address = format!("--tcp -i 127.0.0.1 -p {port}");
        let mut server = self.spawn(case, "server", &format!("sockperf server {address}"))?;
        self.lab.wait_listening(&mut server, port)?;
        self.client(case, &format!("sockperf {test} {address} -m {bytes} -t {seconds}"))
    }

    fn iperf3(&self) -> Result<Measured> {
        let (case, port, seconds) = (Case::Iperf3, self.port(Case::Iperf3), self.seconds);
        let address = format!("-B 127.0.0.1 -p {port}");
        let mut server = self.spawn(case, "server", &format!("iperf3 -s -1 {address}"))?;
        self.lab.wait_listening(&mut server, port)?;
        let output =
            self.client(case, &format!("iperf3 -c 127.0.0.1 -p {port} -t {seconds} --json"))?;
        finish(server, GRACE).context("iperf3's server")?;
        let bytes = parse::iperf3_bytes(&output)?;
        Ok(self.measured(case, parse::iperf3_gbit_per_s(&output)?, "Gbit/s", bytes))
    }

    fn stream(&self) -> Result<Measured> {
        let (case, port) = (Case::Stream, self.port(Case::Stream));
        let sent = self.lab.file("sent");
        let mut random = File::open("/dev/urandom")?.take(STREAM_BYTES.into());
        io::copy(&mut random, &mut File::create(&sent)?)?;
        let received = self.lab.file(&format!("received-{}", self.transport));
        let receive = format!(
            "socat -u TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr CREATE:{}",
            received.display()
        );
        let mut receiver = self.spawn(case, "server", &receive)?;
        self.lab.wait_listening(&mut receiver, port)?;
        self.client(case, &format!("socat -u FILE:{} TCP:127.0.0.1:{port}", sent.display()))?;
        finish(receiver, GRACE).context("socat's receiver")?;
        ensure!(
            sha256(&sent)? == sha256(&received)?,
            "the stream arrived with another SHA-256 than it was sent with"
        );
        Ok(Measured { row: None, bytes: STREAM_BYTES.into() })
    }
}

fn sha256(file: &std::path::Path) -> Result<String> {
    let output = Command::new("sha256sum").stdin(File::open(file)?).output()?;
    let sum = String::from_utf8(output.stdout)?;
    ensure!(sum.len() > 64, "sha256sum printed «{sum}»");
    Ok(sum)
}

/// Waits until a program ends by itself; its standard output.
fn finish(mut process: Process, patience: Duration) -> Result<String> {
    let end = Instant::now() + patience;
    let status = loop {
        if let Some(status) = process.ended() {
            break status;
        }
        ensure!(Instant::now() < end, "not ended within {patience:?}:\n{}", process.last_words());
        sleep(Duration::from_millis(10));
    };
    ensure!(status.success(), "ended with {status}:\n{}", process.last_words());
    Ok(process.output())
}
