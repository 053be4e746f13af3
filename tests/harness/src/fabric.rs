// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A running daemon with its members' sockets.
//!
//! Invariant: when `start` returns, every member's socket can be connected to.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::Process;
use crate::repo;

const PATIENCE: Duration = Duration::from_secs(10);

/// How the fabric's members exchange data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through memory that both members map.
    Mapped,
    /// The daemon copies.
    Copied,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Mapped => "mapped",
            Mode::Copied => "copied",
        })
    }
}

/// What to start a daemon with.
pub struct FabricSpec {
    mode: Mode,
    members: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl FabricSpec {
    /// Adds a VM and the groups it is in.
    #[must_use]
    pub fn member(mut self, name: &str, groups: &[&str]) -> Self {
        self.members.push((name.to_owned(), groups.join("+")));
        self
    }

    /// Adds an argument to the daemon's command line.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the daemon.
    pub fn start(self) -> Result<Fabric> {
        let dir = tempfile::tempdir().context("no temporary folder")?;
        let program = repo::daemon()?;
        let mut fabric = Fabric { process: None, program, dir, spec: self };
        fabric.restart()?;
        Ok(fabric)
    }
}

/// A running daemon.
pub struct Fabric {
    // Before the folder, so that it ends before its sockets go.
    process: Option<Process>,
    program: PathBuf,
    dir: TempDir,
    spec: FabricSpec,
}

impl Fabric {
    /// A fabric in the given mode, without members yet.
    #[expect(clippy::new_ret_no_self, reason = "a builder reads best as Fabric::new(…)…start()")]
    pub fn new(mode: Mode) -> FabricSpec {
        FabricSpec { mode, members: Vec::new(), arguments: Vec::new() }
    }

    /// Starts the daemon (again, after `kill9`) with the members of the beginning.
    pub fn restart(&mut self) -> Result<()> {
        self.process = None;
        let mut argv = vec![self.program.display().to_string()];
        argv.extend(["--mode".into(), self.spec.mode.to_string()]);
        argv.extend(["--control-socket".into(), self.control().display().to_string()]);
        for (name, groups) in &self.spec.members {
            argv.extend(["--vm".into(), self.vm_argument(name, groups)]);
        }
        argv.extend(self.spec.arguments.iter().cloned());
        let sockets: Vec<PathBuf> =
            self.spec.members.iter().map(|(name, _)| self.socket(name)).collect();
        let mut process = Process::start("vhost-user-ism", &argv, self.dir.path().join("log"))?;
        let control = self.control();
        process.wait_until("its sockets are there", PATIENCE, || {
            control.exists() && sockets.iter().all(|socket| socket.exists())
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn vm_argument(&self, name: &str, groups: &str) -> String {
        let groups = if groups.is_empty() { String::new() } else { format!(",groups={groups}") };
        format!("name={name},socket={}{groups}", self.socket(name).display())
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// The vhost-user socket of a member.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }

    /// How the members exchange data.
    pub fn mode(&self) -> Mode {
        self.spec.mode
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// The daemon's process; an error once it was killed.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the daemon was killed")
    }

    /// Runs `vhost-user-ism ctl ARGS…` against this daemon and returns what it prints.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(["ctl", "--control-socket"])
            .arg(self.control())
            .args(arguments)
            .output()
            .context("cannot start vhost-user-ism ctl")?;
        if !output.status.success() {
            bail!("ctl {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Adds a VM to the running daemon.
    pub fn add(&self, name: &str, groups: &[&str]) -> Result<()> {
        self.ctl(&["add-vm", &self.vm_argument(name, &groups.join("+"))]).map(drop)
    }

    /// Removes a VM from the running daemon.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.ctl(&["remove-vm", name]).map(drop)
    }

    /// What the daemon wrote to its log.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }
}
