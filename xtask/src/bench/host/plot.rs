// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ratios to TCP as a bar chart in SVG.
//!
//! Invariant: the axis is logarithmic, TCP is its 1, and to the right is better.

use std::fmt::Write;

use super::case::Target;
use super::report::Report;
use crate::figure::Transport;

/// The bars of a case, in this order, and their colours.
const BARS: [(Transport, &str, &str); 4] = [
    (Transport::Unix, "AF_UNIX", "#9aa5b1"),
    (Transport::SmcdUser, "SMC-D (ours)", "#1f6feb"),
    (Transport::Iceoryx2, "iceoryx2", "#d29922"),
    (Transport::Limit, "limit", "#57606a"),
];
const WIDTH: f64 = 860.0;
/// Where the axis begins and ends.
const LEFT: f64 = 160.0;
const RIGHT: f64 = WIDTH - 70.0;
/// The axis's ends, in powers of ten.
const LOW: f64 = -1.0;
const HIGH: f64 = 3.0;
const BAR: f64 = 13.0;
const GAP: f64 = 14.0;
const TOP: f64 = 78.0;

/// The place of a ratio on the axis.
fn x(ratio: f64) -> f64 {
    let share = (ratio.log10().clamp(LOW, HIGH) - LOW) / (HIGH - LOW);
    LEFT + share * (RIGHT - LEFT)
}

/// The chart.
pub(super) fn svg(report: &Report) -> String {
    let mut bars = String::new();
    let mut y = TOP;
    for case in report.cases() {
        let measured: Vec<_> = BARS
            .iter()
            .filter_map(|bar| report.ratio(case, bar.0).map(|ratio| (bar, ratio)))
            .collect();
        if measured.is_empty() {
            continue;
        }
        let height = BAR * measured.len() as f64;
        let middle = y + height / 2.0 + 4.0;
        let _ = writeln!(
            bars,
            r#"<text x="{}" y="{middle:.1}" text-anchor="end">{}</text>"#,
            LEFT - 10.0,
            case.name
        );
        let first = y;
        for ((_, _, colour), ratio) in measured {
            let (from, to) = (x(ratio.min(1.0)), x(ratio.max(1.0)));
            let _ = writeln!(
                bars,
                r#"<rect x="{from:.1}" y="{y:.1}" width="{:.1}" height="{}" fill="{colour}"/>
<text class="small" x="{:.1}" y="{:.1}">{ratio:.2}</text>"#,
                (to - from).max(1.0),
                BAR - 2.0,
                to + 4.0,
                y + BAR - 4.0
            );
            y += BAR;
        }
        for target in case.targets {
            if let Target::TimesTcp(times) = target {
                let at = x(*times);
                let _ = writeln!(
                    bars,
                    r##"<line x1="{at:.1}" x2="{at:.1}" y1="{:.1}" y2="{:.1}" stroke="#cf222e" stroke-width="2"/>"##,
                    first - 3.0,
                    y + 1.0
                );
            }
        }
        y += GAP;
    }
    let height = y + 10.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">
<style>text {{ font: 13px sans-serif; fill: #1f2328 }} .small {{ font-size: 11px }}</style>
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{LEFT}" y="20">How many times as good as TCP (logarithmic; red: what is aimed at)</text>
{}{}{bars}</svg>
"##,
        legend(),
        axis(y)
    )
}

fn legend() -> String {
    let mut text = String::new();
    for (number, (_, name, colour)) in BARS.iter().enumerate() {
        let left = LEFT + 140.0 * number as f64;
        let _ = writeln!(
            text,
            r#"<rect x="{left}" y="31" width="11" height="11" fill="{colour}"/>
<text x="{}" y="41">{name}</text>"#,
            left + 17.0
        );
    }
    text
}

fn axis(bottom: f64) -> String {
    let mut text = String::new();
    for (label, ratio) in
        [("0.1", 0.1), ("1 = TCP", 1.0), ("10", 10.0), ("100", 100.0), ("1000", 1000.0)]
    {
        let (at, colour) = (x(ratio), if ratio == 1.0 { "#1f2328" } else { "#d0d7de" });
        let _ = writeln!(
            text,
            r#"<line x1="{at:.1}" x2="{at:.1}" y1="{}" y2="{bottom:.1}" stroke="{colour}"/>
<text class="small" x="{at:.1}" y="{}" text-anchor="middle">{label}</text>"#,
            TOP - 8.0,
            TOP - 13.0
        );
    }
    text
}
