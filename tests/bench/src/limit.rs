// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the machine allows two cores that share memory, whatever the protocol: a cache line to and fro,
//! and two copies of every byte.
//!
//! Invariant: nothing but the data and one word that says that it is there passes between the threads.

use std::hint::{black_box, spin_loop};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use crate::{cores, pin};

/// Most bytes of a message of the ping-pong.
pub const MOST: usize = 120;
/// Bytes through which the copies go. Which is best depends on how far apart the cores are: near ones
/// pass a small buffer from cache to cache, far ones are faster through memory.
const BUFFERS: [usize; 3] = [256 << 10, 2 << 20, 16 << 20];
/// Rounds between two looks at the clock.
const BATCH: u64 = 1000;

/// A message and its number; the first 56 bytes share the number's cache line.
#[derive(Default)]
#[repr(align(128))]
struct Line {
    number: AtomicU64,
    words: [AtomicU64; MOST / 8],
}

impl Line {
    fn send(&self, number: u64, words: usize) {
        for word in self.words.iter().take(words) {
            word.store(number, Ordering::Relaxed);
        }
        self.number.store(number, Ordering::Release);
    }

    /// Spins for a message; false if `stop` came first.
    fn receive(&self, number: u64, words: usize, stop: &AtomicBool) -> bool {
        while self.number.load(Ordering::Acquire) != number {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            spin_loop();
        }
        for word in self.words.iter().take(words) {
            black_box(word.load(Ordering::Relaxed));
        }
        true
    }
}

/// Half a round trip of a message of at most [`MOST`] bytes between two pinned threads that spin.
pub fn ping_pong(bytes: usize, time: Duration) -> Duration {
    let words = bytes.min(MOST).div_ceil(8);
    let (there, back, stop) = (Line::default(), Line::default(), AtomicBool::new(false));
    let cores = cores();
    scope(|threads| {
        threads.spawn(|| {
            pin(&cores, 0);
            let mut number = 1;
            while there.receive(number, words, &stop) {
                back.send(number, words);
                number += 1;
            }
        });
        pin(&cores, 1);
        let never = AtomicBool::new(false);
        let mut number = 0;
        let mut trips = |count: u64| {
            for _ in 0..count {
                number += 1;
                there.send(number, words);
                back.receive(number, words, &never);
            }
        };
        // The other thread has started when the first come back.
        trips(BATCH);
        let (start, mut batches) = (Instant::now(), 0_u32);
        while start.elapsed() < time {
            trips(BATCH);
            batches += 1;
        }
        let half = start.elapsed().as_secs_f64() / f64::from(batches) / (2 * BATCH) as f64;
        stop.store(true, Ordering::Relaxed);
        Duration::from_secs_f64(half)
    })
}

/// Bytes a second that are copied into a shared buffer and out of it, in pieces of `bytes`: by two
/// pinned threads through the best of some buffers, or by one alone if that is faster.
pub fn two_copies(bytes: usize, time: Duration) -> f64 {
    let time = time / 4;
    let pairs = BUFFERS.map(|buffer| by_two(bytes, buffer, time));
    pairs.into_iter().fold(by_one(bytes, time), f64::max)
}

/// One thread copies in and out.
fn by_one(bytes: usize, time: Duration) -> f64 {
    let (from, mut shared, mut to) = (vec![1_u8; bytes], vec![0_u8; bytes], vec![0_u8; bytes]);
    let (start, mut pieces) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        black_box(&mut shared).copy_from_slice(black_box(&from));
        black_box(&mut to).copy_from_slice(black_box(&shared));
        pieces += 1;
    }
    pieces as f64 * bytes as f64 / start.elapsed().as_secs_f64()
}

/// One thread copies in, another one out.
fn by_two(bytes: usize, buffer: usize, time: Duration) -> f64 {
    let piece = bytes.clamp(1, buffer);
    let count = (buffer / piece).max(1) as u64;
    // Nobody ever waits for these locks: the two numbers say whose turn it is. They cost some 20 ns a
    // piece, which takes microseconds.
    let slots: Vec<Mutex<Vec<u8>>> = (0..count).map(|_| Mutex::new(vec![0; piece])).collect();
    let slot = |number: u64| slots.get(usize::try_from(number % count).unwrap_or_default());
    let (written, read) = (Line::default(), Line::default());
    let stop = AtomicBool::new(false);
    let cores = cores();
    scope(|threads| {
        threads.spawn(|| {
            pin(&cores, 0);
            let (from, mut next) = (vec![1_u8; piece], 0);
            loop {
                while next - read.number.load(Ordering::Acquire) == count {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    spin_loop();
                }
                if let Some(Ok(mut slot)) = slot(next).map(Mutex::lock) {
                    slot.copy_from_slice(black_box(&from));
                }
                next += 1;
                written.number.store(next, Ordering::Release);
            }
        });
        pin(&cores, 1);
        let (mut to, mut next) = (vec![0_u8; piece], 0);
        let start = Instant::now();
        while start.elapsed() < time {
            while written.number.load(Ordering::Acquire) == next {
                spin_loop();
            }
            if let Some(Ok(slot)) = slot(next).map(Mutex::lock) {
                black_box(&mut to).copy_from_slice(&slot);
            }
            next += 1;
            read.number.store(next, Ordering::Release);
        }
        let took = start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        next as f64 * piece as f64 / took
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_end_and_give_a_figure() {
        let time = Duration::from_millis(20);
        assert!(ping_pong(14, time) > Duration::ZERO);
        assert!(two_copies(64_000, time) > 0.0);
    }
}
