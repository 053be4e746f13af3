// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A VM with our device and module, and commands in it.
//!
//! Invariant: a VM that `boot` returns answers commands, has the module loaded if it has the
//! device, and the common UEID set.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ism_agent::host::Client;
use ism_agent::message::Request;
use serde_json::Value;
use tempfile::TempDir;

use crate::net::Attachment;
use crate::process::{Process, last_lines};
use crate::running::{Output, Running};
use crate::{Fabric, Net, repo};

/// A guest under TCG on a loaded host; seconds are usual.
const BOOT: Duration = Duration::from_secs(120);
/// For commands that are expected to be quick.
const QUICK: Duration = Duration::from_secs(120);
/// The enterprise id that all guests share, without which SMC-D version 2 declines.
const UEID: &str = "VHOST-USER-ISM";

/// What to boot.
pub struct VmSpec<'a> {
    name: String,
    fabric: Option<&'a Fabric>,
    net: Option<&'a Net>,
    arguments: Vec<String>,
}

impl<'a> VmSpec<'a> {
    /// A VM with this host name, without device and network.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), fabric: None, net: None, arguments: Vec::new() }
    }

    /// Gives it its device on a fabric (which has a member of its name) and a network card.
    #[must_use]
    pub fn on(mut self, fabric: &'a Fabric, net: &'a Net) -> Self {
        self.fabric = Some(fabric);
        self.net = Some(net);
        self
    }

    /// Gives it a network card, but no device.
    #[must_use]
    pub fn net(mut self, net: &'a Net) -> Self {
        self.net = Some(net);
        self
    }

    /// Adds arguments of `qemu-scripts/vm`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }
}

/// A running VM.
pub struct Vm {
    name: String,
    number: usize,
    // The session before the process: its reader ends before QEMU does.
    client: Option<Client>,
    process: Process,
    dir: TempDir,
    has_device: bool,
}

impl Vm {
    /// Boots VMs side by side and waits until all of them answer.
    pub fn boot<const N: usize>(specs: [VmSpec<'_>; N]) -> Result<[Self; N]> {
        let mut vms = Vec::with_capacity(N);
        for spec in specs {
            vms.push(Self::start(spec)?);
        }
        for vm in &mut vms {
            vm.wait_booted()?;
        }
        vms.try_into().map_err(|_| anyhow::anyhow!("{N} VMs were started, not as many booted"))
    }

    fn start(spec: VmSpec<'_>) -> Result<Self> {
        let dir = tempfile::tempdir().context("no temporary folder")?;
        let attachment = spec.net.map(|net| net.attach(&spec.name)).transpose()?;
        let argv = command_line(&spec, attachment.as_ref(), dir.path())?;
        let process = Process::start(&spec.name, &argv, dir.path().join("qemu.log"))?;
        Ok(Self {
            number: attachment.map_or(0, |attachment| attachment.number),
            has_device: spec.fabric.is_some(),
            name: spec.name,
            client: None,
            process,
            dir,
        })
    }

    fn wait_booted(&mut self) -> Result<()> {
        let deadline = Instant::now() + BOOT;
        let pid = self.process.pid();
        let agent = self.dir.path().join("agent.sock");
        let gone = || (!alive(pid)).then(|| "QEMU ended".to_owned());
        let client = Client::connect(&agent, deadline, gone)
            .with_context(|| format!("VM {} does not answer\n{}", self.name, self.last_words()))?;
        self.client = Some(client);
        if self.has_device {
            self.run("test -d /sys/module/virtio_ism").context("the module is not loaded")?;
        }
        self.run(&format!("smcd ueid add {UEID}")).map(drop)
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address, for the other VMs of its network.
    pub fn ip(&self) -> String {
        ip(self.number)
    }

    /// Its IPv6 address.
    pub fn ip6(&self) -> String {
        ip6(self.number)
    }

    /// Starts a shell command.
    pub fn spawn(&self, command: &str) -> Result<Running> {
        let client = self.client.as_ref().with_context(|| format!("VM {} is dead", self.name))?;
        let argv = ["sh", "-c", command].map(|word| word.as_bytes().to_vec()).to_vec();
        let what = format!("{}: {command}", self.name);
        let started = client.start(Request { argv, ..Request::default() });
        Ok(Running::new(what.clone(), started.with_context(|| what)?))
    }

    /// Runs a shell command; an error if it fails or takes long.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.spawn(command)?.succeed(QUICK).with_context(|| self.last_words())
    }

    /// Runs a shell command for as long as it takes, at most `patience`.
    pub fn run_for(&self, command: &str, patience: Duration) -> Result<Output> {
        self.spawn(command)?.succeed(patience).with_context(|| self.last_words())
    }

    /// Waits until a program in the VM listens on a TCP port (an SMC socket does so too).
    pub fn wait_listening(&self, port: u16) -> Result<()> {
        let hex = format!(":{port:04X} ");
        let listening = format!(
            "until cat /proc/net/tcp /proc/net/tcp6 | grep '{hex}' | grep -q ' 0A '; do sleep 0.02; done"
        );
        self.run(&listening).with_context(|| format!("nothing listens on port {port}")).map(drop)
    }

    /// What `smcd ARGUMENTS --json` prints in the VM.
    pub fn smcd(&self, arguments: &str) -> Result<Value> {
        let output = self.run(&format!("smcd {arguments} --json"))?;
        serde_json::from_str(&output.stdout).with_context(|| format!("smcd: {}", output.stdout))
    }

    /// The kernel's complaints: warnings, bugs, stalls. Empty in a healthy guest.
    pub fn kernel_complaints(&self) -> Result<String> {
        let pattern =
            "WARNING|BUG:|Oops|Call Trace|self-detected stall|soft lockup|general protection";
        Ok(self.run(&format!("dmesg | grep -E '{pattern}' || true"))?.stdout)
    }

    /// QEMU's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills QEMU with SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill9();
        self.client = None;
    }

