// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Evidence of what carried the traffic, from both kernels and from our driver.
//!
//! Invariant: counters are read before and after; the difference is what the traffic did.

use anyhow::{Context, Result, ensure};
use ism_harness::Vm;
use serde_json::Value;

/// Where the driver counts the bytes it moved (guest-driver/README.md).
const MOVED: &str = "cat /sys/bus/virtio/drivers/virtio_ism/virtio*/ism/move_bytes";

/// One VM's counters.
#[derive(Clone, Copy)]
struct Counters {
    connections: u64,
    fallbacks: u64,
    /// Bytes of user data that SMC-D received.
    received: u64,
    /// Bytes that our driver moved into the peer's DMBs.
    moved: u64,
}

/// Both VMs' counters, and the link group.
pub(crate) struct Proof {
    ends: [Counters; 2],
    fabric: Option<String>,
}

impl Proof {
    /// The counters now.
    pub(crate) fn take(a: &Vm, b: &Vm) -> Result<Self> {
        Ok(Self { ends: [read(a)?, read(b)?], fabric: fabric(a)? })
    }

    /// What happened since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut ends = self.ends;
        for (end, was) in ends.iter_mut().zip(before.ends) {
            end.connections -= was.connections;
            end.fallbacks -= was.fallbacks;
            end.received -= was.received;
            end.moved -= was.moved;
        }
        Self { ends, fabric: self.fabric.clone() }
    }

    /// Connections over SMC-D; both ends count each.
    pub(crate) fn connections(&self) -> u64 {
        let [a, b] = self.ends;
        a.connections.min(b.connections)
    }

    /// Fallbacks at either end.
    pub(crate) fn fallbacks(&self) -> u64 {
        self.ends.iter().map(|end| end.fallbacks).sum()
    }

    fn received(&self) -> u64 {
        self.ends.iter().map(|end| end.received).sum()
    }

    fn moved(&self) -> u64 {
        self.ends.iter().map(|end| end.moved).sum()
    }

    /// Fails unless SMC-D over our device carried everything, with `nocopy` or without.
    pub(crate) fn expect_smcd(&self, nocopy: bool) -> Result<()> {
        ensure!(self.connections() > 0, "no connection used SMC-D: {}", self.words());
        ensure!(self.fallbacks() == 0, "connections fell back to TCP: {}", self.words());
        ensure!(self.fabric.is_some(), "no link group is on our fabric");
        ensure!(self.received() > 0, "SMC received nothing: {}", self.words());
        if nocopy {
            // SMC wrote the data; the drivers moved the cursors alone.
            ensure!(
                (1..self.received()).contains(&self.moved()),
                "our device moved the data in spite of nocopy: {}",
                self.words()
            );
        } else {
            // Every byte that SMC received was moved by a driver of ours, and cursors besides.
            ensure!(
                self.moved() >= self.received(),
                "our device moved fewer bytes than SMC received: {}",
                self.words()
            );
        }
        Ok(())
    }

    /// Fails if anything used SMC-D.
    pub(crate) fn expect_no_smcd(&self) -> Result<()> {
        ensure!(self.connections() == 0, "TCP traffic used SMC-D: {}", self.words());
        ensure!(self.received() == 0, "TCP traffic was received by SMC-D: {}", self.words());
        Ok(())
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        format!(
            "{} connections over SMC-D, {} fallbacks; SMC-D received {} bytes, our device moved \
             {}; link group: {}",
            self.connections(),
            self.fallbacks(),
            self.received(),
            self.moved(),
            self.fabric.as_deref().unwrap_or("none on our fabric"),
        )
    }
}

fn read(vm: &Vm) -> Result<Counters> {
    let stats = vm.smcd("stats show")?;
    let fallback = vm.smcd("fallback show")?;
    let moved = vm.run(MOVED)?.stdout;
    Ok(Counters {
        connections: number(&stats, "/smcd/client_v2")? + number(&stats, "/smcd/server_v2")?,
        fallbacks: number(&fallback, "/client")? + number(&fallback, "/server")?,
        received: number(&stats, "/smcd/rx/bytes")?,
        moved: moved.trim().parse().with_context(|| format!("driver counter «{moved}»"))?,
    })
}

fn number(json: &Value, pointer: &str) -> Result<u64> {
    let value = json.pointer(pointer).and_then(Value::as_u64);
    value.with_context(|| format!("smcd shows no number at {pointer}: {json}"))
}

/// The link group on a fabric of ours (CHID 0xff00 to 0xfffe), in words.
fn fabric(vm: &Vm) -> Result<Option<String>> {
    let groups = vm.smcd("linkgroup show")?;
    let ours = groups.as_array().into_iter().flatten().find(|group| {
        let chid = group.get("chid").and_then(Value::as_u64).unwrap_or(0);
        (0xff00..=0xfffe).contains(&chid)
    });
    Ok(ours.map(|group| {
        let chid = group.get("chid").and_then(Value::as_u64).unwrap_or(0);
        let text = |name: &str| group.get(name).map(Value::to_string).unwrap_or_default();
        format!("CHID {chid:#x}, GID {}, peer GID {}", text("gid"), text("peer_gid"))
    }))
}
