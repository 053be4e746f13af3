// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What dies takes only itself along: QEMU, the daemon, the module.
//!
//! Invariant: a connection ends with all bytes or with an error within a bounded time, and the
//! next one works.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ism_harness::{Mode, Running, Vm, VmSpec};
use ism_vm_tests::{LAB, PATIENCE, Pair, client, expect_smcd, serve, smcd_connections};

/// How long a connection may hang after its peer or its device has died.
const BOUND: Duration = Duration::from_secs(5);
/// More than any of these tests can send before the fault.
const ENDLESS: &str = "--bytes 100000000000";

/// A transfer that certainly runs: the server has something of it.
fn endless(from: &Vm, to: &Vm) -> Result<Running> {
    let running = from.spawn(&client(to, ENDLESS))?;
    let moving = "until smcd socket show | grep 7000 | grep -q SMCD; do sleep 0.02; done";
    from.run(moving).context("the transfer did not start")?;
    Ok(running)
}

#[test]
fn qemu_killed_in_mid_transfer() -> Result<()> {
    let mut pair = Pair::boot(Mode::Mapped)?;
    let _server = serve(&pair.a, "")?;
    // Both directions: a as a client of b would hang on b's silence too.
    let to_b = {
        let _server_b = pair.b.spawn("ism-stream serve [::]:7000")?;
        pair.b.wait_listening(7000)?;
        let running = endless(&pair.a, &pair.b)?;
        pair.b.kill9();
        running
    };
    let output = to_b.wait(BOUND).context("a hangs on a dead peer")?;
    ensure!(!output.exit.success(), "a believes that a dead peer received all");

    let left = pair.fabric.ctl(&["list"])?;
    let [b] = Vm::boot([VmSpec::new("b").on(&pair.fabric, &pair.net)])?;
    pair.b = b;
    expect_smcd([&pair.a, &pair.b], 1, || pair.b.run_for(&client(&pair.a, ""), PATIENCE).map(drop))
        .with_context(|| format!("a new pair after the kill; the daemon then had:\n{left}"))?;
    pair.expect_healthy()
}

#[test]
fn daemon_killed_under_traffic() -> Result<()> {
    let mut pair = Pair::boot(Mode::Mapped)?;
    let _server = serve(&pair.a, "")?;
    let running = endless(&pair.b, &pair.a)?;
    pair.fabric.kill9();
    let output = running.wait(BOUND).context("a connection stalls without a daemon")?;
    ensure!(!output.exit.success(), "an endless transfer ended without an error");

    let before = smcd_connections(&pair.b)?;
    let over_tcp = pair.b.spawn(&client(&pair.a, ""))?;
    over_tcp.succeed(BOUND).context("a new connection without a daemon")?;
    ensure!(smcd_connections(&pair.b)? == before, "a new connection chose a dead device");
    pair.expect_healthy()
}

// row 90
#[test]
fn module_unloaded_and_loaded_under_traffic() -> Result<()> {
    let pair = Pair::boot(Mode::Mapped)?;
    let _server = serve(&pair.a, "")?;
    for _ in 0..3 {
        let running = endless(&pair.b, &pair.a)?;
        pair.b.run("rmmod virtio_ism").context("unload under traffic")?;
        let output = running.wait(PATIENCE)?;
        ensure!(!output.exit.success(), "an endless transfer survived the unload");
        pair.b.run("insmod /modules/virtio_ism.ko")?;
        expect_smcd([&pair.a, &pair.b], 1, || {
            pair.b.run_for(&client(&pair.a, ""), PATIENCE).map(drop)
        })?;
    }
    ensure!(pair.fabric.ctl(&["list"])?.contains(LAB[0]), "the daemon lost its members");
    pair.expect_healthy()
}
