// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The demo's result, as a table for people and JSON for programs.
//!
//! Invariant: every value was measured in this run.

use serde::Serialize;

use crate::figure::{Row, Transport};

/// Everything the demo shows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// "kvm" or "tcg"; "none" without VMs.
    pub(crate) accel: String,
    /// "mapped" or "copied".
    pub(crate) mode: String,
    /// Whether senders wrote into the peer's buffer without copying first.
    pub(crate) nocopy: bool,
    /// How the TCP side travels.
    pub(crate) network: String,
    pub(crate) rows: Vec<Row>,
    /// Connections that the two kernels, or the two processes' preloads, count as SMC-D.
    pub(crate) smcd_connections: u64,
    /// Connections that fell back to TCP although SMC was asked for.
    pub(crate) fallbacks: u64,
    /// Whether the stream arrived with the hash it was sent with, over both transports.
    pub(crate) sha256_equal: bool,
}

impl Report {
    /// The comparison as lines of text.
    pub(crate) fn table(&self) -> String {
        let mut text =
            format!("{:<20} {:>16} {:>16} {:>16}\n", "case", "TCP", "SMC-D (ours)", "SMC-D is");
        for tcp in self.rows.iter().filter(|row| row.transport == Transport::Tcp) {
            let smcd = self
                .rows
                .iter()
                .find(|row| row.case == tcp.case && row.transport != Transport::Tcp);
            // Microseconds may be fractions.
            let places = |row: &Row| if row.value < 10.0 { 3 } else { 1 };
            let figure = |row: &Row| format!("{:.*} {}", places(row), row.value, row.unit);
            let (ours, verdict) = match smcd {
                Some(row) => (figure(row), verdict(tcp, row)),
                None => ("not measured".to_owned(), "-".to_owned()),
            };
            text += &format!("{:<20} {:>16} {ours:>16} {verdict:>16}\n", tcp.case, figure(tcp));
        }
        text
    }
}

/// How many times as fast as TCP in words, since of a time less is better and of a rate more.
fn verdict(tcp: &Row, ours: &Row) -> String {
    let is_a_time = ours.unit == "us";
    let speedup = if is_a_time { tcp.value / ours.value } else { ours.value / tcp.value };
    // Nothing against nothing, or against something, is no ratio.
    if !speedup.is_normal() {
        return "-".to_owned();
    }
    let (ratio, word) =
        if speedup < 1.0 { (speedup.recip(), "slower") } else { (speedup, "faster") };
    match format!("{ratio:.2}").as_str() {
        "1.00" => "as fast".to_owned(),
        ratio => format!("{ratio} x {word}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = |transport, value| Row { case: "iperf3", transport, value, unit: "Gbit/s" };
        Report {
            accel: "tcg".into(),
            mode: "mapped".into(),
            nocopy: false,
            network: "tap + bridge".into(),
            rows: vec![row(Transport::Tcp, 5.0), row(Transport::SmcdKernel, 15.0)],
            smcd_connections: 2,
            fallbacks: 0,
            sha256_equal: true,
        }
    }

    #[test]
    fn the_table_says_which_is_faster() {
        let verdict = |unit, tcp, ours| {
            let row = |transport, value| Row { case: "case", transport, value, unit };
            let rows = vec![row(Transport::Tcp, tcp), row(Transport::SmcdUser, ours)];
            let table = Report { rows, ..report() }.table();
            table.trim_end().rsplit("  ").next().unwrap_or_default().trim().to_owned()
        };
        assert_eq!(verdict("Gbit/s", 5.0, 15.0), "3.00 x faster");
        assert_eq!(verdict("Gbit/s", 15.0, 5.0), "3.00 x slower");
        assert_eq!(verdict("us", 16.9, 10.0), "1.69 x faster");
        assert_eq!(verdict("us", 10.0, 16.9), "1.69 x slower");
        assert_eq!(verdict("us", 10.0, 0.0), "-");
        for ours in [9.97, 10.0, 10.04] {
            assert_eq!(verdict("us", 10.0, ours), "as fast");
        }
        assert_eq!(verdict("us", 10.0, 10.06), "1.01 x slower");
    }

    #[test]
    fn the_json_has_the_promised_names() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["rows"][1]["transport"], "smcd-kernel");
        for name in ["accel", "mode", "rows", "smcd_connections", "fallbacks", "sha256_equal"] {
            assert!(json.get(name).is_some(), "{name}");
        }
    }
}
