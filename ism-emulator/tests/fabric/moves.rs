// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copied mode: bounds, the gate, the CDC header.
//!
//! Invariant tested: a move that is let through lies inside its DMB, and the owner's RAM is not
//! given back while one is inside.

use ism_abi::{MAX_DMB_LEN, MoveRequest, command, status as s};
use ism_emulator::{Mode, Refusal};

use crate::world::{World, config, gid, register, request, status};

const LEN: u32 = 64 << 10;

#[test]
fn exactly_what_fits_is_let_through() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["c"]), w.member(2, &["c"]));
    let dmb = w.register(a, register(gid(2), 3, LEN, Mode::Copied));
    let base = register(gid(2), 3, LEN, Mode::Copied).ram_addr;
    let around =
        |n: u32| [n.wrapping_sub(2), n.wrapping_sub(1), n, n.wrapping_add(1), n.wrapping_add(2)];
    let longest = config().max_move_len;
    let edges = [0, 32, 4096, LEN / 2, LEN, longest, MAX_DMB_LEN, 1 << 31, u32::MAX];
    let edges: Vec<u32> = edges.into_iter().flat_map(around).collect();
    for &offset in &edges {
        for &len in &edges {
            let moved = w.begin_move(b, dmb.token, offset, len);
            let end = u64::from(offset) + u64::from(len);
            if len > longest {
                assert_eq!(moved.unwrap_err(), Refusal::Invalid);
            } else if end > u64::from(LEN) {
                assert_eq!(moved.unwrap_err(), Refusal::OutOfRange);
            } else {
                let target = moved.unwrap();
                assert_eq!((target.owner, target.addr), (a, base + u64::from(offset)));
                assert_eq!((target.len, target.cdc), (len, None));
                target.finish();
            }
        }
    }
}

#[test]
fn only_the_writer_moves() {
    let mut w = World::new(config());
    let (a, b, c) = (w.member(1, &["c"]), w.member(2, &["c"]), w.member(3, &["c", "m"]));
    let dmb = w.register(a, register(gid(2), 3, LEN, Mode::Copied));
    for stranger in [a, c] {
        assert_eq!(w.begin_move(stranger, dmb.token, 0, 4).unwrap_err(), Refusal::NoToken);
        assert_eq!(w.signal(stranger, dmb.token), Err(Refusal::NoToken));
    }
    for token in [0, dmb.token ^ 1, !dmb.token, u64::MAX] {
        assert_eq!(w.begin_move(b, token, 0, 4).unwrap_err(), Refusal::NoToken);
    }
    let own = w.register(c, register(gid(3), 0, LEN, Mode::Mapped));
    assert_eq!(w.begin_move(c, own.token, 0, 4).unwrap_err(), Refusal::WrongMode);
}

#[test]
fn a_header_must_fit_its_buffer() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["c"]), w.member(2, &["c"]));
    let token = w.register(a, register(gid(2), 3, LEN, Mode::Copied)).token;
    let good = MoveRequest { token, offset: 0, len: 8, signal: 0, reserved: 0 };
    for (bad, payload) in [
        (MoveRequest { signal: 2, ..good }, 8),
        (MoveRequest { reserved: 1, ..good }, 8),
        (good, 7),
        (good, 9),
        (MoveRequest { len: MAX_DMB_LEN + 1, ..good }, 1 + MAX_DMB_LEN as usize),
    ] {
        let refused = w.fabric.begin_move(b, &bad.to_bytes(), payload, w.now);
        assert_eq!(refused.unwrap_err(), Refusal::Invalid);
    }
    let bytes = good.to_bytes();
    for cut in 0..bytes.len() {
        let refused = w.fabric.begin_move(b, &bytes[..cut], 8, w.now);
        assert_eq!(refused.unwrap_err(), Refusal::Invalid);
    }
    assert!(w.fabric.begin_move(b, &bytes, 8, w.now).is_ok());
}

#[test]
fn a_move_signals_after_its_data() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["c"]), w.member(2, &["c"]));
    let token = w.register(a, register(gid(2), 130, LEN, Mode::Copied)).token;
    let target = w.begin_move(b, token, 0, 4).unwrap();
    assert!(w.take_signals(a).is_empty());
    assert_eq!(target.finish().tell, Some(a));
    assert_eq!(w.take_signals(a), [130]);
    // A failed one does not, nor one without the flag.
    assert_eq!(w.begin_move(b, token, 0, 4).unwrap().fail().tell, None);
    let quiet = MoveRequest { token, offset: 0, len: 4, signal: 0, reserved: 0 };
    let target = w.fabric.begin_move(b, &quiet.to_bytes(), 4, w.now).unwrap();
    assert_eq!(target.finish().tell, None);
    assert!(w.take_signals(a).is_empty());
}

