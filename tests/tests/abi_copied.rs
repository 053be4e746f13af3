// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copied mode: moves into the owner's RAM, and their limits to the byte.
//!
//! Invariant: a move changes exactly the bytes it names, or none.

use ism_abi::{MIN_DMB_LEN, MoveRequest, mode, status};
use ism_frontend::{Driver, Options};
use ism_tests::fabric::{
    DMB, all_zero, daemon, fabric, gid, grant, granted, join, no_event, pair, refused, signalled,
    soon, start,
};
use ism_tests::random::Random;

#[test]
fn a_move_changes_what_it_names() {
    let (_daemon, mut a, mut b) = pair(mode::COPIED);
    let (dmb, grant) = grant(&mut a, &mut b, 0, DMB, mode::COPIED);
    assert_eq!((grant.window_offset, grant.signal_offset), (0, 0));
    let reply = dmb.reply;
    let window = (reply.window_offset, reply.extent_offset, reply.extent_len, reply.signal_offset);
    assert_eq!(window, (0, 0, 0, 0));
    let mut expected = vec![0; DMB as usize];
    let mut random = Random::announced("a_move_changes_what_it_names");
    for _ in 0..300 {
        let offset = random.below(DMB);
        let len = random.below(DMB - offset + 1) as usize;
        let payload = random.bytes(len);
        let signal = random.below(2) == 1;
        b.move_to(grant.token, offset, &payload, signal).expect("move");
        let place = &mut expected[offset as usize..];
        place[..payload.len()].copy_from_slice(&payload);
        if signal {
            assert_eq!(signalled(&mut a).mask, 1);
        }
    }
    no_event(&mut a);
    assert_eq!(dmb.bytes.to_vec().expect("read"), expected);
    let stats = b.stats().expect("stats");
    assert_eq!(stats.moves, 300);
}

#[test]
fn the_longest_move_is_carried_out() {
    let (_daemon, mut a, mut b) = pair(mode::COPIED);
    let len = a.config().max_move_len.min(a.config().max_dmb_len);
    let (dmb, grant) = grant(&mut a, &mut b, 0, len, mode::COPIED);
    let payload = Random::new(1).bytes(len as usize);
    b.move_to(grant.token, 0, &payload, true).expect("move");
    assert_eq!(dmb.bytes.to_vec().expect("read"), payload);
    signalled(&mut a);
}

/// Offsets and lengths around the end of the DMB and of the numbers.
fn edges() -> Vec<(u32, u32, bool)> {
    let len = MIN_DMB_LEN;
    let offsets = [0, 1, len - 1, len, len + 1, u32::MAX - 1, u32::MAX, 1 << 31];
    let lens = [0, 1, 2, len - 1, len, len + 1];
    let fits = |offset: u32, n: u32| u64::from(offset) + u64::from(n) <= u64::from(len);
    let row = |offset: u32| lens.map(|n| (offset, n, fits(offset, n)));
    offsets.into_iter().flat_map(row).collect()
}

// row 88
#[test]
fn offset_and_length_are_checked_to_the_byte() {
    let (_daemon, mut a, mut b) = pair(mode::COPIED);
    let (before, _) = grant(&mut a, &mut b, 0, MIN_DMB_LEN, mode::COPIED);
    let (dmb, grant_1) = grant(&mut a, &mut b, 1, MIN_DMB_LEN, mode::COPIED);
    let (behind, _) = grant(&mut a, &mut b, 2, MIN_DMB_LEN, mode::COPIED);
    for (offset, len, fits) in edges() {
        dmb.bytes.fill(0).expect("clear");
        let payload = vec![0xee; len as usize];
        let moved = b.move_to(grant_1.token, offset, &payload, false);
        if fits {
            moved.unwrap_or_else(|error| panic!("offset {offset}, {len} bytes: {error}"));
            let written = dmb.bytes.to_vec().expect("read").iter().filter(|b| **b != 0).count();
            assert_eq!(written, len as usize);
        } else {
            refused(moved, status::OUT_OF_RANGE);
            all_zero(&dmb.bytes);
        }
    }
    all_zero(&before.bytes);
    all_zero(&behind.bytes);
}

#[test]
fn malformed_moves_are_refused() {
    let (_daemon, mut a, mut b) = pair(mode::COPIED);
    let (dmb, grant) = grant(&mut a, &mut b, 0, DMB, mode::COPIED);
    let good = MoveRequest { token: grant.token, offset: 0, len: 16, signal: 1, reserved: 0 };
    let bad = [
        MoveRequest { len: 15, ..good },
        MoveRequest { len: 17, ..good },
        MoveRequest { len: 0, ..good },
        MoveRequest { len: u32::MAX, ..good },
        MoveRequest { signal: 2, ..good },
        MoveRequest { signal: u32::MAX, ..good },
        MoveRequest { reserved: 1, ..good },
    ];
    for request in bad {
        refused(b.move_raw(&request.to_bytes(), &[0xee; 16]), status::INVALID);
    }
    for len in 1..MoveRequest::SIZE {
        refused(b.move_raw(&good.to_bytes()[..len], &[]), status::INVALID);
    }
    for token in [0, 1, u64::MAX, grant.token ^ 1] {
        let request = MoveRequest { token, ..good };
        refused(b.move_raw(&request.to_bytes(), &[0xee; 16]), status::NO_TOKEN);
    }
    refused(a.move_raw(&good.to_bytes(), &[0xee; 16]), status::NO_TOKEN);
    no_event(&mut a);
    all_zero(&dmb.bytes);
    b.move_raw(&good.to_bytes(), &[0xee; 16]).expect("the good one");
    signalled(&mut a);
}

