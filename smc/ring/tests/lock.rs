// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The lock between processes, with two of them. The other is this program again, running the test `child`.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use smc_ring::lock::{Got, lock, lock_within, unlock};
use smc_ring::{Mapping, View, memory_file};

const FILE: &str = "LOCK_FILE";
const HOLDS: &str = "LOCK_HOLDS";
const ROUNDS: u32 = 200_000;
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// The lock at 0, a counter at 8 that is no atomic's, and at 16 whether the child is ready.
struct Memory(View);

impl Memory {
    fn count(&self, owner: u32) {
        for _ in 0..ROUNDS {
            assert_eq!(lock(self.0.u32(0).unwrap(), owner, |_| false), Got::Free);
            self.0.write(8, &(self.read() + 1).to_ne_bytes()).unwrap();
            unlock(self.0.u32(0).unwrap(), owner);
        }
    }

    fn read(&self) -> u32 {
        let mut bytes = [0; 4];
        self.0.read(8, &mut bytes).unwrap();
        u32::from_ne_bytes(bytes)
    }

    fn wait_for_child(&self) {
        let start = Instant::now();
        while self.0.u32(16).unwrap().load(Ordering::Acquire) == 0 {
            assert!(start.elapsed() < LONG);
            std::thread::yield_now();
        }
    }
}

/// The memory, and a child that counts, or takes the lock and keeps it.
fn with_child(holds: bool) -> (Memory, Child) {
    let file = memory_file("lock", 4096).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let memory = Memory(View::new(Arc::new(Mapping::new(&file, 0, 4096).unwrap())));
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child"]).env(FILE, path);
    if holds {
        child.env(HOLDS, "1");
    }
    let child = child.spawn().unwrap();
    memory.wait_for_child();
    (memory, child)
}

#[test]
fn child() {
    let Ok(path) = std::env::var(FILE) else { return };
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let memory = Memory(View::new(Arc::new(Mapping::new(&file, 0, 4096).unwrap())));
    let ready = || memory.0.u32(16).unwrap().store(1, Ordering::Release);
    if std::env::var(HOLDS).is_ok() {
        assert_eq!(lock(memory.0.u32(0).unwrap(), 2, |_| false), Got::Free);
        ready();
        std::thread::sleep(LONG);
    } else {
        ready();
        memory.count(2);
    }
}

#[test]
fn two_processes_are_never_in_at_once() {
    let (memory, mut child) = with_child(false);
    memory.count(1);
    assert!(child.wait().unwrap().success());
    assert_eq!(memory.read(), 2 * ROUNDS);
    assert_eq!(memory.0.u32(0).unwrap().load(Ordering::Relaxed), 0, "it is free");
}

#[test]
fn the_lock_of_a_killed_process_is_taken_over_by_who_is_told_so() {
    let (memory, mut child) = with_child(true);
    let word = memory.0.u32(0).unwrap();
    let at_once = |owner| lock_within(word, owner, |_| false, Duration::ZERO);
    assert_eq!(at_once(1), None);
    assert_eq!(lock_within(word, 1, |_| true, Duration::from_millis(1)), Some(Got::Orphaned));
    unlock(word, 2);
    assert_eq!(at_once(3), None, "who has lost it does not give it back");
    unlock(word, 1);
    assert_eq!(lock(word, 2, |_| false), Got::Free, "in the killed process's name");
    child.kill().unwrap();
    child.wait().unwrap();
    let asked = std::cell::Cell::new(0);
    let is_over = |owner| {
        // It is asked until it says so.
        asked.set(asked.get() + 1);
        assert_eq!(owner, 2);
        asked.get() > 2
    };
    assert_eq!(lock(word, 1, is_over), Got::Orphaned);
    assert_eq!(asked.get(), 3);
    assert_eq!(at_once(3), None, "it is held");
    unlock(word, 1);
    assert_eq!(at_once(3), Some(Got::Free));
}
