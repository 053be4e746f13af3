// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-D: over our device between two guests, and over Linux's loopback in one.
//!
//! Invariant: see `scenario`.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::declines::attempt;
use super::{Scenario, everywhere, talk, write};
use crate::lab::{Guests, Lab};

pub(super) const SCENARIOS: [Scenario; 5] = [
    ("smcd-pair", "SMC-D v2 over virtio-ism between two guests: contacts, data, endings", pair),
    ("smcd-loopback", "SMC-D v2 over Linux's loopback (nocopy) in one guest: the same", loopback),
    ("smcd-two-ueids", "four UEIDs at the client, the second of the server's at both", two_ueids),
    ("smcd-idle", "a link group that nobody uses for (a hurried) 600 s: the shutdown event", idle),
    ("smcd-v1", "SMC-D v1 over the loopback, which a forced GID query permits", version_1),
];

fn pair(name: &str) -> Result<usize> {
    talk_over(name, &Guests::Ism(["lab", "lab"]))
}

fn loopback(name: &str) -> Result<usize> {
    talk_over(name, &Guests::One)
}

fn talk_over(name: &str, guests: &Guests) -> Result<usize> {
    let lab = Lab::boot(guests)?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    talk::everything(&lab)?;
    let proves = ["accept-d-v2-first-contact", "area-urgent-pending-urgent-present", "area-abort"];
    write(name, &lab, &recording.finish()?, &proves)
}

fn two_ueids(name: &str) -> Result<usize> {
    let lab = Lab::boot(&Guests::Ism(["lab", "lab"]))?;
    everywhere(&lab, "smcd ueid flush")?;
    for ueid in ["CLIENT.ONLY", "COMMON-1", "COMMON-2", "CLIENT.LAST"] {
        lab.client().run(&format!("smcd ueid add {ueid}"))?;
    }
    for ueid in ["SERVER.ONLY", "COMMON-2", "COMMON-1"] {
        lab.server().run(&format!("smcd ueid add {ueid}"))?;
    }
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    write(name, &lab, &recording.finish()?, &["accept-d-v2-first-contact"])
}

fn idle(name: &str) -> Result<usize> {
    let lab = Lab::boot(&Guests::Ism(["lab", "lab"]))?;
    everywhere(&lab, "insmod /golden_force.ko hurry=1")?;
    let recording = lab.record()?;
    talk::contacts(&lab)?;
    lab.step("c1 and c2 are closed, and nothing happens for 600 s (forced to 3 s)")?;
    talk::close(&lab, 1)?;
    talk::close(&lab, 2)?;
    sleep(Duration::from_secs(5));
    write(name, &lab, &recording.finish()?, &["event-shutdown"])
}

/// The PNETID takes the loopback out of the list of version 2 and makes it the device of version 1,
/// where GIDs have 64 bits, so that its query for the peer's GID fails unless it is made to succeed.
fn version_1(name: &str) -> Result<usize> {
    let lab = Lab::boot(&Guests::One)?;
    lab.server().run("puppet pnet add LOOP eth lo && puppet pnet add LOOP dev lo")?;
    let recording = lab.record()?;
    talk::listen(&lab)?;
    lab.step("the only device is one of version 1, its 64-bit GID unknown to the server: c7")?;
    attempt(&lab, 7)?;
    lab.server().run("insmod /golden_force.ko answer=dibs_lo_query_rgid:0")?;
    lab.step("the GID query forced to succeed; version 2 takes the device of version 1: c8")?;
    attempt(&lab, 8)?;
    lab.server().run("smcd ueid flush")?;
    lab.step("without a UEID version 1 is left: c1")?;
    talk::connect(&lab, 1)?;
    lab.step("the client connects again, in the same link group: c2")?;
    talk::connect(&lab, 2)?;
    lab.step("c1 and c2 are closed")?;
    talk::close(&lab, 1)?;
    talk::close(&lab, 2)?;
    lab.server().run("rmmod golden_force")?;
    for (n, (function, value, why)) in (9..).zip([
        ("smc_clc_prfx_match", -2, "the server sees another prefix"),
        ("smc_buf_create", -28, "no DMB is left"),
    ]) {
        let force = format!("answer=dibs_lo_query_rgid:0,{function}:{value}");
        lab.server().run(&format!("insmod /golden_force.ko {force}"))?;
        lab.step(&format!("{why} (forced: {function} returns {value}): c{n}"))?;
        attempt(&lab, n)?;
        lab.server().run("rmmod golden_force")?;
    }
    write(name, &lab, &recording.finish()?, &["accept-d-v1", "decline-v2-03070000"])
}
