// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a message between two busy threads costs: copies, publication, and the watch word's barrier.
//!
//! Invariant: nothing here sleeps; the two sides spin on their own CDC areas. Run it on two idle CPUs:
//! `cargo bench -p smc-ring`.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smc_ring::{Area, Mapping, Notice, Ring, View, memory_file};

const LEN: usize = 1 << 20;
const ROUNDS: u64 = 1_000_000;

/// A DMB as owner and writer map it.
fn dmb() -> (View, View) {
    let file = memory_file("ring-bench", LEN as u64).unwrap();
    let map = || View::new(Arc::new(Mapping::new(&file, 0, LEN).unwrap()));
    (map(), map())
}

/// Half a round trip of `len` bytes between two spinning threads.
fn ping_pong(len: usize) -> Duration {
    let ((to_a, from_b), (to_b, from_a)) = (dmb(), dmb());
    let side = move |own: View, other: View, first: bool| {
        let (inbox, outbox) = (Area::of(&own).unwrap(), Area::of(&other).unwrap());
        let (from, to) = (Ring::of(&own).unwrap(), Ring::of(&other).unwrap());
        let (mut at, mut bytes) = (0, vec![0; len]);
        inbox.watch();
        for n in 1..=ROUNDS {
            if first {
                to.write(at, &bytes).unwrap();
                assert!(outbox.publish(n, n) == Notice::Nothing || !outbox.is_watched());
            }
            while inbox.read().0 < n {
                spin_loop();
            }
            from.read(at, &mut bytes).unwrap();
            if !first {
                to.write(at, &bytes).unwrap();
                let _ = outbox.publish(n, n);
            }
            at = (at + len) % to.len();
        }
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let side = &side;
        scope.spawn(move || side(to_a, from_a, true));
        side(to_b, from_b, false);
    });
    start.elapsed() / u32::try_from(2 * ROUNDS).unwrap()
}

/// Bytes a second into a ring and out of it again, in one thread.
fn copies(len: usize) -> f64 {
    let (own, other) = dmb();
    let (from, to) = (Ring::of(&own).unwrap(), Ring::of(&other).unwrap());
    let mut bytes = vec![1; len];
    let rounds = (4 << 30) / len;
    let start = Instant::now();
    let mut at = 0;
    for _ in 0..rounds {
        to.write(at, black_box(&bytes)).unwrap();
        from.read(at, black_box(&mut bytes)).unwrap();
        at = (at + len) % to.len();
    }
    (rounds * len) as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    for len in [14, 64, 1024] {
        println!("ping-pong of {len:5} bytes: {:?} half a round trip", ping_pong(len));
    }
    for len in [64, 4096, 65536] {
        println!("{len:5} bytes in and out: {:.1} GB/s", copies(len) / 1e9);
    }
}
