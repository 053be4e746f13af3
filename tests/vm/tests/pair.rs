// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two VMs of one group talk over SMC-D, in every way that programs do, in both modes.
//!
//! Invariant: each test holds that SMC-D carried all its connections.

use anyhow::{Result, ensure};
use ism_harness::Mode;
use ism_vm_tests::{PATIENCE, Pair, client, client6, expect_smcd, serve};

#[test]
fn a_mapped_pair_talks_in_every_way() -> Result<()> {
    talk_in_every_way(&Pair::boot(Mode::Mapped)?)
}

#[test]
fn a_copied_pair_talks_in_every_way() -> Result<()> {
    talk_in_every_way(&Pair::boot(Mode::Copied)?)
}

/// One boot for all, since booting takes longer than most of these.
fn talk_in_every_way(pair: &Pair) -> Result<()> {
    let Pair { a, b, .. } = pair;
    link_group_names_our_fabric(pair)?;
    for (server, asker) in [(a, b), (b, a)] {
        let _server = serve(server, "")?;
        expect_smcd([a, b], 2, || {
            asker.run_for(&client(server, "--bytes 4000000"), PATIENCE)?;
            asker.run_for(&client6(server, "--bytes 4000000"), PATIENCE).map(drop)
        })?;
    }
    let _server = serve(a, "")?;
    expect_smcd([a, b], 1000, || {
        b.run_for(&client(a, "--count 1000 --bytes 1000"), PATIENCE).map(drop)
    })?;
    expect_smcd([a, b], 64, || {
        b.run_for(&client(a, "--parallel 64 --bytes 300000"), PATIENCE).map(drop)
    })?;
    pair.expect_healthy()
}

// row 85
#[test]
fn splice_and_sendfile_go_through_the_dmb() -> Result<()> {
    for mode in [Mode::Mapped, Mode::Copied] {
        let pair = Pair::boot(mode)?;
        let _server = serve(&pair.a, "--splice")?;
        expect_smcd([&pair.a, &pair.b], 1, || {
            pair.b.run_for(&client(&pair.a, "--sendfile --bytes 8000000"), PATIENCE).map(drop)
        })?;
        pair.expect_healthy()?;
    }
    Ok(())
}

/// The kernel's own dump: our CHID, and each other's GID.
fn link_group_names_our_fabric(pair: &Pair) -> Result<()> {
    let _server = serve(&pair.a, "")?;
    pair.b.run(&client(&pair.a, ""))?;
    let groups = [pair.a.smcd("linkgroup show")?, pair.b.smcd("linkgroup show")?];
    let field = |end: usize, name: &str| groups[end].pointer(&format!("/0/{name}")).cloned();
    for end in [0, 1] {
        let chid = field(end, "chid").and_then(|chid| chid.as_u64()).unwrap_or(0);
        ensure!((0xff00..=0xfffe).contains(&chid), "CHID {chid:#x}: {}", groups[end]);
    }
    ensure!(field(0, "gid") == field(1, "peer_gid"), "a's GID at b: {groups:?}");
    ensure!(field(1, "gid") == field(0, "peer_gid"), "b's GID at a: {groups:?}");
    Ok(())
}
