// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Network namespaces of the tests' own: every port of theirs is free, and nobody else's packets are
//! seen.
//!
//! Invariant: a thread that has entered one leaves it again; a namespace is gone when its test ends,
//! however it ends.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Makes lo usable, says so, and keeps the namespace until the test's end closes its input.
const KEEP: &str = "ip link set lo up && echo up && read -r _";

/// The namespace that the calling thread is in.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace with its loopback up.
#[derive(Debug)]
pub struct Network {
    keeper: Child,
    /// Its end is the keeper's.
    _input: ChildStdin,
    namespace: File,
}

impl Network {
    /// Makes one.
    ///
    /// # Errors
    /// It cannot be made: it needs root, unshare and ip.
    pub fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", KEEP]);
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = keeper.stdin.take().context("no pipe")?;
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().context("no pipe")?).read_line(&mut said)?;
        ensure!(said == "up\n", "no network namespace, which needs root, unshare and ip");
        let namespace = File::open(format!("/proc/{}/ns/net", keeper.id()))?;
        Ok(Self { keeper, _input: input, namespace })
    }

    /// Runs `act` in it; what it starts stays in it.
    ///
    /// # Errors
    /// The namespace cannot be entered: it needs root.
    pub fn inside<R>(&self, act: impl FnOnce() -> R) -> Result<R> {
        let _back = Back(File::open(OWN)?);
        enter(&self.namespace)?;
        Ok(act())
    }

    /// The process whose namespace it is, for `ip link set … netns`.
    pub fn owner(&self) -> u32 {
        self.keeper.id()
    }
}

fn enter(namespace: impl AsFd) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

/// Moves the thread back, also after a panic.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        // It has just been there.
        let _ = enter(&self.0);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
