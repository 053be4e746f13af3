// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every interleaving of the signal page, of the CDC area and of a turn, small enough to be explored.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p smc-ring --test loom --release`
//!
//! Invariant tested: nobody sleeps over news, no half is torn, and flags never come before the bytes.

#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use smc_ring::{Area, AreaWords, Notice, PageWords, SignalPage, Turn};

/// A signal page of two words.
#[derive(Default)]
struct Page {
    doorbell: AtomicU32,
    summary: AtomicU64,
    pending: [AtomicU64; 2],
}

impl PageWords for Page {
    fn doorbell(&self) -> &AtomicU32 {
        &self.doorbell
    }

    fn summary(&self) -> &AtomicU64 {
        &self.summary
    }

    fn pending(&self, n: u32) -> Option<&AtomicU64> {
        self.pending.get(n as usize)
    }
}

#[derive(Default)]
struct Words {
    header: AtomicU64,
    prod: AtomicU64,
    cons: AtomicU64,
    watch: AtomicU32,
}

impl AreaWords for Words {
    fn header(&self) -> &AtomicU64 {
        &self.header
    }

    fn prod(&self) -> &AtomicU64 {
        &self.prod
    }

    fn cons(&self) -> &AtomicU64 {
        &self.cons
    }

    fn watch(&self) -> &AtomicU32 {
        &self.watch
    }
}

fn page() -> Arc<SignalPage<Page>> {
    Arc::new(SignalPage::over(Page::default()))
}

fn taken(page: &SignalPage<Page>) -> Vec<u32> {
    let mut found = Vec::new();
    page.take(|index| found.push(index));
    found
}

/// The receiver looks, arms, and sleeps if it may: then somebody rings, or nothing is left.
#[test]
fn nobody_sleeps_over_a_signal() {
    loom::model(|| {
        let page = page();
        page.silence();
        let sender = {
            let page = Arc::clone(&page);
            thread::spawn(move || page.raise(1))
        };
        let mut found = taken(&page);
        let sleeps = page.arm();
        let rung = sender.join().unwrap();
        assert!(!sleeps || rung || found == [1], "it sleeps, and a signal waits");
        found.extend(taken(&page));
        assert_eq!(found, [1]);
    });
}

