// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests with real VMs, in `tests/`; here is what they have in common: a pair, traffic between VMs, and the proof of what carried it.
//!
//! Invariant: `expect_…` functions look at both ends' kernels, never only at the programs' success. The
//! tests run one at a time (`--test-threads 1`): two VMs already fill two cores.

use std::time::Duration;

use anyhow::{Result, ensure};
use ism_harness::{Fabric, Mode, Net, Running, Vm, VmSpec};
use serde_json::Value;

/// The group of the VMs that may talk.
pub const LAB: &[&str] = &["lab"];
/// For a command that moves some megabytes under TCG.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Two VMs of one group, ready to talk.
pub struct Pair {
    /// One VM.
    pub a: Vm,
    /// The other.
    pub b: Vm,
    /// What they use without us.
    pub net: Net,
    /// What they use with us.
    pub fabric: Fabric,
}

impl Pair {
    /// Boots it.
    pub fn boot(mode: Mode) -> Result<Self> {
        let fabric = Fabric::new(mode).member("a", LAB).member("b", LAB).start()?;
        let net = Net::create()?;
        let [a, b] = Vm::boot([VmSpec::new("a"), VmSpec::new("b")].map(|vm| vm.on(&fabric, &net)))?;
        Ok(Self { a, b, net, fabric })
    }

    /// Both kernels are without complaints.
    pub fn expect_healthy(&self) -> Result<()> {
        for vm in [&self.a, &self.b] {
            let complaints = vm.kernel_complaints()?;
            ensure!(complaints.is_empty(), "{}'s kernel complains:\n{complaints}", vm.name());
        }
        Ok(())
    }
}

/// Starts an echo server on port 7000; it ends when the value is dropped.
pub fn serve(vm: &Vm, options: &str) -> Result<Running> {
    let server = vm.spawn(&format!("ism-stream serve [::]:7000 {options}"))?;
    vm.wait_listening(7000)?;
    Ok(server)
}

/// The client's command for a server.
pub fn client(server: &Vm, options: &str) -> String {
    format!("ism-stream connect {}:7000 {options}", server.ip())
}

/// The same over IPv6.
pub fn client6(server: &Vm, options: &str) -> String {
    format!("ism-stream connect [{}]:7000 {options}", server.ip6())
}

/// Connections that a kernel has carried over SMC-D, as client and as server.
pub fn smcd_connections(vm: &Vm) -> Result<u64> {
    let stats = vm.smcd("stats show")?;
    let count = |name: &str| stats.pointer(&format!("/smcd/{name}")).and_then(Value::as_u64);
    let counts = [count("client_v2"), count("server_v2")];
    Ok(counts.into_iter().flatten().sum())
}

/// A kernel's fallbacks: how many as a client and as a server, and the reasons' names.
pub fn fallbacks(vm: &Vm) -> Result<(u64, Vec<String>)> {
    let told = vm.smcd("fallback show")?;
    let count = |name: &str| told.get(name).and_then(Value::as_u64).unwrap_or(0);
    let reasons = told.get("reasons").and_then(Value::as_array).cloned().unwrap_or_default();
    let names = reasons.iter().filter_map(|reason| Some(reason.get("name")?.as_str()?.to_owned()));
    Ok((count("client") + count("server"), names.collect()))
}

/// Runs `traffic` and holds that exactly `connections` more went over SMC-D, at both ends, and
/// none fell back.
pub fn expect_smcd(
    ends: [&Vm; 2],
    connections: u64,
    traffic: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = [smcd_connections(ends[0])?, smcd_connections(ends[1])?];
    let fell_before = [fallbacks(ends[0])?.0, fallbacks(ends[1])?.0];
    traffic()?;
    for (vm, (before, fell_before)) in ends.iter().zip(before.into_iter().zip(fell_before)) {
        let (fell, reasons) = fallbacks(vm)?;
        ensure!(fell == fell_before, "{} fell back: {reasons:?}", vm.name());
        let carried = smcd_connections(vm)? - before;
        ensure!(carried == connections, "{}: {carried} of {connections} over SMC-D", vm.name());
    }
    Ok(())
}
