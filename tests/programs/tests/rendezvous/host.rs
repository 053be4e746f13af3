// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A daemon, and programs under `smc-run` that nobody serves the TCP option for.
//!
//! Invariant: all is gone when the test ends.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ism_programs::{Network, Running, need, programs, run, unused_port, wait_for_port, wait_until};
use tempfile::TempDir;

/// A daemon with two doors, each to a group of its own.
pub(crate) struct Host {
    folder: TempDir,
    pub(crate) daemon: Running,
}

/// Who may find whom.
const DOORS: [&str; 2] = ["one", "two"];
/// What the preload says of an end of SMC.
pub(crate) const SMC: &str = ": SMC-D\n";
/// What it says of an end whose other end is not there.
pub(crate) const ABSENT: &str =
    ": TCP: the peer is not on the fabric's board, and nobody serves SMC's TCP option here";
/// How often those who may have been late for each other are let meet.
const TRIES: usize = 5;
/// More than fits into TCP's buffers.
const SIZE: usize = 5_000_000;

impl Host {
    pub(crate) fn start() -> Result<Self> {
        need("socat", "socat");
        need("python3", "python3");
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let doors = DOORS.map(|name| {
            let socket = path(name);
            let place = format!("name = {name:?}\nsocket = {socket:?}\ngroups = [{name:?}]\n");
            format!("[group.{name}]\n[[processes]]\n{place}")
        });
        fs::write(path("config"), doors.concat())?;
        let mut daemon = Command::new(programs().join("vhost-user-ism"));
        let daemon = Running::start(daemon.arg("--config").arg(path("config")))?;
        let host = Self { daemon, folder };
        let listens = || DOORS.iter().all(|name| host.path(name).exists());
        wait_until("the daemon's sockets", listens)?;
        Ok(host)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that starts `program` with the preload, whose words go to the file `log`.
    pub(crate) fn command(&self, door: &str, log: &str, program: &str) -> Result<Command> {
        let mut command = Command::new(programs().join("smc-run"));
        command.arg("-ds").arg(self.path(door)).arg(program);
        command.env("SMC_POLICY", self.policy()?).stderr(File::create(self.path(log))?);
        Ok(command)
    }

    /// The file of rules: without one of the test, everything may be SMC.
    pub(crate) fn policy(&self) -> Result<PathBuf> {
        let policy = self.path("policy");
        if !policy.exists() {
            fs::write(&policy, "")?;
        }
        Ok(policy)
    }

    pub(crate) fn log(&self, log: &str) -> String {
        fs::read_to_string(self.path(log)).unwrap_or_default()
    }

    /// Whether nobody was looked for: the peer is known to be absent at once.
    pub(crate) fn knows_that_nobody_is_there(&self, log: &str) -> bool {
        let log = self.log(log);
        log.lines().count() == 1 && log.trim_end().ends_with(ABSENT)
    }

    /// Sends a file by socat from the client to the server; whether each end was SMC's.
    pub(crate) fn send(
        &self,
        server: Command,
        client: Command,
        at: &Place<'_>,
    ) -> Result<[bool; 2]> {
        let (mut server, mut client) = (server, client);
        let number = |n: usize| u8::try_from(((n / 251) ^ (n % 251)) % 256).unwrap_or(0);
        let bytes: Vec<u8> = (0..SIZE).map(number).collect();
        let (from, to) = (self.path("from"), self.path("to"));
        fs::write(&from, &bytes)?;
        let Place { listen, connect, port, networks } = at;
        server.args(["-u", &format!("{listen}:{port},reuseaddr")]);
        server.arg(format!("OPEN:{},creat,trunc", to.display()));
        client.args(["-u", &format!("OPEN:{}", from.display()), &format!("{connect}:{port}")]);
        let mut start = || {
            let server = Running::start(&mut server)?;
            wait_for_port(*port).map(|()| server)
        };
        let server = match networks {
            Some([there, _]) => there.inside(start)?,
            None => start(),
        }?;
        match networks {
            Some([_, here]) => here.inside(|| run(&mut client))?,
            None => run(&mut client),
        }?;
        server.finish()?;
        ensure!(fs::read(&to)? == bytes, "the file arrived changed");
        Ok(["server", "client"].map(|log| self.log(log).contains(SMC)))
    }

    /// The same until both ends have met, as nobody waits longer than 250 ms for that, in which the other may not have
    /// had a core; whether they have.
    pub(crate) fn meet(&self, doors: [&str; 2], at: &Place<'_>) -> Result<bool> {
        until_met(|| Ok(self.send_between(doors, at)? == [true; 2]))
    }

    /// The same, with the preload at both ends, of members that come in by these doors.
    pub(crate) fn send_between(&self, doors: [&str; 2], at: &Place<'_>) -> Result<[bool; 2]> {
        let server = self.command(doors[0], "server", "socat")?;
        let client = self.command(doors[1], "client", "socat")?;
        self.send(server, client, at)
    }

    /// Runs a script of Python's; what it writes.
    pub(crate) fn python(&self, log: &str, script: &str, arguments: &[&str]) -> Result<String> {
        let out = self.path("out");
        let mut python = self.command("one", log, "python3")?;
        python.args(["-c", script]).args(arguments).stdout(File::create(&out)?);
        run(&mut python).with_context(|| self.log(log))?;
        Ok(fs::read_to_string(&out)?)
    }
}

/// Tries whether they meet, more than once.
pub(crate) fn until_met(mut attempt: impl FnMut() -> Result<bool>) -> Result<bool> {
    for _ in 0..TRIES {
        if attempt()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where socat listens and connects to.
pub(crate) struct Place<'a> {
    pub(crate) listen: &'a str,
    pub(crate) connect: &'a str,
    pub(crate) port: u16,
    /// The server's and the client's.
    pub(crate) networks: Option<[&'a Network; 2]>,
}

pub(crate) fn here(listen: &'static str, connect: &'static str) -> Result<Place<'static>> {
    Ok(Place { listen, connect, port: unused_port()?, networks: None })
}
