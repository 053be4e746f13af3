// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Groups decide who talks over the fabric, and members come and go while others run.
//!
//! Invariant: who may not use the fabric still talks, over TCP, and can see why.

use anyhow::{Result, ensure};
use ism_harness::{Fabric, Mode, Net, Vm, VmSpec};
use ism_vm_tests::{LAB, PATIENCE, Pair, client, expect_smcd, fallbacks, serve, smcd_connections};

#[test]
fn a_vm_without_a_common_group_falls_back_and_says_why() -> Result<()> {
    let fabric = Fabric::new(Mode::Mapped)
        .member("a", LAB)
        .member("b", LAB)
        .member("c", &["other"])
        .start()?;
    let net = Net::create()?;
    let vms = ["a", "b", "c"].map(|name| VmSpec::new(name).on(&fabric, &net));
    let [a, b, c] = Vm::boot(vms)?;
    let _server = serve(&a, "")?;
    expect_smcd([&a, &b], 1, || b.run_for(&client(&a, ""), PATIENCE).map(drop))?;

    c.run_for(&client(&a, ""), PATIENCE)?;
    ensure!(smcd_connections(&c)? == 0, "c used SMC-D with a VM outside its group");
    let (count, reasons) = fallbacks(&c)?;
    ensure!(count > 0 && !reasons.is_empty(), "c fell back without a reason: {reasons:?}");
    Ok(())
}

#[test]
fn a_member_is_added_and_removed_while_others_talk() -> Result<()> {
    let pair = Pair::boot(Mode::Mapped)?;
    let _server = serve(&pair.a, "")?;
    let steady = pair.b.spawn(&client(&pair.a, "--count 40 --bytes 1000000"))?;

    pair.fabric.add("late", LAB)?;
    let [late] = Vm::boot([VmSpec::new("late").on(&pair.fabric, &pair.net)])?;
    late.run_for(&client(&pair.a, "--bytes 1000000"), PATIENCE)?;
    ensure!(smcd_connections(&late)? == 1, "the added VM did not talk over SMC-D");

    let hung = late.spawn(&client(&pair.a, "--bytes 2000000000"))?;
    late.run("until smcd socket show | grep -q 7000; do sleep 0.02; done")?;
    pair.fabric.remove("late")?;
    ensure!(
        hung.wait(PATIENCE)?.exit.shell_status() == 1,
        "a connection of the removed VM did not end with an error"
    );

    steady.succeed(PATIENCE)?;
    pair.expect_healthy()
}