#[test]
fn unregister_waits_for_the_copy() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["c"]), w.member(2, &["c"]));
    let request_a = register(gid(2), 3, LEN, Mode::Copied);
    let token = w.register(a, request_a).token;
    let target = w.begin_move(b, token, 0, 4).unwrap();
    let unregister = request(command::UNREGISTER, &token.to_le_bytes());
    let (first, again) = (w.send(a, &unregister), w.send(a, &unregister));
    assert!(w.replies.is_empty());
    assert_eq!(w.begin_move(b, token, 0, 4).unwrap_err(), Refusal::NoToken);
    assert_eq!(w.try_register(a, request_a), s::IN_USE);
    assert!(target.finish().settle);
    w.fabric.settle();
    w.work();
    assert_eq!(w.replies.remove(&first).map(|r| status(&r)), Some(s::OK));
    assert_eq!(w.replies.remove(&again).map(|r| status(&r)), Some(s::OK));
    // The copy's signal was for a DMB that is gone, not for the next one of this index.
    assert!(w.take_signals(a).is_empty());
    assert_eq!(w.try_register(a, request_a), s::OK);
}

#[test]
fn a_copy_that_died_is_noticed_in_time() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["c"]), w.member(2, &["c"]));
    let token = w.register(a, register(gid(2), 3, LEN, Mode::Copied)).token;
    let target = w.begin_move(b, token, 0, 4).unwrap();
    let tag = w.send(a, &request(command::UNREGISTER, &token.to_le_bytes()));
    drop(target);
    let at = w.fabric.poll_timeout().unwrap();
    w.wait(at - w.now);
    assert_eq!(w.replies.get(&tag).map(|r| status(r)), Some(s::OK));
    assert_eq!(w.fabric.poll_timeout(), None);
}

#[test]
fn hello_and_reset_wait_for_the_copy() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["c"]), w.member(2, &["c"]));
    let token = w.register(a, register(gid(2), 3, LEN, Mode::Copied)).token;
    let target = w.begin_move(b, token, 0, 4).unwrap();
    let unregister = w.send(a, &request(command::UNREGISTER, &token.to_le_bytes()));
    let hello = w.send(a, &request(command::HELLO, &[1, 0, 0, 0, 0, 0, 0, 0]));
    assert!(w.replies.is_empty());
    assert_eq!(w.status(a, command::STATS, &[]), s::NOT_READY);
    assert!(!w.fabric.is_quiet(a) && w.fabric.is_quiet(b));
    assert!(target.finish().settle);
    w.fabric.settle();
    w.work();
    assert!(w.fabric.is_quiet(a));
    assert_eq!(w.replies.remove(&unregister).map(|r| status(&r)), Some(s::NOT_READY));
    assert_eq!(w.replies.remove(&hello).map(|r| status(&r)), Some(s::OK));
    assert_eq!(w.status(a, command::STATS, &[]), s::OK);

    let token = w.register(a, register(gid(2), 3, LEN, Mode::Copied)).token;
    let target = w.begin_move(b, token, 0, 4).unwrap();
    w.fabric.reset(a);
    assert!(!w.fabric.is_quiet(a));
    target.finish();
    assert!(w.fabric.is_quiet(a));
}

#[test]
fn a_checked_group_looks_at_the_cdc_header() {
    let mut w = World::new(config());
    let (a, b) = (w.member(1, &["checked"]), w.member(2, &["checked", "c"]));
    let token = w.register(a, register(gid(2), 3, LEN, Mode::Copied)).token;
    let check = |w: &mut World, offset, payload: &[u8]| {
        let len = u32::try_from(payload.len()).unwrap();
        let target = w.begin_move(b, token, offset, len).unwrap();
        target.cdc.map_or(Ok(()), |cdc| cdc.check(payload))
    };
    let mut header = [0; 32];
    header[0] = 0xfe;
    assert_eq!(check(&mut w, 0, &header), Ok(()));
    assert_eq!(check(&mut w, 32, &[0xff; 100]), Ok(()));
    let ring = LEN - 32;
    header[10..14].copy_from_slice(&(ring - 1).to_le_bytes());
    header[22..24].copy_from_slice(&[0xf8, 0xe0]);
    header[24..].fill(7); // Nobody's bytes.
    assert_eq!(check(&mut w, 0, &header), Ok(()));
    // Every single field out of its range, and moves that touch only part of the header.
    let bad = |at: usize, bytes: &[u8]| {
        let mut bad = header;
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    for bad in [
        bad(0, &[0]),
        bad(7, &[1]),
        bad(10, &ring.to_le_bytes()),
        bad(10, &u32::MAX.to_le_bytes()),
        bad(18, &(MAX_DMB_LEN - 32).to_le_bytes()),
        bad(14, &[1]),
        bad(15, &[1]),
        bad(22, &[1]),
        bad(23, &[1]),
    ] {
        assert_eq!(check(&mut w, 0, &bad), Err(Refusal::BadCdc));
    }
    for offset in 0..32 {
        assert_eq!(check(&mut w, offset, &[0]), Err(Refusal::BadCdc));
        assert_eq!(check(&mut w, offset, &[0xfe; 33]), Err(Refusal::BadCdc));
    }
    assert_eq!(check(&mut w, 1, &header), Err(Refusal::BadCdc));
}
