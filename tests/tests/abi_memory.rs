// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! REGISTER, UNREGISTER, ATTACH, DETACH, and where memory lies in the windows.
//!
//! Invariant: a DMB's bytes are reached by its owner and its writer only, and are zero at the
//! start of every registration.

use std::collections::HashSet;

use ism_abi::{MAX_DMB_LEN, MIN_DMB_LEN, WINDOW_ALIGN, mode, signal_page, status};
use ism_frontend::channel::MapRequest;
use ism_frontend::commands::register_request;
use ism_frontend::{Driver, Event};
use ism_tests::fabric::{
    DMB, MODES, all_zero, daemon, eventually, gid, grant, granted, join, no_event, pair, refused,
    soon, write,
};

/// Inodes of all files mapped into a window.
fn inodes(driver: &mut Driver) -> HashSet<(u64, u64)> {
    let window = driver.connection().window().expect("a window");
    window.extents().iter().map(|extent| extent.inode).collect()
}

#[test]
fn the_grant_is_there_before_register_answers() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        for index in 0..20 {
            let dmb = a.register(gid(&b), index, DMB, mode).expect("register");
            let event = b.poll_event().expect("event queue");
            let Some(Event::Granted(grant)) = event else { panic!("{event:?} and no grant") };
            assert_eq!(grant.gid, gid(&a));
            assert_eq!((grant.token, grant.index, grant.len), (dmb.token(), index, DMB));
            assert_eq!(grant.mode, mode);
        }
    }
}

#[test]
fn tokens_are_never_zero_and_never_issued_twice() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let mut seen = HashSet::new();
        for _ in 0..50 {
            let (dmb, _) = grant(&mut a, &mut b, 3, DMB, mode);
            assert_ne!(dmb.token(), 0);
            assert!(seen.insert(dmb.token()), "token issued twice");
            a.unregister(dmb).expect("unregister");
            assert!(matches!(b.next_event(soon()), Ok(Event::Unregistered(_))));
        }
    }
}

#[test]
fn both_sides_see_the_same_bytes_of_a_mapped_dmb() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    let (dmb, grant) = grant(&mut a, &mut b, 0, MAX_DMB_LEN, mode::MAPPED);
    let theirs = b.granted_bytes(&grant).expect("mapped at the writer");
    assert_eq!(theirs.len(), dmb.bytes.len());
    all_zero(&dmb.bytes);
    theirs.write(12345, b"through the arena").expect("write");
    let mut read = [0; 17];
    dmb.bytes.read(12345, &mut read).expect("read");
    assert_eq!(&read, b"through the arena");
    let attached = b.attach(grant.token).expect("attach");
    assert_eq!(attached.window_offset, grant.window_offset);
    assert_eq!((attached.len, attached.index), (MAX_DMB_LEN, 0));
}

#[test]
fn extents_are_aligned_with_a_gap_behind_each() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    let chunk = a.config().chunk_size;
    // More than one extent of 1 MiB DMBs.
    let count = u32::try_from(chunk >> 20).expect("small") + 4;
    for index in 0..count {
        let (dmb, grant) = grant(&mut a, &mut b, index, MAX_DMB_LEN, mode::MAPPED);
        let reply = dmb.reply;
        assert_eq!(reply.extent_offset % WINDOW_ALIGN, 0);
        assert_eq!(reply.extent_len, chunk);
        let within = reply.extent_offset..reply.extent_offset + chunk;
        assert!(within.contains(&reply.window_offset));
        assert!(reply.window_offset + u64::from(MAX_DMB_LEN) <= within.end);
        assert_eq!(reply.window_offset % u64::from(MAX_DMB_LEN), 0, "aligned to its size");
        assert_eq!(grant.window_offset % u64::from(MAX_DMB_LEN), 0, "aligned to its size");
    }
    for driver in [&mut a, &mut b] {
        let window = driver.connection().window().expect("a window").clone();
        let mut extents: Vec<_> = window.extents().iter().map(|e| (e.offset, e.len)).collect();
        extents.sort_unstable();
        assert!(extents.len() >= 2, "one extent holds {count} MiB");
        for (offset, len) in &extents {
            assert_eq!((offset % WINDOW_ALIGN, len % WINDOW_ALIGN), (0, 0));
        }
        for two in extents.windows(2) {
            assert!(two[0].0 + two[0].1 + WINDOW_ALIGN <= two[1].0, "no gap between {two:x?}");
        }
        let last = extents.last().expect("two");
        assert!(last.0 + last.1 + WINDOW_ALIGN <= window.len(), "no gap before the end");
    }
}

