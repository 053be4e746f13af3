// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A command that runs in a guest.
//!
//! Invariant: dropped, it is killed in the guest with its whole process group.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ism_agent::host::{Command, Error, Event};
use ism_agent::message::{Exit, Stream};

/// How a command ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A command in a guest.
pub struct Running {
    /// What was asked for, for messages.
    pub(crate) what: String,
    pub(crate) command: Command,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Option<Exit>,
}

impl Running {
    pub(crate) fn new(what: String, command: Command) -> Self {
        Self { what, command, stdout: Vec::new(), stderr: Vec::new(), exit: None }
    }

    /// Waits for its end, whatever that is; an error if it takes longer than `patience`.
    pub fn wait(mut self, patience: Duration) -> Result<Output> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(exit) = self.exit {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Ok(Output { exit, stdout: text(&self.stdout), stderr: text(&self.stderr) });
            }
            self.advance(deadline)?;
        }
    }

    /// Waits for its end with exit status 0.
    pub fn succeed(self, patience: Duration) -> Result<Output> {
        let what = self.what.clone();
        let output = self.wait(patience)?;
        if !output.exit.success() {
            bail!("{what}: {}\n{}{}", output.exit, output.stdout, output.stderr);
        }
        Ok(output)
    }

    /// Waits until its output (either stream) contains `text`.
    pub fn wait_for_output(&mut self, text: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !self.output().contains(text) {
            if let Some(exit) = self.exit {
                bail!("{}: {exit} without «{text}»:\n{}", self.what, self.output());
            }
            self.advance(deadline).with_context(|| format!("waiting for «{text}»"))?;
        }
        Ok(())
    }

    /// Kills it with a signal.
    pub fn kill(&self, signal: i32) -> Result<()> {
        Ok(self.command.kill(signal)?)
    }

    /// What it wrote so far, both streams.
    pub fn output(&self) -> String {
        let (stdout, stderr) =
            (String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr));
        format!("{stdout}{stderr}")
    }

    fn advance(&mut self, deadline: Instant) -> Result<()> {
        match self.command.next(Some(deadline)) {
            Ok(Event::Started(_)) => {}
            Ok(Event::Output(Stream::Stdout, data)) => self.stdout.extend(data),
            Ok(Event::Output(Stream::Stderr, data)) => self.stderr.extend(data),
            Ok(Event::Exited(exit)) => self.exit = Some(exit),
            Err(Error::TimedOut) => {
                bail!(
                    "{}: still running at its deadline: it hangs, or this host is overloaded; \
                     its output:\n{}",
                    self.what,
                    self.output()
                )
            }
            Err(error) => return Err(error).with_context(|| self.what.clone()),
        }
        Ok(())
    }
}
