// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The result: a table for people with ratios and targets, and JSON for programs.
//!
//! Invariant: a target is met by the figures of the report or it is not; without figures it is neither.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::case::{CASES, Case, Target};
use crate::figure::Transport;

/// The transports in the order of the columns.
const COLUMNS: [Transport; 5] =
    [Transport::Tcp, Transport::Unix, Transport::SmcdUser, Transport::Iceoryx2, Transport::Limit];
/// What rounds to 0.0.
const NOTHING: f64 = 0.05;

/// A case over a transport.
pub(super) struct Figure {
    pub(super) case: &'static Case,
    pub(super) transport: Transport,
    /// One a run.
    pub(super) samples: Vec<f64>,
}

impl Figure {
    pub(super) fn new(case: &'static Case, transport: Transport) -> Self {
        Self { case, transport, samples: Vec::new() }
    }

    /// The median of the runs.
    fn value(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        if sorted.len().is_multiple_of(2) {
            f64::midpoint(at(middle.saturating_sub(1)), at(middle))
        } else {
            at(middle)
        }
    }
}

/// All figures.
#[derive(Default)]
pub(super) struct Report {
    pub(super) figures: Vec<Figure>,
    /// Of the checkout that was measured.
    pub(super) commit: String,
}

impl Report {
    fn value(&self, case: &Case, transport: Transport) -> Option<f64> {
        let mut figures = self.figures.iter();
        let is_it = |it: &&Figure| it.case.name == case.name && it.transport == transport;
        figures.find(is_it).map(Figure::value)
    }

    /// How many times as good as TCP: above 1 is better, for costs as for rates.
    pub(super) fn ratio(&self, case: &Case, transport: Transport) -> Option<f64> {
        let (value, tcp) = (self.value(case, transport)?, self.value(case, Transport::Tcp)?);
        let ratio = if case.is_cost { tcp / value } else { value / tcp };
        // Nothing against nothing is no ratio.
        ratio.is_finite().then_some(ratio)
    }

    /// Whether SMC-D meets a target; `None` if it was not measured.
    fn meets(&self, case: &Case, target: Target) -> Option<bool> {
        Some(match target {
            Target::TimesTcp(times) => self.ratio(case, Transport::SmcdUser)? >= times,
            Target::BetterThanIceoryx2 => {
                self.ratio(case, Transport::SmcdUser)? > self.ratio(case, Transport::Iceoryx2)?
            }
            Target::Zero => self.value(case, Transport::SmcdUser)? < NOTHING,
        })
    }