#[test]
fn dmbs_of_all_sizes_do_not_overlap() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    let sizes = [MIN_DMB_LEN, MIN_DMB_LEN + 4096, 32 << 10, 100 << 10, 512 << 10, MAX_DMB_LEN];
    let mut taken: Vec<(u64, u64)> = Vec::new();
    let mut kept = Vec::new();
    for (index, len) in (0..48).zip(sizes.iter().cycle()) {
        let (dmb, grant) = grant(&mut a, &mut b, index, *len, mode::MAPPED);
        let (at, block) = (dmb.reply.window_offset, u64::from(len.next_power_of_two()));
        assert_eq!(at % block, 0, "a multiple of its length rounded up to a power of two");
        taken.push((at, block));
        let page = dmb.reply.signal_offset;
        let page_end = page + signal_page::SIZE as u64;
        assert!(page_end <= at || at + block <= page, "the signal page is inside a DMB");
        b.granted_bytes(&grant).expect("mapped").write(0, &index.to_le_bytes()).expect("write");
        kept.push(dmb);
    }
    taken.sort_unstable();
    assert!(taken.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0), "overlap: {taken:x?}");
    for (index, dmb) in (0u32..).zip(&kept) {
        let mut start = [0; 4];
        dmb.bytes.read(0, &mut start).expect("read");
        assert_eq!(u32::from_le_bytes(start), index);
    }
}

#[test]
fn a_window_never_holds_another_pairs_memory() {
    let daemon = daemon(mode::MAPPED, &["a", "b", "c"]);
    let mut members = ["a", "b", "c"].map(|name| join(&daemon, name));
    let [a, b, c] = &mut members;
    grant(a, b, 0, DMB, mode::MAPPED);
    grant(b, c, 0, DMB, mode::MAPPED);
    grant(c, a, 0, DMB, mode::MAPPED);
    let (gid_a, mut own) = (gid(a), Vec::new());
    own.push(a.register(gid_a, 1, DMB, mode::MAPPED).expect("the pair of a with itself"));
    let [ia, ib, ic] = [inodes(a), inodes(b), inodes(c)];
    let both = |x: &HashSet<_>, y: &HashSet<_>| x.intersection(y).count();
    assert_eq!((both(&ia, &ib), both(&ib, &ic), both(&ic, &ia)), (1, 1, 1), "one file a pair");
    let common = ia.iter().filter(|inode| ib.contains(*inode) && ic.contains(*inode)).count();
    assert_eq!(common, 0, "a file in three windows");
    assert_eq!((ia.len(), ib.len(), ic.len()), (3, 2, 2));
}

#[test]
fn a_released_dmb_is_zero_when_its_memory_is_used_again() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let mut places = HashSet::new();
        let mut reused = false;
        for round in 0..40 {
            let (dmb, grant) = grant(&mut a, &mut b, round % 7, DMB, mode);
            all_zero(&dmb.bytes);
            write(&mut b, &grant, 0, &[0xa5; 4096]);
            write(&mut b, &grant, DMB - 4096, &[0x5a; 4096]);
            reused |= mode == mode::MAPPED && !places.insert(dmb.reply.window_offset);
            ism_tests::fabric::signalled(&mut a);
            while a.poll_event().expect("events").is_some() {}
            a.unregister(dmb).expect("unregister");
            loop {
                match b.next_event(soon()).expect("event") {
                    Event::Unregistered(event) => break assert_eq!(event.token, grant.token),
                    Event::Signals(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(reused || mode == mode::COPIED, "no memory was used again: nothing was tested");
    }
}

#[test]
fn register_is_idempotent() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let dmb = a.register(gid(&b), 9, DMB, mode).expect("register");
        granted(&mut b);
        for _ in 0..3 {
            let again = a.register_raw(&dmb.request).expect("again");
            assert_eq!(again, dmb.reply);
        }
        no_event(&mut b);
        assert_eq!(a.stats().expect("stats").dmbs, 1);
        // The same index with anything else is in use.
        let mut other = dmb.request;
        other.len = 2 * DMB;
        refused(a.register_raw(&other), status::IN_USE);
        let mut other = dmb.request;
        other.rgid = gid(&a);
        refused(a.register_raw(&other), status::IN_USE);
    }
}

