// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Named steps of a long chore, with progress and times.
//!
//! Invariant: the first failing step ends the chore, and its name is in the error.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs steps one after another and keeps their times.
pub(crate) struct Steps {
    total: usize,
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// A chore of `total` steps.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, done: Vec::with_capacity(total) }
    }

    /// Runs one step.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("\n[{}/{}] {name}", self.done.len() + 1, self.total);
        let start = Instant::now();
        work().with_context(|| format!("step «{name}» failed"))?;
        self.done.push((name.to_owned(), start.elapsed()));
        Ok(())
    }

    /// Prints what ran and how long each took.
    pub(crate) fn summary(&self) {
        eprintln!("\nAll {} steps passed:", self.done.len());
        for (name, time) in &self.done {
            eprintln!("  {:>6.1} s  {name}", time.as_secs_f64());
        }
    }
}

/// Fails before minutes of work, not after, where a result cannot be written.
pub(crate) fn check_writable(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let opened = File::options().create(true).append(true).open(path);
    opened.map(drop).with_context(|| {
        format!("cannot write {}; name a file in a folder that is there", path.display())
    })
}

/// Runs a command with inherited input and output; an error if it does not exit with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
