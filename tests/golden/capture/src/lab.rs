// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests that do one step at a time while they are recorded.
//!
//! Invariant: the first guest is the server; a step's name is in the recordings before what the step
//! provokes, and the step has calmed down before the next one begins.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use ism_harness::{Fabric, Mode, Net, Running, Vm, VmSpec};
use smc_golden::Golden;
use tempfile::TempDir;

use crate::area;
use crate::packet::NOTE_PORT;

/// For what guests do behind a step's system calls: link control, closing, under TCG.
const CALM: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(60);
const PUPPET: &str = "/tmp/puppet";
const RECORDING: &str = "/tmp/recording.pcap";
const TRACING: &str = "/sys/kernel/tracing";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What a scenario's guests are.
pub(crate) enum Guests {
    /// One guest, which talks to itself.
    One,
    /// Two guests with virtio-ism devices, in these groups.
    Ism([&'static str; 2]),
    /// Two guests with network cards only.
    Plain,
}

/// Booted guests with a puppet in each.
pub(crate) struct Lab {
    // Guests first: they end before what they stand on.
    vms: Vec<Vm>,
    puppets: Vec<Running>,
    _fabric: Option<Fabric>,
    _net: Option<Net>,
    _overlay: TempDir,
    steps: RefCell<Vec<String>>,
    device: &'static str,
    /// The server's and the client's address.
    addresses: [String; 2],
}

impl Lab {
    pub(crate) fn boot(guests: &Guests) -> Result<Self> {
        let overlay = overlay()?;
        let path = overlay.path().display().to_string();
        let spec = |name| VmSpec::new(name).with(&["--overlay", &path]);
        let mut fabric = None;
        let net = Net::create()?;
        let (vms, device): (Vec<Vm>, _) = match guests {
            Guests::One => (Vm::boot([spec("a")])?.into(), "lo"),
            Guests::Plain => (Vm::boot([spec("a").net(&net), spec("b").net(&net)])?.into(), "eth0"),
            Guests::Ism([a, b]) => {
                let fabric = fabric
                    .insert(Fabric::new(Mode::Mapped).member("a", &[a]).member("b", &[b]).start()?);
                (Vm::boot([spec("a").on(fabric, &net), spec("b").on(fabric, &net)])?.into(), "eth0")
            }
        };
        let addresses = match guests {
            Guests::One => ["127.0.0.1", "127.0.0.1"].map(str::to_owned),
            _ => [1, 2].map(|n| format!("10.77.0.{n}")),
        };
        let mut lab = Self {
            addresses,
            vms,
            puppets: Vec::new(),
            _fabric: fabric,
            _net: Some(net),
            _overlay: overlay,
            steps: RefCell::default(),
            device,
        };
        for vm in &lab.vms {
            let mut puppet = vm.spawn(&format!("exec puppet serve {PUPPET}"))?;
            puppet.wait_for_output("ready", PATIENCE)?;
            lab.puppets.push(puppet);
        }
        Ok(lab)
    }

    /// The guest that listens.
    pub(crate) fn server(&self) -> &Vm {
        self.vms.first().unwrap_or_else(|| unreachable!("a lab has a guest"))
    }

    /// The guest that connects; the same one where there is only one.
    pub(crate) fn client(&self) -> &Vm {
        self.vms.last().unwrap_or_else(|| unreachable!("a lab has a guest"))
    }

    pub(crate) fn guests(&self) -> impl Iterator<Item = &Vm> {
        self.vms.iter()
    }

    /// The server's address as the client sees it.
    pub(crate) fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// Says that the guests were given other addresses than they booted with.
    pub(crate) fn readdress(&mut self, server: &str, client: &str) {
        self.addresses = [server, client].map(str::to_owned);
    }

    /// The names of the steps so far, in their order.
    pub(crate) fn steps(&self) -> Vec<String> {
        self.steps.borrow().clone()
    }

    /// Begins a step: all that is recorded from here on belongs to it.
    pub(crate) fn step(&self, name: &str) -> Result<()> {
        thread::sleep(CALM);
        eprintln!("    {name}");
        let to = &self.addresses[1];
        let quoted = name.replace('\'', "'\\''");
        self.server().run(&format!("echo '{quoted}' | socat -u - UDP-SENDTO:{to}:{NOTE_PORT}"))?;
        for vm in &self.vms {
            vm.run(&format!("echo '{quoted}' >{TRACING}/trace_marker"))?;
        }
        self.steps.borrow_mut().push(name.to_owned());
        Ok(())
    }

    /// Tells a guest's puppet what to do and waits until it is done.
    pub(crate) fn ask(&self, vm: &Vm, order: &str) -> Result<()> {
        self.start(vm, order)?.succeed(PATIENCE).map(drop)
    }

    /// Tells a guest's puppet what to do.
    pub(crate) fn start(&self, vm: &Vm, order: &str) -> Result<Running> {
        vm.spawn(&format!("puppet ask {PUPPET} {order}"))
    }

    /// Begins to record the server's network device, and writes into DMBs in all guests.
    pub(crate) fn record(&self) -> Result<Recording<'_>> {
        for vm in &self.vms {
            for probe in [
                area::probe("dibs_lo_move_data"),
                area::probe("ism_op_move"),
                area::event_probe("ism_op_signal_event"),
            ] {
                // The module's function is only where there is a device.
                vm.run(&format!("echo '{probe}' >>{TRACING}/kprobe_events || true"))?;
            }
            vm.run(&format!("echo 1 >{TRACING}/events/golden/enable"))?;
        }
        let mut tcpdump = self.server().spawn(&format!(
            "exec tcpdump -i {} -Z root -n -s 0 --immediate-mode -B 16384 -U -w {RECORDING} tcp or udp",
            self.device
        ))?;
        tcpdump.wait_for_output("listening on", PATIENCE)?;
        Ok(Recording { lab: self, tcpdump })
    }
}

/// A recording that runs.
pub(crate) struct Recording<'a> {
    lab: &'a Lab,
    tcpdump: Running,
}

