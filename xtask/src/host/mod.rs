// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Unmodified programs between two processes of this host, over TCP and under `smc-run`: what demo and
//! bench have in common.
//!
//! Invariant: all transports run the same programs with the same arguments; SMC only adds `smc-run` in
//! front.

pub(crate) mod parse;
pub(crate) mod programs;
pub(crate) mod proof;

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use ism_harness::{Lab, Process, Way};

use crate::figure::Transport;
use crate::repo;
use crate::steps::run;
use proof::{Proof, Traffic};

/// Programs end by themselves or when told to; this is for those that do not.
pub(crate) const GRACE: Duration = Duration::from_secs(20);

/// What a case showed.
pub(crate) struct Measured {
    /// In the case's unit.
    pub(crate) value: f64,
    /// What the programs say they exchanged.
    pub(crate) traffic: Traffic,
}

/// Which end of a case a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Server,
    Client,
}

/// One run of a case's programs over one transport.
pub(crate) struct Run<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) transport: Transport,
    /// How long each program measures.
    pub(crate) seconds: u32,
    /// A TCP port of its own: sockperf ends without closing its connections.
    pub(crate) port: u16,
    /// The server's core and the client's.
    cores: Option<[usize; 2]>,
    /// `NAME=VALUE` for both ends.
    environment: Option<&'static str>,
    name: String,
}

impl<'a> Run<'a> {
    /// A run of `case`.
    pub(crate) fn new(lab: &'a Lab, case: &str, transport: Transport, seconds: u32) -> Self {
        thread_local!(static NEXT: Cell<u16> = const { Cell::new(11111) });
        let port = NEXT.replace(NEXT.get() + 1);
        let name = format!("{case}-{transport}-{port}");
        Self { lab, transport, seconds, port, cores: None, environment: None, name }
    }

    /// Each end on a core of its own.
    pub(crate) fn pinned(mut self, cores: [usize; 2]) -> Self {
        self.cores = Some(cores);
        self
    }

    /// With a variable in both ends' environment.
    pub(crate) fn with(mut self, variable: &'static str) -> Self {
        self.environment = Some(variable);
        self
    }

    /// A file of the run's own.
    pub(crate) fn file(&self, what: &str) -> PathBuf {
        self.lab.file(&format!("{}-{what}", self.name))
    }

    /// Starts a program; its standard output is the process's.
    pub(crate) fn spawn(&self, end: End, command: &str) -> Result<Process> {
        let mut argv = Vec::new();
        if let Some([server, client]) = self.cores {
            let core = if end == End::Server { server } else { client };
            argv.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
        }
        if let Some(variable) = self.environment {
            argv.extend(["env".to_owned(), variable.to_owned()]);
        }
        let way = if self.transport == Transport::SmcdUser { Way::Smc } else { Way::Plain };
        argv.extend(self.lab.prefix(way, &self.file("stderr"))?);
        argv.extend(command.split(' ').map(str::to_owned));
        Process::start(&format!("«{command}»"), &argv, self.file(&format!("{end:?}")))
    }

    /// Starts a server and waits until it listens on the run's port.
    pub(crate) fn server(&self, command: &str) -> Result<Process> {
        let mut server = self.spawn(End::Server, command)?;
        self.lab.wait_listening(&mut server, self.port)?;
        Ok(server)
    }

    /// Runs a client to its end; its standard output.
    pub(crate) fn client(&self, command: &str) -> Result<String> {
        let client = self.spawn(End::Client, command)?;
        client.finish(Duration::from_secs(self.seconds.into()) + GRACE)
    }

    /// What the programs and the preload have written to stderr.
    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.file("stderr")).unwrap_or_default()).into_owned()
    }

    /// Runs the programs and judges what carried their traffic; SMC-D's part in it, and the figure.
    pub(crate) fn proved(
        &self,
        programs: impl FnOnce(&Self) -> Result<Measured>,
    ) -> (Proof, Result<f64>) {
        let before = self.lab.lo_bytes();
        let measured = programs(self);
        let said = self.said();
        let lo = before.and_then(|before| Ok(self.lab.lo_bytes()?.saturating_sub(before)));
        let traffic = measured.as_ref().map(|it| it.traffic).unwrap_or_default();
        let proof = Proof::new(&said, traffic, *lo.as_ref().unwrap_or(&0));
        let outcome = measured.and_then(|measured| {
            lo?;
            match self.transport {
                Transport::Tcp => proof.expect_tcp()?,
                Transport::SmcdUser => proof.expect_smcd()?,
                _ => {}
            }
            Ok(measured.value)
        });
        let outcome = outcome.map_err(|error| proof.explain(error));
        let is_smcd = self.transport == Transport::SmcdUser;
        (if is_smcd { proof } else { Proof::default() }, outcome)
    }
}

/// Installs Debian's programs if they are not there and may be, else says how: `program=package`.
pub(crate) fn install(programs: &str) -> Result<()> {
    let script = format!(
        "set -euo pipefail; . qemu-scripts/lib.sh; host_tools nsenter=util-linux \
         setpriv=util-linux ip=iproute2 {programs}"
    );
    run(Command::new("bash").args(["-c", &script]).current_dir(repo::root()))
        .context("the programs are Debian's")
}
