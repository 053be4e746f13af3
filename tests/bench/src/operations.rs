// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Control requests and moves, each timed from the driver's call to its return.
//!
//! Invariant: outside the timed part the pair is brought back to the same state.

use std::time::{Duration, Instant};

use ism_abi::mode;
use ism_frontend::{Error, Event, PATIENCE, Result};

use crate::report::Row;
use crate::{Effort, Pair, cores, pin};

const DMB: u32 = 64 << 10;

/// PING, REGISTER, UNREGISTER, and where it exists ATTACH.
pub fn control(mode: u8, effort: Effort) -> Result<Vec<Row>> {
    let mut pair = Pair::start(mode)?;
    pin(&cores(), 0); // After the daemon's start: it would inherit it.
    let name = name(mode);
    let gid = pair.writer.config().gid;
    let [mut ping, mut register, mut unregister, mut attach] = [const { Vec::new() }; 4];
    let mut first = Duration::ZERO;
    for run in 0..effort.runs {
        ping.push(timed(|| pair.owner.ping(1))?.1);
        let (dmb, time) = timed(|| pair.owner.register(gid, 0, DMB, mode))?;
        let token = dmb.token();
        expect(&mut pair, |event| matches!(event, Event::Granted(_)))?;
        if run == 0 {
            first = time; // Makes the pair's arena and waits for both mappings.
        } else {
            register.push(time);
        }
        if mode == mode::MAPPED {
            attach.push(timed(|| pair.writer.attach(token))?.1);
            pair.writer.detach(token)?;
        }
        unregister.push(timed(|| pair.owner.unregister(dmb))?.1);
        expect(&mut pair, |event| matches!(event, Event::Unregistered(_)))?;
    }
    let mut rows = vec![
        Row::of_times(format!("ping, {name}"), ping),
        Row::of_value(format!("first register of a pair, {name}"), first.as_secs_f64() * 1e9, "ns"),
        Row::of_times(format!("register, {name}"), register),
        Row::of_times(format!("unregister, {name}"), unregister),
    ];
    if mode == mode::MAPPED {
        rows.push(Row::of_times("attach, mapped", attach));
    }
    Ok(rows)
}

/// move_data of `len` bytes without a signal.
pub fn move_data(mode: u8, len: usize, effort: Effort) -> Result<Row> {
    let mut pair = Pair::start(mode)?;
    pin(&cores(), 0); // After the daemon's start: it would inherit it.
    let gid = pair.writer.config().gid;
    let dmb = pair.owner.register(gid, 0, DMB, mode)?;
    let Event::Granted(grant) = pair.writer.next_event(Instant::now() + PATIENCE)? else {
        return Err(Error::Device("another event than the grant".into()));
    };
    let payload = vec![0x5a; len];
    let mut samples = Vec::with_capacity(effort.runs);
    if mode == mode::COPIED {
        for _ in 0..effort.runs {
            samples.push(timed(|| pair.writer.move_to(grant.token, 0, &payload, false))?.1);
        }
    } else {
        let place = pair.writer.granted_bytes(&grant)?;
        let batch = if len < 4096 { 1000 } else { 1 };
        for _ in 0..effort.runs {
            let copies = || (0..batch).try_for_each(|_| place.write(0, &payload));
            samples.push(timed(copies)?.1 / batch);
        }
    }
    drop(dmb);
    Ok(Row::of_times(format!("move_data {len} B, {}", name(mode)), samples))
}

fn name(mode: u8) -> &'static str {
    if mode == mode::COPIED { "copied" } else { "mapped" }
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let done = work()?;
    Ok((done, start.elapsed()))
}

fn expect(pair: &mut Pair, wanted: impl Fn(&Event) -> bool) -> Result<()> {
    let event = pair.writer.next_event(Instant::now() + PATIENCE)?;
    if wanted(&event) { Ok(()) } else { Err(Error::Device(format!("unexpected {event:?}"))) }
}
