// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon with nothing to do: memory by number of VMs, and CPU time.
//!
//! Invariant: guests' RAM and arenas are counted apart from the daemon's own memory.

use std::time::{Duration, Instant};

use ism_abi::mode;
use ism_frontend::{Daemon, Driver, Fabric, Options, Result};

use crate::report::Row;

/// How long the daemon is watched doing nothing.
const WATCH: Duration = Duration::from_secs(2);

fn small() -> Options {
    Options { ram: 8 << 20, ..Options::default() }
}

/// Resident memory with `count` VMs connected.
pub fn memory(count: usize) -> Result<Vec<Row>> {
    let (daemon, drivers) = fabric_of(count)?;
    let used = daemon.resources()?;
    drop(drivers);
    let kib = |kib: u64| f64::from(u32::try_from(kib).unwrap_or(u32::MAX));
    let own = used.anonymous_kib + used.file_kib;
    let all = own + used.shared_kib;
    Ok(vec![
        Row::of_value(format!("resident, {count} VMs, anonymous"), kib(used.anonymous_kib), "KiB"),
        Row::of_value(format!("resident, {count} VMs, anonymous and file"), kib(own), "KiB"),
        Row::of_value(format!("resident, {count} VMs, with shared memory"), kib(all), "KiB"),
    ])
}

/// CPU time with two idle VMs that share an arena.
pub fn cpu() -> Result<Row> {
    let (daemon, mut drivers) = fabric_of(2)?;
    let gid = drivers.first().map(|driver| driver.config().gid).unwrap_or_default();
    if let Some(last) = drivers.last_mut() {
        last.register(gid, 0, 64 << 10, mode::MAPPED)?;
    }
    std::thread::sleep(Duration::from_millis(200)); // The end of what was started above.
    let (start, before) = (Instant::now(), daemon.resources()?);
    std::thread::sleep(WATCH);
    let used = daemon.resources()?.cpu.saturating_sub(before.cpu);
    let percent = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
    Ok(Row::of_value("CPU at rest, 2 VMs", (percent * 1e3).round() / 1e3, "%"))
}

fn fabric_of(count: usize) -> Result<(Daemon, Vec<Driver>)> {
    let names: Vec<String> = (0..count).map(|n| format!("vm{n}")).collect();
    let fabric = names.iter().fold(Fabric::new(), |fabric, name| fabric.vm(name, &["all"]));
    let daemon = fabric.start()?;
    let drivers = names.iter().map(|name| daemon.join(name, small())).collect::<Result<_>>()?;
    Ok((daemon, drivers))
}
