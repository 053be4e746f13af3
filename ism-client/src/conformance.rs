// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What every way to a fabric must do alike: one function a property, run by [`conformance!`].
//!
//! Invariant: a case uses [`World`] and [`Device`] only, so it cannot tell what is below.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use ism_abi::{Gid, MIN_DMB_LEN, status};
use rustix::event::{PollFd, PollFlags, poll};
use smc_ring::{Area, Notice};

use crate::board::{Note, Post};
use crate::driver::{Device, Dmb, Event, Remote};
use crate::error::Error;

/// Where members come from.
pub trait World {
    /// A new member that may talk to every other of this world.
    fn member(&self) -> Device;
}

/// How long what must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a test of every case; `$world` makes a [`World`].
#[macro_export]
macro_rules! conformance {
    ($world:expr) => {
        $crate::conformance! { $world =>
            members_have_addresses_of_their_own
            unknown_members_are_unreachable
            lengths_have_limits
            bytes_and_signals_arrive
            a_token_is_known_before_anybody_can_tell_it
            only_the_named_writer_writes
            nobody_sleeps_over_a_message
            an_ended_dmb_is_dead_and_its_memory_zero
            a_signal_for_an_ended_dmb_leaves_others_theirs
            attached_memory_is_not_used_again
            a_peer_that_goes_is_told_and_leaves_its_bytes
            a_peer_that_comes_again_is_another
            a_member_talks_to_itself
            software_events_name_their_sender
            ends_read_the_board_from_its_beginning_in_one_order
            a_listener_is_told_of_callers_and_they_of_it
            a_member_that_goes_leaves_the_board
            hundreds_of_dmbs_leave_nothing
            a_hostile_writer_spoils_its_own_pair_only
            threads_share_a_device
        }
    };
    ($world:expr => $($case:ident)*) => {
        $(#[test]
        fn $case() {
            $crate::conformance::$case(&$world);
        })*
    };
}

/// Waits, asleep, until an event that `wanted` takes; the others are dropped.
#[track_caller]
pub fn wait_for<T>(device: &Device, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    loop {
        device.poll(&mut events).unwrap();
        if let Some(found) = events.drain(..).find_map(|event| wanted(&event)) {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not happen");
        sleep(device);
    }
}

/// Sleeps until something happens, or for a while.
pub fn sleep(device: &Device) {
    if !device.arm().unwrap() {
        return;
    }
    let mut fds = [PollFd::from_borrowed_fd(device.fd(), PollFlags::IN)];
    let timeout = rustix::time::Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let woken = poll(&mut fds, Some(&timeout)).unwrap();
    assert!(woken > 0, "nobody rang");
    device.woken();
}

/// Looks until `condition` holds, for what tells nobody when it changes.
#[track_caller]
fn eventually(device: &Device, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not become so");
        let _ = device.poll(&mut Vec::new());
        std::thread::sleep(Duration::from_millis(1)); // The pace of looking, not a wait.
    }
}

fn dmb(owner: &Device, writer: &Device) -> (Dmb, Remote) {
    let dmb = owner.register(writer.gid(), MIN_DMB_LEN).unwrap();
    let remote = writer.remote(dmb.token()).unwrap();
    (dmb, remote)
}

