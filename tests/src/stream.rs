// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A well-behaved pair that streams while others misbehave.
//!
//! Invariant: every chunk is verified at its arrival, and the hashes of both ends over all bytes
//! are equal when the stream ends.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use ism_abi::DmbGranted;
use ism_frontend::commands::Dmb;
use ism_frontend::{Driver, Event};

use crate::fabric::{DMB, gid, granted, soon, write};
use crate::random::Random;

/// Bytes of a chunk: a number, then random bytes.
const CHUNK: usize = 8 << 10;

/// The stream: two threads, a driver each.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    chunks: Arc<AtomicU64>,
    sender: JoinHandle<(Driver, u64)>,
    receiver: JoinHandle<(Driver, u64)>,
}

/// One end: the DMB the peer writes, and the grant of the peer's.
struct End {
    driver: Driver,
    own: Dmb,
    peer: DmbGranted,
}

impl Stream {
    /// Starts to stream from `a` to `b`, each chunk acknowledged, until [`Stream::finish`].
    pub fn start(mut a: Driver, mut b: Driver, mode: u8) -> Self {
        let own_b = b.register(gid(&a), 0, DMB, mode).expect("register at the receiver");
        let own_a = a.register(gid(&b), 0, DMB, mode).expect("register at the sender");
        let (grant_a, grant_b) = (granted(&mut a), granted(&mut b));
        let mut sender = End { driver: a, own: own_a, peer: grant_a };
        let mut receiver = End { driver: b, own: own_b, peer: grant_b };
        let stop: Arc<AtomicBool> = Arc::default();
        let chunks: Arc<AtomicU64> = Arc::default();
        let (ending, counter) = (stop.clone(), chunks.clone());
        Self {
            stop,
            chunks,
            sender: std::thread::spawn(move || {
                let hash = sender.send(&ending, &counter);
                (sender.driver, hash)
            }),
            receiver: std::thread::spawn(move || {
                let hash = receiver.receive();
                (receiver.driver, hash)
            }),
        }
    }

    /// Chunks that have arrived.
    pub fn chunks(&self) -> u64 {
        self.chunks.load(Ordering::Relaxed)
    }

    /// Waits until `more` further chunks have arrived: the stream makes progress.
    pub fn progress(&self, more: u64) {
        let target = self.chunks() + more;
        crate::fabric::eventually("progress of the well-behaved pair", || {
            assert!(!self.sender.is_finished(), "the sender failed");
            assert!(!self.receiver.is_finished(), "the receiver failed");
            self.chunks() >= target
        });
    }

    /// Ends the stream and compares the hashes; both drivers, still joined.
    pub fn finish(self) -> (Driver, Driver) {
        self.stop.store(true, Ordering::Relaxed);
        let (a, sent) = self.sender.join().expect("the sender");
        let (b, received) = self.receiver.join().expect("the receiver");
        assert!(self.chunks.load(Ordering::Relaxed) > 0, "nothing was streamed");
        assert_eq!(sent, received, "the hashes of both ends");
        (a, b)
    }
}

impl End {
    fn send(&mut self, stop: &AtomicBool, chunks: &AtomicU64) -> u64 {
        let mut hash = DefaultHasher::new();
        let mut random = Random::new(7);
        let mut number = 0u64;
        loop {
            number += 1;
            let last = stop.load(Ordering::Relaxed);
            let mut chunk = random.bytes(CHUNK);
            let tag = if last { u64::MAX } else { number };
            chunk[..8].copy_from_slice(&tag.to_le_bytes());
            hash.write(&chunk);
            write(&mut self.driver, &self.peer, place(number), &chunk);
            // The acknowledgement is the same number, written at the start of our DMB.
            self.await_signal(|end| {
                let mut ack = [0; 8];
                end.own.bytes.read(0, &mut ack).expect("own DMB");
                u64::from_le_bytes(ack) == number
            });
            chunks.store(number, Ordering::Relaxed);
            if last {
                return hash.finish();
            }
        }
    }

    fn receive(&mut self) -> u64 {
        let mut hash = DefaultHasher::new();
        let mut random = Random::new(7);
        for number in 1u64.. {
            let mut chunk = vec![0; CHUNK];
            let mut last = false;
            self.await_signal(|end| {
                end.own.bytes.read(place(number).into(), &mut chunk).expect("own DMB");
                last = chunk[..8] == u64::MAX.to_le_bytes();
                last || chunk[..8] == number.to_le_bytes()
            });
            assert_eq!(chunk[8..], random.bytes(CHUNK)[8..], "chunk {number} is spoilt");
            hash.write(&chunk);
            write(&mut self.driver, &self.peer, 0, &number.to_le_bytes());
            if last {
                break;
            }
        }
        hash.finish()
    }

    /// Waits for a signal of the own DMB, after which `done` holds. Looks only after signals: what
    /// is there before may still be being written.
    fn await_signal(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        loop {
            let event = self.driver.next_event(soon()).expect("a signal of the peer");
            // Others may send software events, or grant their own DMBs; signals only the peer may.
            if let Event::Signals(signals) = event {
                assert_eq!((signals.base, signals.mask), (0, 1), "a signal of somebody else");
                if done(self) {
                    return;
                }
            }
        }
    }
}

/// Chunks go round the DMB; the first bytes are for acknowledgements.
fn place(number: u64) -> u32 {
    let slots = u64::from(DMB) / CHUNK as u64 - 1;
    u32::try_from((1 + number % slots) * CHUNK as u64).expect("inside the DMB")
}
