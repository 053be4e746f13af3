// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mappings, views and rings over a memory file that two mappings share.
//!
//! Invariant tested: what is not inside is refused and changes no byte; a copy that goes on at the start
//! is whole; and a peer that writes all the time costs wrong bytes only.

#![cfg(not(loom))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smc_ring::{Area, MapError, Mapping, Notice, Ring, SignalPage, View, memory_file};

const LEN: usize = 3 * 4096;

fn map(file: &OwnedFd) -> View {
    View::new(Arc::new(Mapping::new(file, 0, LEN).unwrap()))
}

/// Two mappings of the same bytes: the owner's and the peer's.
fn shared() -> (View, View) {
    let file = memory_file("smc-ring-test", LEN as u64).unwrap();
    (map(&file), map(&file))
}

#[test]
fn what_one_writes_the_other_reads() {
    let (ours, theirs) = shared();
    theirs.write(5000, b"across").unwrap();
    let mut bytes = [0; 6];
    ours.part(5000, 6).unwrap().read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"across");
    ours.part(5000, 3).unwrap().zero();
    theirs.read(5000, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0oss");
}

#[test]
fn a_copy_past_the_caches_is_whole_and_writes_nothing_else() {
    let (ours, theirs) = shared();
    let bytes: Vec<u8> = (1..=255).cycle().take(300).collect();
    for (from, at) in (0..65).flat_map(|from| [0, 1, 15, 16, 63].map(|at| (from, at))) {
        for len in [0, 1, 15, 63, 64, 65, 127, 128, 200] {
            ours.zero();
            theirs.write_past_caches(at, &bytes[from..from + len]).unwrap();
            let mut all = vec![0; LEN];
            ours.read(0, &mut all).unwrap();
            assert_eq!(all[at..at + len], bytes[from..from + len], "{len} from {from} at {at}");
            let others = all[..at].iter().chain(&all[at + len..]);
            assert!(others.copied().all(|byte| byte == 0), "{len} from {from} at {at}");
        }
    }
}

#[test]
fn what_is_not_inside_is_refused_and_changes_nothing() {
    let (view, other) = shared();
    let part = view.part(4096, 4096).unwrap();
    for (at, len) in [(4096, 1), (0, 4097), (4095, 2), (usize::MAX, 2), (usize::MAX, 0)] {
        assert!(part.write(at, &vec![7; len]).is_err(), "{at} {len}");
        assert!(part.write_past_caches(at, &vec![7; len]).is_err(), "{at} {len}");
        assert!(part.read(at, &mut vec![0; len]).is_err(), "{at} {len}");
        assert!(part.part(at, len).is_err(), "{at} {len}");
    }
    assert!(part.u64(4).is_err() && part.u64(4089).is_err() && part.u32(2).is_err());
    assert!(Area::of(&view.part(0, 31).unwrap()).is_err());
    assert!(Area::of(&view.part(4, 64).unwrap()).is_err());
    assert!(SignalPage::of(&view.part(0, 4095).unwrap()).is_err());
    assert!(Ring::of(&view.part(0, 32).unwrap()).is_err());
    let mut all = vec![1; LEN];
    other.read(0, &mut all).unwrap();
    assert!(all.iter().all(|byte| *byte == 0));
}

#[test]
fn a_copy_goes_on_at_the_rings_start() {
    let (ours, theirs) = shared();
    let (sender, owner) = (Ring::of(&theirs).unwrap(), Ring::of(&ours).unwrap());
    let bytes: Vec<u8> = (0..=255).cycle().take(owner.len()).collect();
    for at in [0, 1, owner.len() / 2, owner.len() - 1] {
        for len in [0, 1, 2, 777, owner.len()] {
            sender.write(at, &bytes[..len]).unwrap();
            let mut copy = vec![0; len];
            owner.read(at, &mut copy).unwrap();
            assert_eq!(copy, bytes[..len], "{len} at {at}");
            sender.write_past_caches(at, &vec![7; len]).unwrap();
            owner.read(at, &mut copy).unwrap();
            assert_eq!(copy, vec![7; len], "{len} at {at}");
        }
    }
    assert!(sender.write(owner.len(), b"").is_err());
    assert!(sender.write(0, &vec![0; owner.len() + 1]).is_err());
    assert!(sender.write_past_caches(0, &vec![0; owner.len() + 1]).is_err());
    // The area before the ring was not touched.
    let mut area = [1; 32];
    ours.read(0, &mut area).unwrap();
    assert_eq!(area, [0; 32]);
}