#[track_caller]
fn assert_signal(owner: &Device, dmb: &Dmb) {
    wait_for(owner, |event| (*event == Event::Signal { index: dmb.index() }).then_some(()));
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn members_have_addresses_of_their_own(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    assert_ne!(a.gid(), b.gid());
    assert_ne!(a.gid()[8..], b.gid()[8..], "the extension alone is unique");
    assert_eq!(a.fabric_id(), b.fabric_id());
    assert!(a.limits().max_dmb_len >= MIN_DMB_LEN && a.limits().max_dmbs > 0);
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn unknown_members_are_unreachable(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    a.query(b.gid(), None).unwrap();
    a.query(a.gid(), None).unwrap();
    let nobody = [0xee; 16];
    assert_eq!(a.query(nobody, None).unwrap_err().status(), Some(status::UNREACHABLE));
    let refused = a.register(nobody, MIN_DMB_LEN).unwrap_err();
    assert_eq!(refused.status(), Some(status::UNREACHABLE));
    assert_eq!(a.counts(), (0, 0, 0));
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn lengths_have_limits(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    let longest = a.limits().max_dmb_len;
    for len in [0, 4096, MIN_DMB_LEN + 1, longest + 4096, u32::MAX] {
        let refused = a.register(b.gid(), len).unwrap_err();
        assert_eq!(refused.status(), Some(status::INVALID), "{len}");
    }
    for len in [MIN_DMB_LEN, longest] {
        assert_eq!(a.register(b.gid(), len).unwrap().memory().len(), len as usize);
    }
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn bytes_and_signals_arrive(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    let (dmbs, remotes): (Vec<_>, Vec<_>) = (0..70).map(|_| dmb(&a, &b)).unzip();
    // One after the other, and past the first word of the signal page.
    for (n, (dmb, remote)) in dmbs.iter().zip(&remotes).enumerate() {
        remote.memory().write(100, &n.to_ne_bytes()).unwrap();
        remote.signal().unwrap();
        assert_signal(&a, dmb);
        let mut bytes = [0; 8];
        dmb.memory().read(100, &mut bytes).unwrap();
        assert_eq!(usize::from_ne_bytes(bytes), n);
        assert_eq!((remote.owner(), remote.token()), (a.gid(), dmb.token()));
    }
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn a_token_is_known_before_anybody_can_tell_it(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    // b has not looked at its events at all.
    let dmb = a.register(b.gid(), MIN_DMB_LEN).unwrap();
    assert_eq!(b.remote(dmb.token()).unwrap().memory().len(), MIN_DMB_LEN as usize);
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn only_the_named_writer_writes(world: &dyn World) {
    let (a, b, c) = (world.member(), world.member(), world.member());
    let (dmb, _remote) = dmb(&a, &b);
    for (member, token) in [(&c, dmb.token()), (&a, dmb.token()), (&b, dmb.token() ^ 1), (&b, 0)] {
        assert!(matches!(member.remote(token), Err(Error::NoToken(it)) if it == token));
    }
}

/// A ping-pong in which each side sleeps before every message, and one in which both sides sometimes look.
pub fn nobody_sleeps_over_a_message(world: &dyn World) {
    const ROUNDS: u64 = 2000;
    let (a, b) = (world.member(), world.member());
    let (to_a, from_b) = dmb(&a, &b);
    let (to_b, from_a) = dmb(&b, &a);
    let side = |device: &Device, own: &Dmb, other: &Remote, first: bool| {
        let (inbox, outbox) = (Area::of(own.memory()).unwrap(), Area::of(other.memory()).unwrap());
        let send = |n| {
            if outbox.publish(n, 0) == Notice::Signal {
                other.signal().unwrap();
            }
        };
        let mut events = Vec::new();
        for n in 1..=ROUNDS {
            if first {
                send(n);
            }
            let looks = n % 3 == 0;
            if looks {
                inbox.watch();
            }
            let deadline = Instant::now() + PATIENCE;
            while inbox.read().0 < n {
                assert!(Instant::now() < deadline, "round {n}");
                device.poll(&mut events).unwrap();
                inbox.unwatch();
                if inbox.read().0 < n {
                    sleep(device);
                }
            }
            if !first {
                send(n);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| side(&a, &to_a, &from_a, true));
        side(&b, &to_b, &from_b, false);
    });
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn an_ended_dmb_is_dead_and_its_memory_zero(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    let (first, remote) = dmb(&a, &b);
    let token = first.token();
    remote.memory().write(0, &[7; 16384]).unwrap();
    assert!(!remote.is_dead());
    drop(first);
    wait_for(&b, |event| (*event == Event::Unregistered { token }).then_some(()));
    assert!(remote.is_dead());
    assert!(matches!(b.remote(token), Err(Error::NoToken(_))));
    remote.signal().unwrap(); // Nobody's; nothing happens.
    for _ in 0..3 {
        let (next, _remote) = dmb(&a, &b);
        assert_ne!(next.token(), token, "a token is never used again");
        let mut bytes = [1; 16384];
        next.memory().read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 16384]);
    }
}

/// Who signals an ended DMB must not take the ring of those that live.
pub fn a_signal_for_an_ended_dmb_leaves_others_theirs(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    let ((ended, to_ended), (lives, to_live)) = (dmb(&a, &b), dmb(&a, &b));
    let token = ended.token();
    drop(ended);
    wait_for(&b, |event| (*event == Event::Unregistered { token }).then_some(()));
    let rung = |within: Duration| {
        let mut fds = [PollFd::from_borrowed_fd(a.fd(), PollFlags::IN)];
        poll(&mut fds, Some(&within.try_into().unwrap())).unwrap() > 0
    };
    while !a.arm().unwrap() || rung(Duration::ZERO) {
        a.woken();
        a.poll(&mut Vec::new()).unwrap();
    }
    to_ended.signal().unwrap();
    to_live.signal().unwrap();
    assert!(rung(PATIENCE), "nobody rang");
    a.woken();
    assert_signal(&a, &lives);
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn attached_memory_is_not_used_again(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    let (first, mut remote) = dmb(&a, &b);
    remote.attach().unwrap();
    drop(first);
    let later: Vec<_> = (0..8).map(|_| dmb(&a, &b)).collect();
    remote.memory().write(0, &[7; 16384]).unwrap();
    for (dmb, _) in &later {
        let mut bytes = [1; 16384];
        dmb.memory().read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 16384]);
    }
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn a_peer_that_goes_is_told_and_leaves_its_bytes(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    let (gid, (own, remote), (theirs, mut mine)) = (b.gid(), dmb(&a, &b), dmb(&b, &a));
    mine.attach().unwrap();
    remote.memory().write(64, b"last words").unwrap();
    drop((remote, theirs, b));
    wait_for(&a, |event| (*event == Event::PeerGone { gid }).then_some(()));
    let mut bytes = [0; 10];
    own.memory().read(64, &mut bytes).unwrap();
    assert_eq!(&bytes, b"last words");
    // What is written is for nobody, and harms nobody.
    assert!(mine.is_dead());
    mine.memory().write(0, &[1; 16384]).unwrap();
    mine.signal().unwrap();
    assert_eq!(a.query(gid, None).unwrap_err().status(), Some(status::UNREACHABLE));
    drop((own, mine));
    let _ = a.poll(&mut Vec::new());
    assert_eq!(a.counts(), (0, 0, 0));
}

/// Pairs come and go: each time with new memory, and without filling this member's window.
pub fn a_peer_that_comes_again_is_another(world: &dyn World) {
    let a = world.member();
    for round in 0..40 {
        let b = world.member();
        let (own, remote) = dmb(&a, &b);
        let (theirs, mine) = dmb(&b, &a);
        mine.signal().unwrap();
        assert_signal(&b, &theirs);
        remote.signal().unwrap();
        assert_signal(&a, &own);
        drop((remote, theirs));
        if round % 2 == 0 {
            drop((own, mine));
            drop(b);
        } else {
            drop(b);
            drop((own, mine));
        }
        eventually(&a, || a.counts() == (0, 0, 0));
    }
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn a_member_talks_to_itself(world: &dyn World) {
    let a = world.member();
    let (own, remote) = dmb(&a, &a);
    for n in 0..100u8 {
        remote.memory().write(40, &[n]).unwrap();
        remote.signal().unwrap();
        assert_signal(&a, &own);
        let mut byte = [0];
        own.memory().read(40, &mut byte).unwrap();
        assert_eq!(byte, [n]);
    }
    // Also from another thread, while this one sleeps.
    let area = Area::of(own.memory()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let area = Area::of(remote.memory()).unwrap();
            for n in 1..=100 {
                if area.publish(n, 0) == Notice::Signal {
                    remote.signal().unwrap();
                }
            }
        });
        while area.read().0 < 100 {
            a.poll(&mut Vec::new()).unwrap();
            if a.arm().unwrap() && area.read().0 < 100 {
                sleep(&a);
            }
        }
    });
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn software_events_name_their_sender(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    a.send_event(b.gid(), 3, 0x8300_0000_0000_0001).unwrap();
    let expected = Event::Software { gid: a.gid(), code: 3, info: 0x8300_0000_0000_0001 };
    wait_for(&b, |event| (*event == expected).then_some(()));
    assert_eq!(a.send_event([9; 16], 3, 0).unwrap_err().status(), Some(status::UNREACHABLE));
}

fn post(device: &Device, id: u64, note: Note) -> u32 {
    device.post(&Post { key: [7; 60], id, note }).unwrap()
}

/// The next entry that one of a member's ends or listeners is told.
#[track_caller]
fn told(device: &Device, reader: u64) -> (u64, Gid, u64, Note) {
    wait_for(device, |event| match event {
        Event::Board(told) => {
            assert_eq!(told.reader, reader);
            Some((told.number, told.from, told.id, told.note))
        }
        _ => None,
    })
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn ends_read_the_board_from_its_beginning_in_one_order(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    post(&a, 1, Note::Announce { side: 0 });
    post(&b, 2, Note::Announce { side: 1 });
    post(&b, 2, Note::Accept { other: 1 });
    post(&a, 1, Note::Leave);
    post(&b, 2, Note::Leave);
    let list = [
        (0, a.gid(), 1, Note::Announce { side: 0 }),
        (1, b.gid(), 2, Note::Announce { side: 1 }),
        (2, b.gid(), 2, Note::Accept { other: 1 }),
        (3, a.gid(), 1, Note::Leave),
        (4, b.gid(), 2, Note::Leave),
    ];
    // Waits for one are not for the next: what is there at once is all that is read in one look.
    let all = |device: &Device| {
        let mut events = Vec::new();
        device.poll(&mut events).unwrap();
        let told = events.into_iter().filter_map(|event| match event {
            Event::Board(told) => Some((told.number, told.from, told.id, told.note)),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(all(&a), list[..4], "until its own leave");
    assert_eq!(all(&b), list);
    let in_use = Post { key: [8; 60], id: 3, note: Note::Announce { side: 0 } };
    a.post(&in_use).unwrap();
    assert_eq!(a.post(&in_use).unwrap_err().status(), Some(status::IN_USE));
    let alone = Post { note: Note::Accept { other: 9 }, ..in_use };
    assert_eq!(b.post(&alone).unwrap_err().status(), Some(status::INVALID));
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn a_listener_is_told_of_callers_and_they_of_it(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    assert_eq!(post(&b, 1, Note::Call), 0, "nobody listens");
    post(&a, 5, Note::Listen);
    assert_eq!(post(&b, 1, Note::Call), 1);
    assert_eq!(told(&a, 5), (0, b.gid(), 1, Note::Call));
    post(&b, 1, Note::Leave);
    assert_eq!(told(&a, 5), (0, b.gid(), 1, Note::Leave));
    post(&a, 5, Note::Leave);
    assert_eq!(post(&b, 1, Note::Call), 0);
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn a_member_that_goes_leaves_the_board(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    let gid = b.gid();
    post(&a, 1, Note::Announce { side: 0 });
    post(&b, 2, Note::Announce { side: 1 });
    assert_eq!(told(&a, 1), (0, a.gid(), 1, Note::Announce { side: 0 }));
    drop(b);
    // One look may have taken both that follow.
    let left = |event: &Event| match event {
        Event::Board(told) => (told.note == Note::Leave).then_some((told.from, told.id)),
        _ => None,
    };
    assert_eq!(wait_for(&a, left), (gid, 2));
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn hundreds_of_dmbs_leave_nothing(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    drop(dmb(&a, &b));
    let before = open_descriptors();
    for _ in 0..20 {
        let many: Vec<_> = (0..32).map(|_| dmb(&a, &b)).collect();
        assert_eq!(a.counts(), (32, 0, 1));
        drop(many);
    }
    eventually(&b, || b.counts().1 == 0);
    assert_eq!(a.counts(), (0, 0, 1));
    // Other tests of this process open and close descriptors too, but no hundreds.
    assert!(open_descriptors() < before + 300, "descriptors were left over");
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// `b` writes noise over all it can reach; `a` and `c` go on.
pub fn a_hostile_writer_spoils_its_own_pair_only(world: &dyn World) {
    let (a, b, c) = (world.member(), world.member(), world.member());
    let (own, hostile) = dmb(&a, &b);
    let (good, remote) = dmb(&a, &c);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 1u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for at in (0..hostile.memory().len()).step_by(8) {
                    seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    hostile.memory().write(at, &seed.to_ne_bytes()).unwrap();
                }
                hostile.signal().unwrap();
            }
        });
        for n in 0..200u8 {
            remote.memory().write(40, &[n]).unwrap();
            remote.signal().unwrap();
            assert_signal(&a, &good);
            let mut byte = [0];
            good.memory().read(40, &mut byte).unwrap();
            assert_eq!(byte, [n]);
            let area = Area::of(own.memory()).unwrap();
            area.unwatch();
            let _ = area.read();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[expect(missing_docs, reason = "the name is the property")]
pub fn threads_share_a_device(world: &dyn World) {
    let (a, b) = (world.member(), world.member());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..50u8 {
                    let (own, remote) = dmb(&a, &b);
                    remote.memory().write(9000, &[n]).unwrap();
                    remote.signal().unwrap();
                    let mut byte = [0];
                    own.memory().read(9000, &mut byte).unwrap();
                    assert_eq!(byte, [n]);
                }
            });
        }
    });
    eventually(&b, || b.counts().1 == 0);
    assert_eq!(a.counts(), (0, 0, 1));
}
