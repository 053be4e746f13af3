// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process that does not outlive its owner, with its output in a file.
//!
//! Invariant: dropped, it is dead and reaped; the kernel kills it if the thread that started it
//! dies first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a condition without an event of its own is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program ARGS…` with standard output and error in the file `log`.
    ///
    /// # Errors
    /// `log` cannot be written, or setpriv(1) cannot be started.
    pub fn start(name: &str, argv: &[String], log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(argv)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start setpriv (Debian package util-linux)")?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill9(&mut self) {
        // An error means that it has ended already; waiting then reaps it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal by its name for kill(1): `INT`, `TERM`.
    ///
    /// # Errors
    /// It has ended and was waited for.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        // Not waited for, it keeps its number, so the signal reaches nobody else.
        if let Some(status) = self.ended() {
            bail!("{} ended with {status}:\n{}", self.name, self.last_words());
        }
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status()?;
        if !status.success() {
            bail!("{} cannot be sent SIG{name}", self.name);
        }
        Ok(())
    }

    /// Waits until it ends by itself, and well; its output.
    ///
    /// # Errors
    /// It fails, or does not end within `patience`.
    pub fn finish(mut self, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            if Instant::now() >= deadline {
                bail!("{} has not ended in {patience:?}:\n{}", self.name, self.last_words());
            }
            std::thread::sleep(LOOK);
        };
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.last_words());
        }
        Ok(self.output())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last lines of its output.
    pub fn last_words(&self) -> String {
        last_lines(&self.log, 15)
    }

    /// Everything it wrote so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until `condition` is true; fails when the process ends or `patience` is over.
    pub fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !condition() {
            if let Some(status) = self.ended() {
                bail!("{} ended with {status} before {what}:\n{}", self.name, self.last_words());
            }
            if Instant::now() >= deadline {
                bail!("{}: not within {patience:?}: {what}:\n{}", self.name, self.last_words());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The last `count` lines of a file, for error messages.
pub(crate) fn last_lines(path: &Path, count: usize) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .iter()
        .skip(lines.len().saturating_sub(count))
        .map(|line| format!("  | {line}\n"))
        .collect()
}