#[test]
fn files_that_can_shrink_or_are_too_short_are_not_mapped() {
    let file = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&file, LEN as u64).unwrap();
    assert!(matches!(Mapping::new(&file, 0, LEN), Err(MapError::NotSealed)));
    let sealed = memory_file("t", 4096).unwrap();
    for (at, len) in [(0, 4097), (4096, 1), (u64::MAX, 2), (0, 0)] {
        assert!(matches!(Mapping::new(&sealed, at, len), Err(MapError::TooShort { .. })));
    }
    assert!(rustix::fs::ftruncate(&sealed, 0).is_err());
    let (reader, _writer) = std::io::pipe().unwrap();
    assert!(matches!(Mapping::new(&reader, 0, 4096), Err(MapError::NotSealed)));
}

#[test]
fn a_view_keeps_its_memory_mapped() {
    let (view, other) = shared();
    let part = view.part(4096, 8).unwrap();
    drop(view);
    part.write(0, b"still up").unwrap();
    let mut bytes = [0; 8];
    other.read(4096, &mut bytes).unwrap();
    assert_eq!(&bytes, b"still up");
}

/// A peer that writes random words over area, page and ring all the time: all looks end, and what
/// they give is within its limits.
#[test]
fn a_hostile_peer_costs_wrong_values_only() {
    let (ours, theirs) = shared();
    let stop = Arc::new(AtomicBool::new(false));
    let hostile = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
            while !stop.load(Ordering::Relaxed) {
                for at in (0..LEN).step_by(8) {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    theirs.u64(at).unwrap().store(seed, Ordering::Relaxed);
                }
            }
        })
    };
    let page = SignalPage::of(&ours.part(4096, 4096).unwrap()).unwrap();
    let (area, ring) = (Area::of(&ours).unwrap(), Ring::of(&ours).unwrap());
    let mut bytes = vec![0; ring.len()];
    for _ in 0..500 {
        let mut found = 0;
        page.take(|index| {
            assert!(index < 4096);
            found += 1;
        });
        assert!(found <= 4096);
        page.silence();
        let _ = (page.arm(), page.raise(4095), page.raise(u32::MAX));
        let (prod, _) = area.read();
        let _ = smc_wire::cdc::Smcd::parse_halves(prod, area.read().1);
        ring.read(usize::try_from(prod % 4096).unwrap(), &mut bytes).unwrap();
        area.watch();
        area.unwatch();
    }
    stop.store(true, Ordering::Relaxed);
    hostile.join().unwrap();
}

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// The two mappings are at two addresses, as in two processes.
#[test]
fn who_sleeps_on_an_area_is_woken_through_another_mapping() {
    let (ours, theirs) = shared();
    let (own, peers) = (Area::of(&ours).unwrap(), Area::of(&theirs).unwrap());
    assert!(!peers.knows_sleep(), "Linux may leave that");
    own.unwatch();
    assert!(peers.knows_sleep());
    let sender = std::thread::spawn(move || {
        for n in 1..=1000 {
            while !peers.is_asleep() {
                std::thread::yield_now();
            }
            assert_eq!(peers.publish(n, 0), Notice::Wake);
            peers.wake();
        }
    });
    let mut seen = 0;
    while seen < 1000 {
        own.sleep();
        while own.read().0 == seen {
            assert!(own.doze(LONG).unwrap(), "nobody has woken it");
            // That may have been for the round before, and so ends this sleep.
            own.sleep();
        }
        seen = own.read().0;
    }
    sender.join().unwrap();
    own.sleep();
    assert!(!own.doze(Duration::from_millis(1)).unwrap());
}
