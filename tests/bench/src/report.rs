// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Rows of a result, as a table and as JSON.
//!
//! Invariant: a row's name says all its conditions.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub case: String,
    /// The median, or the only value.
    pub value: f64,
    /// Unit of both numbers.
    pub unit: &'static str,
    /// The 99th percentile, if there were several runs.
    pub p99: Option<f64>,
    /// What the value may be at most, if there is a target.
    pub target: Option<f64>,
}

impl Row {
    /// Median and 99th percentile of `samples`, in nanoseconds.
    pub fn of_times(case: impl Into<String>, samples: Vec<Duration>) -> Self {
        let nanoseconds = samples.iter().map(|time| time.as_secs_f64() * 1e9).collect();
        Self::of_samples(case, nanoseconds)
    }

    /// Median and 99th percentile of `samples`, which are nanoseconds already.
    pub fn of_samples(case: impl Into<String>, mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| {
            let index = samples.len().saturating_sub(1) * percent / 100;
            samples.get(index).copied().unwrap_or(f64::NAN)
        };
        Self { case: case.into(), value: at(50), unit: "ns", p99: Some(at(99)), target: None }
    }

    /// A single value.
    pub fn of_value(case: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { case: case.into(), value, unit, p99: None, target: None }
    }

    /// A single number of things.
    pub fn of_count(case: impl Into<String>, count: u64, unit: &'static str) -> Self {
        Self::of_value(case, float(count), unit)
    }

    /// The row with a target.
    #[must_use]
    pub fn within(self, target: u64) -> Self {
        Self { target: Some(float(target)), ..self }
    }

    /// Whether there is a target that the value exceeds.
    pub fn misses_target(&self) -> bool {
        self.target.is_some_and(|target| self.value > target)
    }
}

/// `count`, or the greatest number of 32 bits: no more is counted here.
fn float(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

/// All rows of a run.
#[derive(Clone, Debug, Default)]
pub struct Report(pub Vec<Row>);

impl Report {
    /// The report as `{"rows":[{"case","value","unit","p99","target"}]}`.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .0
            .iter()
            .map(|Row { case, value, unit, p99, target }| {
                json!({"case": case, "value": value, "unit": unit, "p99": p99, "target": target})
            })
            .collect();
        json!({ "rows": rows })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|row| row.case.len()).max().unwrap_or(0);
        writeln!(f, "{:width$}  {:>12}  {:>12}  unit", "case", "median", "p99")?;
        for row in &self.0 {
            let Row { case, value, unit, p99, target } = row;
            // Below 100 a digit more: a message takes a few nanoseconds.
            let digits = |n: f64| usize::from(n < 100.0 && n.fract() != 0.0);
            let number = |n: f64| format!("{n:.*}", digits(n));
            let p99 = p99.map_or_else(|| "-".to_owned(), number);
            write!(f, "{case:width$}  {:>12}  {p99:>12}  {unit:2}", number(*value))?;
            let missed = if row.misses_target() { " MISSED" } else { "" };
            match target {
                Some(target) => writeln!(f, "  target {target}{missed}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_p99_are_samples() {
        let samples = (1..=100).rev().map(Duration::from_nanos).collect();
        let row = Row::of_times("x", samples);
        assert_eq!((row.value, row.p99), (50.0, Some(99.0)));
        assert_eq!(Row::of_times("x", vec![Duration::from_nanos(7)]).p99, Some(7.0));
    }

    #[test]
    fn json_has_the_promised_fields() {
        let report = Report(vec![Row::of_value("idle", 0.5, "%")]);
        let row = &report.to_json()["rows"][0];
        assert_eq!(row["case"], "idle");
        assert_eq!(row["value"], 0.5);
        assert_eq!(row["unit"], "%");
        assert!(row["p99"].is_null() && row["target"].is_null());
    }

    #[test]
    fn a_missed_target_is_told() {
        for (count, missed) in [(512, false), (513, true)] {
            let row = Row::of_count("state", count, "B").within(512);
            assert_eq!(row.misses_target(), missed);
            assert_eq!(Report(vec![row]).to_string().contains("target 512 MISSED"), missed);
        }
    }
}
