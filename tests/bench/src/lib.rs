// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measurements without a VM: of the device through its front-end, and of the SMC protocol.
//!
//! Invariant: what is compared is measured in one run, on the same pinned cores, and given as
//! median and 99th percentile of single operations.

pub mod at_rest;
pub mod bare;
pub mod heap;
pub mod limit;
pub mod operations;
pub mod process;
pub mod proto;
pub mod report;
pub mod signals;

use ism_abi::mode;
use ism_frontend::{Daemon, Driver, Fabric, Options, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each operation.
    pub runs: usize,
    /// Runs of operations that wait for the daemon to fall asleep first.
    pub slow_runs: usize,
}

/// Two members of one fabric.
pub(crate) struct Pair {
    pub(crate) owner: Driver,
    pub(crate) writer: Driver,
    pub(crate) mode: u8,
    /// Ends last.
    pub(crate) _daemon: Daemon,
}

impl Pair {
    pub(crate) fn start(mode: u8) -> Result<Self> {
        let name = if mode == mode::COPIED { "copied" } else { "mapped" };
        let fabric = Fabric::new().set(&format!("mode = {name:?}"));
        let daemon = fabric.vm("owner", &["all"]).vm("writer", &["all"]).start()?;
        let owner = daemon.join("owner", Options::default())?;
        let writer = daemon.join("writer", Options::default())?;
        Ok(Self { owner, writer, mode, _daemon: daemon })
    }
}

/// Cores this process may use, in order.
pub fn cores() -> Vec<usize> {
    // Without the set the threads stay where the scheduler puts them.
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Pins the calling thread to one of `cores`, counted round.
pub fn pin(cores: &[usize], nth: usize) {
    if let Some(core) = cores.get(nth % cores.len().max(1)) {
        let mut set = CpuSet::new();
        set.set(*core);
        // If it is refused, the figures are only less steady.
        let _ = sched_setaffinity(None, &set);
    }
}

/// Pins the calling thread to the first core it may use.
pub fn pin_to_first() {
    pin(&cores(), 0);
}