#[test]
fn moves_are_not_for_mapped_dmbs() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    let (dmb, grant) = grant(&mut a, &mut b, 0, DMB, mode::MAPPED);
    refused(b.move_to(grant.token, 0, &[1; 64], true), status::WRONG_MODE);
    no_event(&mut a);
    all_zero(&dmb.bytes);
}

#[test]
fn a_front_end_without_shmem_gets_copied_mode() {
    let daemon = daemon(mode::MAPPED, &["old", "new"]);
    let mut old = daemon.join("old", Options::copied()).expect("without SHMEM");
    let mut new = join(&daemon, "new");
    let config = *old.config();
    assert_eq!((config.window_size, config.chunk_size), (0, 0), "no window");
    assert_eq!(old.query(gid(&new), None).expect("reachable"), mode::COPIED);
    assert_eq!(new.query(gid(&old), None).expect("reachable"), mode::COPIED);
    refused(new.register(gid(&old), 0, DMB, mode::MAPPED), status::WRONG_MODE);
    move_one_way(&mut old, &mut new);
    move_one_way(&mut new, &mut old);
    // The other one still maps with members that can.
    let own = gid(&new);
    assert_eq!(new.query(own, None).expect("itself"), mode::MAPPED);
}

fn move_one_way(owner: &mut Driver, writer: &mut Driver) {
    let (dmb, grant) = grant(owner, writer, 11, DMB, mode::COPIED);
    writer.move_to(grant.token, 5, b"copied", true).expect("move");
    assert_eq!(signalled(owner).mask, 1 << 11);
    let mut read = [0; 6];
    dmb.bytes.read(5, &mut read).expect("read");
    assert_eq!(&read, b"copied");
    owner.unregister(dmb).expect("unregister");
    writer.next_event(soon()).expect("unregistered");
}

/// A CDC header as Linux writes it: type, producer and consumer cursors.
fn cdc(producer: u32, consumer: u32) -> [u8; 32] {
    let mut header = [0; 32];
    header[0] = 0xfe;
    header[10..14].copy_from_slice(&producer.to_le_bytes());
    header[18..22].copy_from_slice(&consumer.to_le_bytes());
    header
}

#[test]
fn cdc_headers_are_checked_where_the_operator_says_so() {
    let fabric = fabric(mode::COPIED).set("check-cdc = true");
    let daemon = start(&fabric.vm("a", &["all"]).vm("b", &["all"]));
    let (mut a, mut b) = (join(&daemon, "a"), join(&daemon, "b"));
    let (dmb, grant) = grant(&mut a, &mut b, 0, DMB, mode::COPIED);
    b.move_to(grant.token, 0, &cdc(0, 0), true).expect("a correct header");
    signalled(&mut a);
    b.move_to(grant.token, 32, &[0xff; 64], false).expect("data behind the header");
    b.move_to(grant.token, 0, &cdc(DMB - 33, 0), false).expect("the last producer position");
    let good = dmb.bytes.to_vec().expect("read");
    let mut wrong_type = cdc(0, 0);
    wrong_type[0] = 0xfd;
    let mut flagged = cdc(0, 0);
    flagged[23] = 0x01;
    let bad = [cdc(DMB - 32, 0), cdc(u32::MAX, 0), cdc(0, u32::MAX), wrong_type, flagged];
    for header in bad {
        refused(b.move_to(grant.token, 0, &header, true), status::BAD_CDC);
    }
    // A header in two moves, or one with data behind it, would pass by the check.
    for (offset, len) in [(0, 31), (0, 33), (1, 31), (31, 1), (16, 64), (0, 1)] {
        let payload = vec![0xff; len];
        refused(b.move_to(grant.token, offset, &payload, true), status::BAD_CDC);
    }
    no_event(&mut a);
    assert_eq!(dmb.bytes.to_vec().expect("read"), good, "a refused header changed bytes");
}

#[test]
fn a_mode_belongs_to_a_group() {
    let fabric = fabric(mode::MAPPED).group("strict", "mode = \"copied\"");
    let fabric = fabric.vm("a", &["strict", "kin"]).vm("b", &["strict"]).vm("c", &["kin"]);
    let daemon = start(&fabric);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| join(&daemon, name));
    assert_eq!(a.query(gid(&b), None).expect("strict"), mode::COPIED);
    assert_eq!(a.query(gid(&c), None).expect("kin"), mode::MAPPED);
    refused(b.query(gid(&c), None), status::UNREACHABLE);
    refused(a.register(gid(&b), 0, DMB, mode::MAPPED), status::WRONG_MODE);
    a.register(gid(&b), 0, DMB, mode::COPIED).expect("copied");
    a.register(gid(&c), 1, DMB, mode::MAPPED).expect("mapped");
    assert_eq!(granted(&mut b).mode, mode::COPIED);
    assert_eq!(granted(&mut c).mode, mode::MAPPED);
}
