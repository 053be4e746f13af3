// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the machine does without the device: a memcpy, and a hop over a bare eventfd.
//!
//! Invariant: the hop is measured as the device's signals are: one way, between two pinned threads.

use std::hint::black_box;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::report::Row;
use crate::{Effort, cores, pin};

/// Copies between two buffers.
pub fn memcpy(len: usize, effort: Effort) -> Row {
    pin(&cores(), 0);
    let (from, mut to) = (vec![1u8; len], vec![0u8; len]);
    // So short that the clock itself would be measured: several at a time.
    let batch = if len < 4096 { 1000 } else { 1 };
    let mut samples = Vec::with_capacity(effort.runs);
    for _ in 0..effort.runs {
        let start = Instant::now();
        for _ in 0..batch {
            black_box(&mut to).copy_from_slice(black_box(&from));
        }
        samples.push(start.elapsed() / batch);
    }
    Row::of_times(format!("bare memcpy, {len} B"), samples)
}

/// One write of an eventfd to the return of the read in another thread.
pub fn eventfd_hop(spin: bool, effort: Effort) -> io::Result<Row> {
    let cores = cores();
    let flags = if spin { EventfdFlags::NONBLOCK } else { EventfdFlags::empty() };
    let (signal, copy) = {
        let fd: OwnedFd = eventfd(0, flags)?;
        let copy = fd.try_clone()?;
        (fd, copy)
    };
    let (arrived, arrivals) = channel();
    let (runs, receivers) = (effort.runs, cores.clone());
    let thread = std::thread::spawn(move || {
        pin(&receivers, 1);
        let mut word = [0; 8];
        for _ in 0..runs {
            while rustix::io::read(&copy, &mut word).is_err() {
                std::hint::spin_loop();
            }
            // The sender is gone only if it failed, and has said so.
            let _ = arrived.send(Instant::now());
        }
    });
    pin(&cores, 0);
    let mut samples: Vec<Duration> = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        rustix::io::write(&signal, &1u64.to_ne_bytes())?;
        let end = arrivals.recv().map_err(io::Error::other)?;
        samples.push(end.saturating_duration_since(start));
    }
    // A panic there has been printed and its samples are missing, which recv() reported.
    let _ = thread.join();
    let waiter = if spin { "spins" } else { "blocks" };
    Ok(Row::of_times(format!("bare eventfd hop, waiter {waiter}"), samples))
}
