// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every interleaving of the two lock-free parts: the pending signals and a DMB's gate.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p ism-emulator --test loom --release`
//!
//! Invariant tested: no signal is lost, no sleeper is left untold, and the owner of a DMB never
//! has its RAM back while a copy is inside.

#![cfg(loom)]

use ism_emulator::{Gate, Leave, SignalSet};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// Takes everything that is pending, one bit a DMB.
fn take_all(signals: &SignalSet) -> Vec<u32> {
    let mut taken = Vec::new();
    while let Some(batch) = signals.take() {
        taken.extend((0..64).filter(|bit| batch.mask & 1 << bit != 0).map(|bit| batch.base + bit));
    }
    taken
}

#[test]
fn a_signal_is_taken_exactly_once() {
    loom::model(|| {
        let signals = Arc::new(SignalSet::new());
        signals.set(2);
        let sender = {
            let signals = Arc::clone(&signals);
            thread::spawn(move || {
                signals.set(1);
                signals.set(64);
            })
        };
        let mut taken = take_all(&signals);
        assert!(sender.join().is_ok());
        taken.extend(take_all(&signals));
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 64]);
    });
}

#[test]
fn a_sleeper_is_told() {
    loom::model(|| {
        let signals = Arc::new(SignalSet::new());
        // The receiver is at work: nobody need tell it.
        assert!(signals.set(0));
        assert_eq!(take_all(&signals), [0]);
        let sender = {
            let signals = Arc::clone(&signals);
            thread::spawn(move || signals.set(1))
        };
        let mut taken = take_all(&signals);
        let sleeps = signals.arm();
        let told = sender.join().is_ok_and(|told| told);
        if sleeps {
            // It would sleep for ever, had it not taken the signal before and nobody told it.
            assert!(told || taken == [1]);
        }
        taken.extend(take_all(&signals));
        assert_eq!(taken, [1]);
    });
}

#[test]
fn of_two_senders_one_tells() {
    loom::model(|| {
        let signals = Arc::new(SignalSet::new());
        let send = |index| {
            let signals = Arc::clone(&signals);
            thread::spawn(move || signals.set(index))
        };
        let (one, other) = (send(1), send(2));
        let told = [one.join().is_ok_and(|told| told), other.join().is_ok_and(|told| told)];
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert_eq!(take_all(&signals), [1, 2]);
    });
}

#[test]
fn what_could_not_be_delivered_stays() {
    loom::model(|| {
        let signals = Arc::new(SignalSet::new());
        signals.set(1);
        let sender = {
            let signals = Arc::clone(&signals);
            thread::spawn(move || signals.set(2))
        };
        if let Some(batch) = signals.take() {
            signals.put_back(batch);
        }
        assert!(sender.join().is_ok());
        assert_eq!(take_all(&signals), [1, 2]);
    });
}

/// A copy: whether it ran, and what it was told when it left. Loom reports an access to `ram`
/// that is not ordered against another one.
fn copy(gate: &Gate, ram: &UnsafeCell<u8>) -> Option<Leave> {
    gate.enter().then(|| {
        ram.with_mut(|_| ());
        gate.leave()
    })
}

#[test]
fn ram_is_back_only_when_the_copy_is_out() {
    loom::model(|| {
        let gate = Arc::new(Gate::new());
        let ram = Arc::new(UnsafeCell::new(0));
        let copier = {
            let (gate, ram) = (Arc::clone(&gate), Arc::clone(&ram));
            thread::spawn(move || copy(&gate, &ram))
        };
        let closed_quiet = gate.close();
        if closed_quiet || gate.quiet() {
            ram.with_mut(|_| ());
        }
        let left = copier.join().ok().flatten();
        // Who waits is told: not quiet when closed is the same as told to settle by the copy.
        assert_eq!(!closed_quiet, left == Some(Leave::Settle));
        assert!(gate.quiet() && !gate.enter());
    });
}

#[test]
fn of_two_copies_the_last_settles() {
    loom::model(|| {
        let gate = Arc::new(Gate::new());
        let enter = || {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.enter().then(|| gate.leave()))
        };
        let (one, other) = (enter(), enter());
        let closed_quiet = gate.close();
        let left = [one.join().ok().flatten(), other.join().ok().flatten()];
        let settles = left.iter().filter(|left| **left == Some(Leave::Settle)).count();
        assert_eq!(settles, usize::from(!closed_quiet));
    });
}