/// Rung for once, the receiver looks and arms again: the second signal is not lost with the first.
#[test]
fn a_receiver_that_arms_again_is_rung_for_again() {
    loom::model(|| {
        let page = page();
        assert!(page.arm());
        let bell = Arc::new(AtomicU32::new(0));
        let sender = {
            let (page, bell) = (Arc::clone(&page), Arc::clone(&bell));
            thread::spawn(move || {
                for index in [0, 64] {
                    if page.raise(index) {
                        bell.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        };
        // Woken, perhaps for nothing: looks, arms, and may sleep.
        let rung = bell.load(Ordering::SeqCst);
        let mut found = taken(&page);
        let sleeps = page.arm();
        sender.join().unwrap();
        let rung_since = bell.load(Ordering::SeqCst) > rung;
        let rest = taken(&page);
        assert!(!sleeps || rest.is_empty() || rung_since, "it sleeps over {rest:?}");
        found.extend(rest);
        assert_eq!(found, [0, 64]);
    });
}

#[test]
fn of_two_senders_none_is_lost() {
    loom::model(|| {
        let page = page();
        page.silence();
        let send = |index| {
            let page = Arc::clone(&page);
            thread::spawn(move || page.raise(index))
        };
        let (one, other) = (send(1), send(2));
        let mut found = taken(&page);
        let sleeps = page.arm();
        let rung = one.join().unwrap() | other.join().unwrap();
        let rest = taken(&page);
        assert!(!sleeps || rung || rest.is_empty());
        found.extend(rest);
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
    });
}

/// The owner stops watching: what it then does not see in the area was or will be signalled.
#[test]
fn nobody_stops_watching_over_a_publication() {
    unwatch_over_a_publication(|area| area.watch());
}

/// An owner for whom `begin` spared its peer the signals wants them again.
fn unwatch_over_a_publication(begin: fn(&Area<Words>)) {
    loom::model(move || {
        let area = Arc::new(Area::over(Words::default()));
        begin(&area);
        let sender = {
            let area = Arc::clone(&area);
            thread::spawn(move || area.publish(7, 0))
        };
        area.unwatch();
        let seen = area.read().0 == 7;
        let signalled = sender.join().unwrap() == Notice::Signal;
        assert!(seen || signalled);
        assert_eq!(area.read().0, 7);
    });
}

/// Area and page together: the whole way of a message to an owner that goes to sleep.
#[test]
fn a_message_reaches_an_owner_that_goes_to_sleep() {
    loom::model(|| {
        let (area, page) = (Arc::new(Area::over(Words::default())), page());
        area.watch();
        page.silence();
        let sender = {
            let (area, page) = (Arc::clone(&area), Arc::clone(&page));
            thread::spawn(move || area.publish(7, 0) == Notice::Signal && page.raise(0))
        };
        area.unwatch();
        let seen = area.read().0 == 7;
        let sleeps = page.arm();
        let rung = sender.join().unwrap();
        assert!(seen || rung || !sleeps, "it sleeps over a message");
        // Whoever looks because of the bell or the page finds which DMB it was.
        assert!(seen || taken(&page) == [0]);
    });
}

/// The kernel's part of a sleep on the watch word: it compares and sleeps in one step.
#[derive(Default)]
struct Futex(Mutex<()>, Condvar);

impl Futex {
    fn wait(&self, area: &Area<Words>) {
        let lock = self.0.lock().unwrap();
        if area.is_asleep() {
            drop(self.1.wait(lock).unwrap());
        }
    }

    fn wake(&self) {
        let _lock = self.0.lock().unwrap();
        self.1.notify_all();
    }
}

/// As who waits does: says that it sleeps, looks, sleeps, and looks by itself again.
fn doze_until(area: &Area<Words>, futex: &Futex, value: u64) {
    while area.read().0 < value {
        area.sleep();
        if area.read().0 < value {
            futex.wait(area);
        }
        area.watch();
    }
}

fn publish(area: &Area<Words>, futex: &Futex, value: u64) {
    match area.publish(value, 0) {
        Notice::Nothing => {}
        Notice::Wake => futex.wake(),
        Notice::Signal => panic!("nobody waits for a signal here"),
    }
}

fn doze_over(publications: u64) {
    let both = Arc::new((Area::over(Words::default()), Futex::default()));
    both.0.watch();
    let sender = {
        let both = Arc::clone(&both);
        thread::spawn(move || (1..=publications).for_each(|n| publish(&both.0, &both.1, n)))
    };
    doze_until(&both.0, &both.1, publications);
    sender.join().unwrap();
}

/// Loom says so if somebody sleeps for ever.
#[test]
fn an_owner_that_sleeps_on_the_area_is_woken() {
    loom::model(|| doze_over(1));
}

#[test]
fn an_owner_that_sleeps_again_on_the_area_is_woken_again() {
    // All interleavings of two are too many.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| doze_over(2));
}

/// One that wants signals again while somebody is about to wake it gets a signal, or sees why.
#[test]
fn an_owner_that_sleeps_no_more_on_the_area_misses_nothing() {
    unwatch_over_a_publication(|area| area.sleep());
}

/// Bytes, then the producer half, then flags in the consumer half; loom reports an access to the bytes
/// that is not ordered after their being written.
#[test]
fn flags_and_cursors_come_after_the_bytes() {
    loom::model(|| {
        let area = Arc::new(Area::over(Words::default()));
        let bytes = Arc::new(UnsafeCell::new(0u8));
        let sender = {
            let (area, bytes) = (Arc::clone(&area), Arc::clone(&bytes));
            thread::spawn(move || {
                bytes.with_mut(|_| ());
                let _ = area.publish(1, 0);
                let _ = area.publish(1, 0x80);
            })
        };
        let (prod, cons) = area.read();
        if cons == 0x80 {
            assert_eq!(prod, 1, "the end of the stream came before its bytes");
        }
        if prod == 1 {
            bytes.with(|_| ());
        }
        sender.join().unwrap();
    });
}

/// Each half is one word: never the count of one publication with the wrap of another.
#[test]
fn halves_are_whole() {
    loom::model(|| {
        let area = Arc::new(Area::over(Words::default()));
        let sender = {
            let area = Arc::clone(&area);
            thread::spawn(move || {
                let _ = area.publish(0x0001_0001, 0x0001_0001);
                let _ = area.publish(0x0002_0002, 0x0002_0002);
            })
        };
        let (prod, cons) = area.read();
        let allowed = [0, 0x0001_0001, 0x0002_0002];
        assert!(allowed.contains(&prod) && allowed.contains(&cons));
        assert!(prod >= cons, "the half that is read second is at least as new");
        sender.join().unwrap();
    });
}

/// Two threads find something each, and have it taken.
#[test]
fn what_was_there_before_somebody_asked_is_taken() {
    loom::model(|| {
        let all = Arc::new((Turn::default(), AtomicU32::new(0), AtomicU32::new(0)));
        // One at a time, so the second word needs no ordering of its own.
        let ask = |all: &(Turn, AtomicU32, AtomicU32)| {
            let (turn, there, taken) = all;
            there.fetch_add(1, Ordering::Relaxed);
            turn.ask(|| {
                let found = there.swap(0, Ordering::Relaxed);
                taken.store(taken.load(Ordering::Relaxed) + found, Ordering::Relaxed);
            });
        };
        let other = {
            let all = Arc::clone(&all);
            thread::spawn(move || ask(&all))
        };
        ask(&all);
        other.join().unwrap();
        assert_eq!(all.2.load(Ordering::Relaxed), 2, "something was left");
    });
}
