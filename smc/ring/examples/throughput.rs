// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What rings of different sizes carry between two cores: the upper limit of a stream (docs/host-speed.md).
//!
//! Invariant: the threads share nothing but the ring and its two cursors.
//!
//! `cargo run --release -p smc-ring --example throughput`
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use smc_ring::{Mapping, Ring, View, memory_file};

/// Bytes that are copied before the other side is told.
const PIECE: usize = 32 << 10;
/// Bytes of a message: what both sides copy from, and to, again and again.
const MESSAGE: usize = 64_000;
/// Of each measurement.
const TIME: Duration = Duration::from_millis(500);

/// A cursor with its own cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Cursor(AtomicUsize);

#[derive(Default)]
struct Shared {
    written: Cursor,
    read: Cursor,
    over: AtomicBool,
}

/// The next piece from `at` on, if `room` bytes are free or there.
fn piece(at: usize, room: usize) -> std::ops::Range<usize> {
    let from = at % MESSAGE;
    from..from + room.min(PIECE).min(MESSAGE - from)
}

fn read(ring: &Ring, shared: &Shared) {
    let mut buffer = vec![0; MESSAGE];
    let mut at = 0;
    while !shared.over.load(Ordering::Relaxed) {
        let range = piece(at, shared.written.0.load(Ordering::Acquire) - at);
        let part = buffer.get_mut(range).unwrap_or_default();
        if part.is_empty() || ring.read(at % ring.len(), part).is_err() {
            std::hint::spin_loop();
            continue;
        }
        at += part.len();
        // Else nobody would need the copy, and it would not be made.
        black_box(&mut buffer);
        shared.read.0.store(at, Ordering::Release);
    }
}

/// Bytes that were written in [`TIME`], past the caches or through them.
fn write(ring: &Ring, shared: &Shared, past: bool) -> usize {
    let message = vec![1; MESSAGE];
    let (start, mut at) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        let room = ring.len() - (at - shared.read.0.load(Ordering::Acquire));
        let part = message.get(piece(at, room)).unwrap_or_default();
        let place = at % ring.len();
        let written =
            if past { ring.write_past_caches(place, part) } else { ring.write(place, part) };
        if part.is_empty() || written.is_err() {
            std::hint::spin_loop();
            continue;
        }
        at += part.len();
        shared.written.0.store(at, Ordering::Release);
    }
    shared.over.store(true, Ordering::Relaxed);
    at
}

/// GB/s through a ring of `len` bytes.
fn measure(len: usize, past: bool) -> Result<f64, Box<dyn Error>> {
    let file = memory_file("throughput", len as u64)?;
    let ring = Ring::of(&View::new(Arc::new(Mapping::new(&file, 0, len)?)))?;
    let (shared, theirs) = (Arc::new(Shared::default()), ring.clone());
    let reader = Arc::clone(&shared);
    let reader = thread::spawn(move || read(&theirs, &reader));
    let bytes = write(&ring, &shared, past);
    reader.join().map_err(|_| "the reader panicked")?;
    Ok(bytes as f64 / TIME.as_secs_f64() / 1e9)
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("ring        plain stores   past the caches");
    for kib in [64, 128, 256, 512, 1024, 2048, 4096] {
        let (plain, past) = (measure(kib << 10, false)?, measure(kib << 10, true)?);
        println!("{kib:5} KiB: {plain:6.1} GB/s {past:12.1} GB/s");
    }
    Ok(())
}