#[test]
fn register_refuses_fields_out_of_range() {
    let (_daemon, mut a, b) = pair(mode::MAPPED);
    let gb = gid(&b);
    let (max_dmbs, max_len) = (a.config().max_dmbs, a.config().max_dmb_len);
    for len in [0, 1, 4095, 4096, MIN_DMB_LEN - 1, MIN_DMB_LEN + 1, max_len + 4096, u32::MAX] {
        refused(a.register_raw(&register_request(gb, 0, len, mode::MAPPED)), status::INVALID);
    }
    for index in [max_dmbs, max_dmbs + 1, u32::MAX] {
        refused(a.register_raw(&register_request(gb, index, DMB, mode::MAPPED)), status::INVALID);
    }
    for bad_mode in [0, 3, 255] {
        refused(a.register_raw(&register_request(gb, 0, DMB, bad_mode)), status::INVALID);
    }
    let mut request = register_request(gb, 0, DMB, mode::MAPPED);
    request.ram_addr = 0x10_0000;
    refused(a.register_raw(&request), status::INVALID);
    let mut request = register_request(gb, 0, DMB, mode::MAPPED);
    request.vlan_valid = 2;
    refused(a.register_raw(&request), status::INVALID);
    request.vlan_valid = 1;
    request.vlan_id = 77;
    refused(a.register_raw(&request), status::UNREACHABLE);
    refused(a.register_raw(&register_request(gb, 0, DMB, mode::COPIED)), status::WRONG_MODE);
    let stranger = register_request([0x77; 16], 0, DMB, mode::MAPPED);
    refused(a.register_raw(&stranger), status::UNREACHABLE);
    assert_eq!(a.stats().expect("stats").dmbs, 0);
    let last = a.register(gb, max_dmbs - 1, max_len, mode::MAPPED).expect("the largest values");
    assert_eq!(last.bytes.len(), u64::from(max_len));
}

#[test]
fn a_copied_dmb_outside_the_owners_ram_is_never_written() {
    let (_daemon, mut a, mut b) = pair(mode::COPIED);
    let size = a.connection().ram().size();
    let base = ism_frontend::memory::GuestRam::BASE;
    let edge = base + size - u64::from(DMB) + 4096;
    for ram_addr in [0, base - 4096, edge, base + size, u64::MAX - 4095, 1 << 60] {
        let mut request = register_request(gid(&b), 0, DMB, mode::COPIED);
        request.ram_addr = ram_addr;
        // Refused at once, or when somebody writes to it: both are within the specification.
        match a.register_raw(&request) {
            Err(error) => {
                let known = [Some(status::INVALID), Some(status::IO_ERROR)];
                assert!(known.contains(&error.status()), "{ram_addr:#x}: {error}");
            }
            Ok(reply) => {
                let grant = granted(&mut b);
                let payload = vec![1; DMB as usize];
                refused(b.move_to(grant.token, 0, &payload, true), status::IO_ERROR);
                no_event(&mut a);
                a.unregister_token(reply.token).expect("unregister");
                assert!(matches!(b.next_event(soon()), Ok(Event::Unregistered(_))));
            }
        }
    }
    let end = a.connection().ram().bytes(edge, u64::from(DMB) - 4096).expect("the last bytes");
    all_zero(&end);
}

