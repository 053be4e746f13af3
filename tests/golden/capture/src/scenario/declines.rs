// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-D handshakes that end in a decline.
//!
//! Invariant: each step changes one thing and puts it back.

use anyhow::Result;

use super::{Scenario, talk, write};
use crate::lab::{Guests, Lab};

pub(super) const SCENARIOS: [Scenario; 2] = [
    ("smcd-declines", "declines of SMC-D v2 between guests on one fabric", declines),
    ("smcd-strangers", "guests in different groups of one fabric", strangers),
];

fn declines(name: &str) -> Result<usize> {
    let lab = Lab::boot(&Guests::Ism(["lab", "lab"]))?;
    let (client, server) = (lab.client(), lab.server());
    let recording = lab.record()?;
    talk::listen(&lab)?;

    client.run("smcd ueid flush")?;
    lab.step("the client has no UEID")?;
    attempt(&lab, 1)?;
    client.run("smcd ueid add OTHER")?;
    lab.step("the client has another UEID than the server")?;
    attempt(&lab, 2)?;
    client.run("smcd ueid flush && smcd ueid add VHOST-USER-ISM")?;
    server.run("smcd ueid flush")?;
    lab.step("the server has no UEID")?;
    attempt(&lab, 3)?;
    server.run("smcd ueid add VHOST-USER-ISM")?;

    let devices = "for d in /sys/class/dibs/*; do puppet pnet add NET1 dev ${d##*/}; done";
    client.run(devices)?;
    lab.step("the client's SMC-D devices all have a PNETID that no network card has")?;
    attempt(&lab, 4)?;
    client.run("puppet pnet flush")?;
    server.run("puppet pnet add NET1 eth eth0")?;
    server.run(devices)?;
    lab.step("the server's SMC-D devices have a PNETID, the client's do not")?;
    attempt(&lab, 5)?;
    server.run("puppet pnet flush")?;

    for (n, (side, function, value, why)) in (6..).zip([
        ("server", "smc_buf_create", -28, "has no DMB left"),
        ("client", "smc_buf_create", -28, "has no DMB left"),
        ("server", "smc_buf_create", -12, "has no memory for a DMB"),
        ("client", "smc_buf_create", -12, "has no memory for a DMB"),
        ("server", "smc_clc_v2x_features_confirm_check", 0x0303_0009, "sees a wrong Confirm"),
    ]) {
        forced(&lab, n, side, function, value, why)?;
    }
    write(name, &lab, &recording.finish()?, &["decline-v2-03030008", "decline-v2-030d0000"])
}

fn strangers(name: &str) -> Result<usize> {
    let lab = Lab::boot(&Guests::Ism(["blue", "red"]))?;
    let recording = lab.record()?;
    talk::listen(&lab)?;
    lab.step("the client's group is not the server's")?;
    attempt(&lab, 1)?;
    write(name, &lab, &recording.finish()?, &["decline-v2-03030007"])
}

/// Connects and closes, whatever carries it.
pub(super) fn attempt(lab: &Lab, n: u32) -> Result<()> {
    talk::connect(lab, n)?;
    talk::close(lab, n)
}

/// Forces one function in one guest for one attempt to connect.
pub(super) fn forced(
    lab: &Lab,
    n: u32,
    side: &str,
    function: &str,
    value: i64,
    why: &str,
) -> Result<()> {
    let vm = if side == "server" { lab.server() } else { lab.client() };
    vm.run(&format!("insmod /golden_force.ko answer={function}:{value}"))?;
    let shown = if value <= 0 { value.to_string() } else { format!("{value:#010x}") };
    lab.step(&format!("the {side} {why} (forced: {function} returns {shown})"))?;
    attempt(lab, n)?;
    vm.run("rmmod golden_force").map(drop)
}