/// What was recorded.
pub(crate) struct Recorded {
    /// A pcap file.
    pub(crate) pcap: Vec<u8>,
    /// Each guest's trace of writes into DMBs.
    pub(crate) traces: Vec<String>,
}

impl Recording<'_> {
    pub(crate) fn finish(self) -> Result<Recorded> {
        thread::sleep(CALM * 2);
        self.tcpdump.kill(2)?;
        let told = self.tcpdump.wait(PATIENCE)?.stderr;
        ensure!(told.contains("\n0 packets dropped"), "packets are missing: {told}");
        let hex = self.lab.server().run(&format!("od -A n -v -t x1 {RECORDING}"))?.stdout;
        let pcap = Golden::parse(RECORDING, &hex).map_err(Error::msg)?.bytes;
        let trace = |vm: &Vm| Ok(vm.run(&format!("cat {TRACING}/trace"))?.stdout);
        let traces = self.lab.guests().map(trace).collect::<Result<_>>()?;
        Ok(Recorded { pcap, traces })
    }
}

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(3).unwrap_or(here).to_path_buf()
}

/// Files for the guests: the puppet, linked statically, and the module that forces paths.
fn overlay() -> Result<TempDir> {
    let overlay = tempfile::tempdir().context("no temporary folder")?;
    let bin = overlay.path().join("usr/bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::copy(puppet()?, bin.join("puppet")).context("the puppet")?;
    std::fs::copy(force()?, overlay.path().join("golden_force.ko")).context("the module")?;
    Ok(overlay)
}

fn puppet() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = repository().join("target/golden-guest");
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--target", TARGET, "-p", "smc-golden-puppet"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(repository())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the puppet does not build: {status}");
    Ok(target.join(TARGET).join("release/smc-golden-puppet"))
}

fn force() -> Result<PathBuf> {
    let output = Command::new(repository().join("qemu-scripts/get"))
        .arg("--module")
        .arg(repository().join("tests/golden/force"))
        .arg("module")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start qemu-scripts/get")?;
    ensure!(output.status.success(), "the module golden_force does not build");
    Ok(String::from_utf8(output.stdout)?.trim().into())
}
