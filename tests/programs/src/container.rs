// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a container is to the programs in it: namespaces of their own for network, mounts and processes, with the
//! daemon's socket mounted in.
//!
//! Invariant: everything in it has ended when the container is dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::wait_until;
use crate::way::Way;

/// Where the daemon's socket is in it.
const SOCKET: &str = "/run/vhost-user-ism/apps.sock";
/// Has a /run of its own with the socket `$1`, if there is one, at `$0`; says so, and keeps the namespaces until the
/// test's end closes its input.
const KEEP: &str = r#"mount -t tmpfs none /run && mkdir "${0%/*}" && touch "$0" &&
    { [ -z "$1" ] || mount --bind "$1" "$0"; } && ip link set lo up && echo up && read -r _"#;

/// Namespaces.
#[derive(Debug)]
pub struct Container {
    keeper: Child,
    /// Its end is the keeper's.
    _input: ChildStdin,
    /// The first process in it, as the host numbers it.
    first: u32,
}

impl Container {
    /// Makes one for programs that run this way.
    ///
    /// # Errors
    /// It cannot be made: it needs root, unshare and ip.
    pub fn new(way: Way<'_>) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--mount-proc", "--kill-child"]);
        command.args(["sh", "-c", KEEP, SOCKET]);
        if let Way::Smc(lab) = way {
            command.arg(lab.socket());
        }
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = keeper.stdin.take().context("no pipe")?;
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().context("no pipe")?).read_line(&mut said)?;
        ensure!(said == "up\n", "no namespaces, which need root, unshare and ip");
        let id = keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let first = children.trim().parse().context("no process in it")?;
        Ok(Self { keeper, _input: input, first })
    }

    /// The process whose network namespace it is.
    pub fn owner(&self) -> u32 {
        self.first
    }

    /// The command that starts `program` in it.
    pub fn command(&self, way: Way<'_>, program: &str) -> Command {
        let target = self.first.to_string();
        let enter = ["nsenter", "--net", "--mount", "--pid", "--target", &target, "--"];
        let outside = way.command(program);
        let mut argv: Vec<_> =
            [outside.get_program()].into_iter().chain(outside.get_args()).collect();
        // Its cgroup and where it speaks to are the host's; from the launcher on it is in there.
        let launcher = argv.iter().position(|it| Path::new(it).ends_with("smc-run")).unwrap_or(0);
        if let Some(socket) = argv.iter().position(|it| *it == "-ds")
            && let Some(place) = argv.get_mut(socket + 1)
        {
            *place = SOCKET.as_ref();
        }
        argv.splice(launcher..launcher, enter.map(AsRef::as_ref));
        let mut argv = argv.into_iter();
        let mut command = Command::new(argv.next().unwrap_or_default());
        command.args(argv);
        command
    }

    /// Waits until somebody in it listens on a port of IPv4.
    ///
    /// # Errors
    /// Nobody does in time.
    pub fn wait_for_port(&self, port: u16) -> Result<()> {
        let table = format!("/proc/{}/net/tcp", self.first);
        let entry = format!(":{port:04X} 00000000:0000 0A");
        let listens = || std::fs::read_to_string(&table).is_ok_and(|table| table.contains(&entry));
        wait_until("a listener in the container", listens)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended. The first process in it ends with it, and all others with that.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
