// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copies without the lock, beside an owner that registers and unregisters.
//!
//! Invariant tested: between the answer to UNREGISTER and the next REGISTER no copy is inside the
//! owner's RAM. (That the gate alone holds it in every interleaving is in tests/loom.rs.)

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use ism_abi::{command, status as s};
use ism_emulator::{MemberId, Mode};

use crate::world::{World, config, gid, register, request, status};

const ROUNDS: usize = 1_000;

struct Shared {
    world: Mutex<World>,
    /// The token of the DMB, 0 when the owner is done.
    token: AtomicU64,
    /// The RAM is the owner's.
    owned: AtomicBool,
}

/// Stores 0 when it goes.
struct Done<'a>(&'a AtomicU64);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::SeqCst);
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn owner(&self, id: MemberId) {
        // The writer stops even if this thread panics.
        let _done = Done(&self.token);
        let dmb = register(gid(2), 0, 1 << 16, Mode::Copied);
        for _ in 0..ROUNDS {
            self.owned.store(false, Ordering::SeqCst);
            let token = self.world().register(id, dmb).token;
            self.token.store(token, Ordering::SeqCst);
            thread::yield_now();
            let unregister = request(command::UNREGISTER, &token.to_le_bytes());
            let tag = self.world().send(id, &unregister);
            let reply = loop {
                if let Some(reply) = self.world().replies.remove(&tag) {
                    break reply;
                }
                thread::yield_now();
            };
            assert_eq!(status(&reply), s::OK);
            self.owned.store(true, Ordering::SeqCst);
        }
    }

    fn writer(&self, id: MemberId) -> usize {
        let mut copies = 0;
        loop {
            let token = self.token.load(Ordering::SeqCst);
            if token == 0 {
                return copies;
            }
            let target = self.world().begin_move(id, token, 0, 8);
            let Ok(target) = target else {
                thread::yield_now();
                continue;
            };
            // The copy.
            assert!(!self.owned.load(Ordering::SeqCst));
            thread::yield_now();
            assert!(!self.owned.load(Ordering::SeqCst));
            copies += 1;
            if target.finish().settle {
                let mut world = self.world();
                world.fabric.settle();
                world.work();
            }
        }
    }
}

#[test]
fn no_copy_is_inside_what_was_unregistered() {
    let mut world = World::new(config());
    let (a, b) = (world.member(1, &["c"]), world.member(2, &["c"]));
    let (token, owned) = (AtomicU64::new(1), AtomicBool::new(true));
    let shared = Shared { world: Mutex::new(world), token, owned };
    let copies = thread::scope(|scope| {
        let writer = scope.spawn(|| shared.writer(b));
        shared.owner(a);
        writer.join().unwrap()
    });
    assert_eq!(shared.world().fabric.stats(b).unwrap().wire.moves, copies as u64);
    assert_eq!(shared.world().fabric.totals().dmbs, 0);
}