    /// What QEMU said at its start, and so which accelerator it chose: "kvm" or "tcg".
    pub fn accel(&self) -> &'static str {
        if self.process.output().contains("accelerator KVM") { "kvm" } else { "tcg" }
    }

    /// The unix socket of the VM's console, where a shell runs.
    pub fn console(&self) -> PathBuf {
        self.dir.path().join("console")
    }

    /// The last lines of QEMU's output and of the console.
    pub fn last_words(&self) -> String {
        let console = last_lines(&self.console(), 15);
        format!("QEMU of {}:\n{}console:\n{console}", self.name, self.process.last_words())
    }
}

fn ip(number: usize) -> String {
    format!("10.77.0.{number}")
}

fn ip6(number: usize) -> String {
    format!("fd77::{number}")
}

/// Whether a process exists and is no zombie.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

fn command_line(
    spec: &VmSpec<'_>,
    attachment: Option<&Attachment>,
    dir: &Path,
) -> Result<Vec<String>> {
    let mut argv = attachment.map(|at| at.prefix.clone()).unwrap_or_default();
    argv.push(repo::script("vm").display().to_string());
    let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
    option("--name", spec.name.clone());
    option("--agent", dir.join("agent.sock").display().to_string());
    option("--console", dir.join("console").display().to_string());
    if let Some(at) = attachment {
        option("--net", at.argument.clone());
        option("--ip", format!("{}/24", ip(at.number)));
        option("--ip6", format!("{}/64", ip6(at.number)));
    }
    if let Some(fabric) = spec.fabric {
        let socket = fabric.socket(&spec.name);
        if !socket.exists() {
            bail!("the fabric has no member {}: {} does not exist", spec.name, socket.display());
        }
        option("--ism", socket.display().to_string());
        option("--module", repo::get("module")?.display().to_string());
    }
    argv.extend(spec.arguments.iter().cloned());
    Ok(argv)
}
