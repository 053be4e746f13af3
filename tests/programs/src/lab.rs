// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lab of a test: in the network namespace of its thread, and for other users too.
//!
//! Invariant: it is gone when the test ends.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use ism_harness::{LabSpec, Way};

/// Who is let in: root, www-data, and the one that tests let programs run as.
const USERS: [u32; 3] = [0, 33, USER];
/// A user who is not root.
pub const USER: u32 = 1234;

/// A daemon and a cgroup with discovery.
#[derive(Debug)]
pub struct Lab(ism_harness::Lab);

impl Lab {
    /// Starts them.
    ///
    /// # Errors
    /// They cannot be started: they need root.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// The same; the daemon's configuration of its processes has these lines as well.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_with(lines: &str) -> Result<Self> {
        Ok(Self(LabSpec::new().here().users(&USERS).lines(lines).start()?))
    }

    /// The daemon's configuration.
    pub fn config(&self) -> PathBuf {
        self.0.config()
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.0.door()
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// There is none.
    pub fn daemon(&self) -> Result<u32> {
        self.0.daemon()
    }

    /// Where [`Lab::log`] comes from.
    pub fn log_file(&self) -> PathBuf {
        self.0.file("log")
    }

    /// The command that starts `program` with the preload, which says what becomes of connections.
    ///
    /// # Panics
    /// The lab has not started.
    pub fn command(&self, program: &str) -> Command {
        let argv = self.0.prefix(Way::Smc, &self.log_file()).expect("the lab has started");
        let (first, rest) = argv.split_first().expect("the launcher");
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    /// What the programs and the preload have said.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}