#[test]
fn unregister_kills_the_token_and_tells_the_writer() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let (dmb, grant) = grant(&mut a, &mut b, 0, DMB, mode);
        refused(b.unregister_token(grant.token), status::NO_TOKEN);
        a.unregister(dmb).expect("unregister");
        match b.next_event(soon()).expect("an event") {
            Event::Unregistered(event) => {
                assert_eq!((event.gid, event.token), (gid(&a), grant.token));
            }
            other => panic!("{other:?}"),
        }
        refused(b.attach(grant.token), status::NO_TOKEN);
        refused(b.detach(grant.token), status::NO_TOKEN);
        refused(a.unregister_token(grant.token), status::NO_TOKEN);
        if mode == mode::COPIED {
            refused(b.move_to(grant.token, 0, &[1], true), status::NO_TOKEN);
        }
        b.signal(grant.token).expect("a signal is never answered");
        b.flush_signals().expect("flush");
        no_event(&mut a);
        assert_eq!(b.stats().expect("stats").grants, 0);
    }
}

#[test]
fn an_attached_dmb_outlives_its_registration() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    let (dmb, grant) = grant(&mut a, &mut b, 0, MAX_DMB_LEN, mode::MAPPED);
    b.attach(grant.token).expect("attach");
    b.attach(grant.token).expect("attach again");
    let theirs = b.granted_bytes(&grant).expect("mapped");
    theirs.fill(0x42).expect("fill");
    let place = dmb.reply.window_offset;
    a.unregister(dmb).expect("unregister");
    assert!(matches!(b.next_event(soon()), Ok(Event::Unregistered(_))));
    let whole = theirs.to_vec().expect("still mapped");
    assert!(whole.iter().all(|byte| *byte == 0x42), "zeroed under the attachment");
    // No new DMB is placed there, however many there are in the extent.
    let others = u32::try_from(a.config().chunk_size >> 20).expect("small");
    for index in 1..others {
        let dmb = a.register(gid(&b), index, MAX_DMB_LEN, mode::MAPPED).expect("register");
        assert_ne!(dmb.reply.window_offset, place, "memory in use twice");
    }
    b.detach(grant.token).expect("detach");
    refused(b.detach(grant.token), status::NO_TOKEN);
    eventually("the zeroing of a detached DMB", || {
        theirs.to_vec().expect("mapped").iter().all(|byte| *byte == 0)
    });
}

#[test]
fn attach_is_for_mapped_mode() {
    let (_daemon, mut a, mut b) = pair(mode::COPIED);
    let (_dmb, grant) = grant(&mut a, &mut b, 0, DMB, mode::COPIED);
    refused(b.attach(grant.token), status::WRONG_MODE);
    refused(b.detach(grant.token), status::WRONG_MODE);
}

#[test]
fn a_member_may_write_to_itself() {
    for mode in MODES {
        let daemon = daemon(mode, &["a"]);
        let mut a = join(&daemon, "a");
        let own = gid(&a);
        assert_eq!(a.query(own, None).expect("reachable"), mode);
        let dmb = a.register(own, 0, DMB, mode).expect("register");
        let grant = granted(&mut a);
        write(&mut a, &grant, 100, b"to myself");
        let signals = ism_tests::fabric::signalled(&mut a);
        assert_eq!((signals.base, signals.mask), (0, 1));
        let mut read = [0; 9];
        dmb.bytes.read(100, &mut read).expect("read");
        assert_eq!(&read, b"to myself");
        a.unregister(dmb).expect("unregister");
        assert!(matches!(a.next_event(soon()), Ok(Event::Unregistered(_))));
    }
}

#[test]
fn a_pair_needs_few_mappings() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    for index in 0..64 {
        grant(&mut a, &mut b, index, DMB, mode::MAPPED);
        grant(&mut b, &mut a, index, DMB, mode::MAPPED);
    }
    for driver in [&mut a, &mut b] {
        let log = driver.connection().channel().expect("a channel").log();
        let maps = log.iter().filter(|r| matches!(r, MapRequest::Map { .. })).count();
        assert_eq!(maps, 1, "128 DMBs of 64 KiB fit one extent: {log:?}");
    }
}