    /// The cases that have figures.
    pub(super) fn cases(&self) -> impl Iterator<Item = &'static Case> {
        let has_figures = |case: &&Case| self.figures.iter().any(|it| it.case.name == case.name);
        CASES.iter().filter(has_figures)
    }

    /// The comparison as lines of text.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{:<18} {:<10}", "case", "unit");
        for transport in COLUMNS {
            let _ = write!(text, " {transport:>10}");
        }
        let _ = writeln!(text, " {:>9}  target", "x TCP");
        for case in self.cases() {
            let _ = write!(text, "{:<18} {:<10}", case.name, case.unit);
            for transport in COLUMNS {
                let value = self.value(case, transport).map_or_else(|| "-".to_owned(), figure);
                let _ = write!(text, " {value:>10}");
            }
            let ratio = self.ratio(case, Transport::SmcdUser);
            let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let targets: Vec<String> =
                case.targets.iter().map(|&target| self.verdict(case, target)).collect();
            let _ = writeln!(text, " {ratio:>9}  {}", targets.join("; "));
        }
        text
    }

    fn verdict(&self, case: &Case, target: Target) -> String {
        let wanted = match target {
            Target::TimesTcp(times) => format!("at least {times} x TCP"),
            Target::BetterThanIceoryx2 => "better than iceoryx2".to_owned(),
            Target::Zero => "0.0".to_owned(),
        };
        let verdict = match self.meets(case, target) {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        format!("{wanted}: {verdict}")
    }

    /// `{"commit", "rows": [{"case", "transport", "value", "unit", "samples"}]}`
    pub(super) fn to_json(&self) -> Value {
        let row = |figure: &Figure| {
            json!({
                "case": figure.case.name,
                "transport": figure.transport,
                "value": figure.value(),
                "unit": figure.case.unit,
                "samples": figure.samples,
            })
        };
        json!({ "commit": self.commit, "rows": self.figures.iter().map(row).collect::<Vec<_>>() })
    }

    /// Adds the rows of a report's JSON of cases that this one has not.
    pub(super) fn add(&mut self, text: &[u8]) -> Result<()> {
        let json: Value = serde_json::from_slice(text)?;
        let text_of = |value: &Value, name: &str| {
            value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let known: Vec<&str> = self.cases().map(|case| case.name).collect();
        for row in json.get("rows").and_then(Value::as_array).context("it has no rows")? {
            let (name, transport) = (text_of(row, "case"), text_of(row, "transport"));
            if known.contains(&name.as_str()) {
                continue;
            }
            let case = CASES.iter().find(|case| case.name == name);
            let transport = COLUMNS.into_iter().find(|it| it.to_string() == transport);
            let (case, transport) =
                case.zip(transport).with_context(|| format!("{row} is of another bench"))?;
            let samples = row.get("samples").and_then(Value::as_array).context("no samples")?;
            let samples = samples.iter().filter_map(Value::as_f64).collect();
            self.figures.push(Figure { case, transport, samples });
        }
        let commit = text_of(&json, "commit");
        if !self.commit.contains(&commit) {
            self.commit = [self.commit.as_str(), &commit].join(" ").trim().to_owned();
        }
        Ok(())
    }
}

/// With as many places as say something.
fn figure(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.3}"),
        value if value < 1000.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(figures: &[(&str, Transport, &[f64])]) -> Report {
        let figure = |&(name, transport, samples): &(&str, Transport, &[f64])| Figure {
            case: CASES.iter().find(|case| case.name == name).unwrap(),
            transport,
            samples: samples.to_vec(),
        };
        Report { figures: figures.iter().map(figure).collect(), commit: "abc".into() }
    }

    #[test]
    fn medians_are_compared_and_more_is_better_only_for_rates() {
        let report = report(&[
            ("iperf3", Transport::Tcp, &[9.0, 10.0, 50.0]),
            ("iperf3", Transport::SmcdUser, &[40.0, 20.0]),
            ("pp-asleep", Transport::Tcp, &[30.0]),
            ("pp-asleep", Transport::SmcdUser, &[40.0]),
        ]);
        let table = report.table();
        assert!(table.contains("at least 3 x TCP: met"), "{table}");
        assert!(table.contains("at least 1 x TCP: MISSED"), "{table}");
        assert!(table.contains(" 0.75 "), "{table}");
    }

    #[test]
    fn the_ping_pong_has_two_targets() {
        let report = report(&[
            ("sockperf-pp-14", Transport::Tcp, &[20.0]),
            ("sockperf-pp-14", Transport::SmcdUser, &[0.4]),
            ("sockperf-pp-14", Transport::Iceoryx2, &[0.3]),
        ]);
        let table = report.table();
        assert!(table.contains("at least 40 x TCP: met; better than iceoryx2: MISSED"), "{table}");
    }

    #[test]
    fn what_is_missing_is_neither_met_nor_missed() {
        let table = report(&[("iperf3", Transport::Tcp, &[9.0])]).table();
        assert!(table.contains("at least 3 x TCP: not measured"), "{table}");
    }

    #[test]
    fn idle_is_nothing_or_missed() {
        for (value, verdict) in [(0.0, "0.0: met"), (0.3, "0.0: MISSED")] {
            let table = report(&[("idle-cpu", Transport::SmcdUser, &[value])]).table();
            assert!(table.contains(verdict), "{table}");
        }
    }

    #[test]
    fn json_has_the_promised_names_and_can_be_added() {
        let first = report(&[("iperf3", Transport::Tcp, &[9.0])]);
        let json = first.to_json();
        for (name, value) in
            [("case", json!("iperf3")), ("transport", json!("tcp")), ("unit", json!("Gbit/s"))]
        {
            assert_eq!(json["rows"][0][name], value);
        }
        let mut second = report(&[("connections", Transport::Tcp, &[1.0])]);
        second.add(json.to_string().as_bytes()).unwrap();
        second.add(json.to_string().as_bytes()).unwrap();
        assert_eq!(second.to_json()["rows"].as_array().unwrap().len(), 2);
        assert!(second.add(b"{}").is_err());
    }
}
