// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals through the daemon: from the sender's doorbell to the receiver holding the event.
//!
//! Invariant: one way, between two pinned threads; the sender sleeps while it waits, so that the
//! daemon has its core.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ism_frontend::{Driver, Error, Event, PATIENCE, Result};

use crate::report::Row;
use crate::{Effort, Pair, cores, pin};

const DMB: u32 = 64 << 10;
/// Long after this pause the daemon does not poll any more.
const PAUSE: Duration = Duration::from_millis(3);

/// Signal to interrupt. `asleep`: the daemon has had nothing to do for a while; else signals
/// follow one another. `spin`: the receiver looks at its ring all the time; else it sleeps.
pub fn signal(mode: u8, asleep: bool, spin: bool, effort: Effort) -> Result<Row> {
    let cores = cores();
    let Pair { mut owner, mut writer, mode, _daemon } = Pair::start(mode)?;
    let gid = writer.config().gid;
    let dmb = owner.register(gid, 0, DMB, mode)?;
    let Event::Granted(grant) = writer.next_event(Instant::now() + PATIENCE)? else {
        return Err(Error::Device("another event than the grant".into()));
    };
    let runs = if asleep { effort.slow_runs } else { effort.runs };
    let (arrived, arrivals) = channel();
    let receivers = cores.clone();
    let thread = std::thread::spawn(move || {
        pin(&receivers, 1);
        for _ in 0..runs {
            let event = receive(&mut owner, spin);
            // The sender is gone only if it failed, and has said so.
            let _ = arrived.send((Instant::now(), event));
        }
        owner
    });
    pin(&cores, 0);
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs {
        if asleep {
            std::thread::sleep(PAUSE);
        }
        let start = Instant::now();
        writer.signal(grant.token)?;
        let arrival = arrivals.recv_timeout(PATIENCE);
        let (end, event) = arrival.map_err(|_| Error::Timeout("signal"))?;
        event?;
        samples.push(end.saturating_duration_since(start));
    }
    drop(thread.join());
    drop(dmb);
    let daemon = if asleep { "asleep" } else { "awake" };
    let waiter = if spin { "spins" } else { "blocks" };
    Ok(Row::of_times(format!("signal, daemon {daemon}, waiter {waiter}"), samples))
}

fn receive(owner: &mut Driver, spin: bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let event = loop {
        if !spin {
            break owner.next_event(deadline)?;
        }
        if let Some(event) = owner.poll_event()? {
            break event;
        }
        if Instant::now() > deadline {
            return Err(Error::Timeout("signal"));
        }
        std::hint::spin_loop();
    };
    match event {
        Event::Signals(_) => Ok(()),
        other => Err(Error::Device(format!("{other:?} instead of a signal"))),
    }
}
