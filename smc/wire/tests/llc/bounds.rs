// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages that lie about their length or name what cannot be.

use smc_wire::Error;
use smc_wire::id::{Mac, Psn, Qpn, Rkey, RoceGid};
use smc_wire::llc::{
    AddLink, AddLinkCont, AddLinkTail, Body, ConfirmRkey, DeleteRkey, DeleteTarget, LinkRtoken,
    MAX_LEN, Message, ReqAddLink, RkeyUpdate, Rtoken, Type, Version,
};
use smc_wire::size::PathMtu;

use crate::{emitted, hex, invitation, request};

fn field(bytes: &[u8]) -> &'static str {
    match Message::parse(bytes) {
        Err(Error::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_has_44_bytes_or_more() {
    for kind in [0x01, 0x02, 0x03, 0x04, 0x06, 0x07, 0x08, 0x09, 0x22, 0x25, 0x29] {
        for len in 4..44 {
            let short = Error::Short { what: "LLC message", need: 44, have: len };
            let mut bytes = hex(&format!("{kind:02x} 2c 2c"), 44);
            bytes.truncate(len);
            assert_eq!(Message::parse(&bytes), Err(short));
        }
    }
    for len in 0..4 {
        assert!(Message::parse(&[7, 44, 0, 0][..len]).is_err());
    }
}

#[test]
fn version_1_says_44_and_version_2_at_least_44() {
    for (length, right) in [(0, false), (43, false), (44, true), (45, false), (255, false)] {
        let parsed = Message::parse(&hex(&format!("07 {length:02x}"), 48)).is_ok();
        assert_eq!(parsed, right, "{length}");
    }
    for (length, right) in [(0u16, false), (43, false), (44, true), (45, true), (8192, true)] {
        let [low, high] = length.to_ne_bytes();
        let bytes = hex(&format!("27 {low:02x}{high:02x}"), 44);
        assert_eq!(Message::parse(&bytes).is_ok(), right, "{length}");
    }
}

#[test]
fn a_link_number_that_is_given_is_not_zero() {
    assert_eq!(field(&hex("01 2c 00 03", 44)), "confirm_link.link_num");
    let mut bytes = hex("02 2c", 44);
    assert!(Message::parse(&bytes).is_ok(), "an invitation has neither number nor MTU");
    bytes[32] = 3;
    assert_eq!(field(&bytes), "add_link.link_num");
}

#[test]
fn an_mtu_is_1_to_5() {
    let mut bytes = hex("02 2c", 44);
    bytes[31] = 1;
    for mtu in 0..=255 {
        bytes[32] = mtu;
        // The high nibble is reserved.
        if mtu & 0xF <= 5 {
            let Body::AddLink(parsed) = Message::parse(&bytes).unwrap().body else { panic!() };
            assert_eq!(parsed.mtu.map_or(0, PathMtu::bits), mtu & 0xF);
        } else {
            assert_eq!(field(&bytes), "add_link.qp_mtu");
        }
    }
}

/// An ADD LINK of version 2 with `count` keys, as bytes.
fn add_link_v2(count: usize) -> Vec<u8> {
    let keys = vec![RkeyUpdate { known: Rkey(1), new: Rkey(2), vaddr: 3 }; count];
    let link = AddLink {
        qpn: Qpn(1),
        link: 2,
        mtu: Some(PathMtu::MIN),
        psn: Psn(1),
        tail: Some(AddLinkTail::new(true, RoceGid::default(), &keys)),
        ..invitation(Mac::default(), RoceGid::default())
    };
    emitted(&request(Version::V2, Body::AddLink(link)))
}

fn tail(bytes: &[u8]) -> Option<(u16, usize)> {
    let Body::AddLink(parsed) = Message::parse(bytes).unwrap().body else { panic!() };
    parsed.tail.map(|tail| (tail.num_rkeys, tail.rkeys.iter().count()))
}

// row 64
#[test]
fn a_short_tail_has_the_keys_that_were_received() {
    let bytes = add_link_v2(3);
    for len in 44..=bytes.len() {
        // Below the count there is no tail at all.
        let expected = (len >= 72).then(|| (3, (len - 72) / 16));
        assert_eq!(tail(&bytes[..len]), expected, "{len} bytes");
    }
    // More bytes than the count says are not keys.
    let mut long = bytes;
    long.resize(8192, 1);
    assert_eq!(tail(&long), Some((3, 3)));
}

// row 64
#[test]
fn a_tail_has_255_keys_at_most() {
    let mut bytes = add_link_v2(255);
    assert_eq!(bytes.len(), MAX_LEN);
    bytes.resize(8192, 1);
    for count in [256, u16::MAX] {
        bytes[70..72].copy_from_slice(&count.to_ne_bytes());
        assert_eq!(tail(&bytes), Some((count, 255)));
    }
    let keys = [RkeyUpdate::default(); 256];
    let link = AddLink {
        tail: Some(AddLinkTail::new(true, RoceGid::default(), &keys)),
        ..invitation(Mac::default(), RoceGid::default())
    };
    let message = request(Version::V2, Body::AddLink(link));
    assert!(matches!(message.emit(&mut [0; 8192]), Err(Error::Field { .. })));
}

// row 63
#[test]
fn version_1_has_no_tail() {
    let mut bytes = add_link_v2(3);
    bytes[..3].copy_from_slice(&[2, 44, 0]);
    assert_eq!(tail(&bytes), None);
}

// row 63
#[test]
fn a_continuation_tells_two_keys_at_most() {
    for (count, told, left) in [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 2, 1), (255, 2, 253)] {
        let bytes = hex(&format!("03 2c 00 00 02 {count:02x}"), 44);
        let Body::AddLinkCont(parsed) = Message::parse(&bytes).unwrap().body else { panic!() };
        assert_eq!((parsed.updates().count(), parsed.left()), (told, left));
    }
    let many = [RkeyUpdate::default(); 300];
    assert_eq!(AddLinkCont::next(1, many.iter().copied()).remaining, 255);
}

// row 65
#[test]
fn gids_are_those_that_were_received() {
    let gids = [RoceGid([1; 16]), RoceGid([2; 16])];
    let mut bytes = emitted(&request(Version::V2, Body::ReqAddLink(ReqAddLink::new(&gids))));
    let parsed = |bytes: &[u8]| {
        let Body::ReqAddLink(parsed) = Message::parse(bytes).unwrap().body else { panic!() };
        parsed.gids.len()
    };
    assert_eq!((parsed(&bytes), parsed(&bytes[..59]), parsed(&bytes[..44])), (2, 1, 1));
    bytes[24] = 255;
    assert_eq!(parsed(&bytes), 2);
    bytes[24] = 0;
    assert_eq!(parsed(&bytes), 0);
}

// row 62
#[test]
fn a_key_needs_a_link_that_can_be() {
    let other = |link| LinkRtoken { link, rtoken: Rtoken::default() };
    let mut rkey = ConfirmRkey::request(Rtoken::default(), [other(2), other(3), other(4)]);
    assert_eq!(rkey.num_others, 2, "a message has room for two");
    for (count, expected) in [(0, Some(0)), (1, Some(1)), (2, Some(2)), (3, Some(2)), (4, None)] {
        rkey.num_others = count;
        assert_eq!(rkey.others().map(Iterator::count).ok(), expected);
    }
    rkey.num_others = 2;
    rkey.other_slots[1].link = 0;
    let zero = rkey.others().map(Iterator::count);
    assert_eq!(zero.unwrap_err().to_string(), "confirm_rkey.link_id is 0x0, allowed: 1 to 255");
    rkey.num_others = 1;
    assert!(rkey.others().is_ok(), "what is behind the count says nothing");
}

// row 62
#[test]
fn deleted_keys_are_those_that_were_received() {
    let parsed = |bytes: &[u8]| {
        let Body::DeleteRkey(parsed) = Message::parse(bytes).unwrap().body else { panic!() };
        (parsed.num_rkeys, parsed.rkeys.len())
    };
    let v1 = hex("09 2c 00 00 ff", 48);
    assert_eq!(parsed(&v1), (255, 8));
    let [low, high] = 44u16.to_ne_bytes();
    let mut v2 = hex(&format!("29 {low:02x}{high:02x} 00 0c"), 44);
    assert_eq!(parsed(&v2), (12, 9));
    v2.resize(8 + 11 * 4 + 3, 0);
    assert_eq!(parsed(&v2), (12, 11));
    v2.resize(8192, 0);
    assert_eq!(parsed(&v2), (12, 12));
    let nine = [Rkey(1); 9];
    let message = request(Version::V1, Body::DeleteRkey(DeleteRkey::request(&nine)));
    assert!(matches!(message.emit(&mut [0; 44]), Err(Error::Field { .. })));
}

// row 67
#[test]
fn a_link_number_beside_all_means_nothing() {
    let target = |bytes: &[u8]| {
        let Body::DeleteLink(parsed) = Message::parse(bytes).unwrap().body else { panic!() };
        parsed.target
    };
    assert_eq!(target(&hex("04 2c 00 40 05", 44)), DeleteTarget::All);
    assert_eq!(target(&hex("04 2c 00 00 05", 44)), DeleteTarget::Link(5));
    assert_eq!(target(&hex("04 2c 00 00 00", 44)), DeleteTarget::Link(0));
}

#[test]
fn a_version_has_its_types_only() {
    let request_v1 = request(Version::V1, Body::ReqAddLink(ReqAddLink::default()));
    let error = request_v1.emit(&mut [0; 44]).unwrap_err();
    assert!(matches!(error, Error::Field { field: "llc.type", value: 5, .. }));
    let cont_v2 = request(Version::V2, Body::AddLinkCont(AddLinkCont::default()));
    assert!(matches!(cont_v2.emit(&mut [0; 44]), Err(Error::Field { value: 0x23, .. })));
    assert!(!Type::REQ_ADD_LINK.is_known() && Type(0x25).is_known());
}

#[test]
fn a_buffer_that_is_too_small_is_refused() {
    let message = request(Version::V1, Body::AddLinkCont(AddLinkCont::default()));
    for len in 0..44 {
        assert!(matches!(message.emit(&mut vec![0; len]), Err(Error::Short { .. })), "{len}");
    }
    assert_eq!(message.emit(&mut [0; 44]), Ok(44));
}
