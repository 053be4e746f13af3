// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each message's bytes, as Linux's structures have them.

use smc_wire::id::{Mac, Psn, Qpn, Rkey, RoceGid};
use smc_wire::llc::{
    AddLink, AddLinkCont, AddLinkTail, Body, ConfirmLink, ConfirmRkey, ConfirmRkeyCont, DeleteLink,
    DeleteReason, DeleteRkey, DeleteTarget, LinkRtoken, List, Message, RejectReason, ReqAddLink,
    RkeyUpdate, Rtoken, TestLink, Type, Version,
};
use smc_wire::size::PathMtu;

use crate::{assert_bytes, emitted, hex, invitation, request, response};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
const GID: RoceGid = RoceGid([0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFE, 0, 0, 7]);
const PORT: &str = "02 00 00 00 00 07";
const GID_HEX: &str = "fe80 0000 0000 0000 0000 00ff fe00 0007";

/// The header of a version 2 message on this host.
fn v2_header(kind: u8, len: u16, flags: u8) -> String {
    let [low, high] = len.to_ne_bytes();
    format!("{kind:02x} {low:02x} {high:02x} {flags:02x}")
}

const CONFIRM_LINK: ConfirmLink = ConfirmLink {
    mac: MAC,
    gid: GID,
    qpn: Qpn(0x12_3456),
    link: 1,
    link_uid: [0xA, 0xB, 0xC, 0xD],
    max_links: 2,
    max_conns: 0,
    no_eyecatcher: true,
};

// row 59
// RFC 7609, A.3.1
#[test]
fn confirm_link() {
    let body = Body::ConfirmLink(CONFIRM_LINK);
    let payload = format!("{PORT} {GID_HEX} 123456 01 0a0b0c0d 02 00");
    let v1 = |flags: &str| hex(&format!("01 2c 00 {flags} {payload}"), 44);
    assert_bytes(&request(Version::V1, body), &v1("03"));
    assert_bytes(&response(Version::V1, body), &v1("83"));
    let v2 = hex(&format!("{} {payload}", v2_header(0x21, 44, 3)), 44);
    assert_bytes(&request(Version::V2, body), &v2);
}

// row 59
#[test]
fn either_bit_says_that_there_are_no_eyecatchers() {
    let mut bytes = emitted(&request(Version::V1, Body::ConfirmLink(CONFIRM_LINK)));
    for (flags, expected) in [(0, false), (1, true), (2, true), (3, true), (0x84, false)] {
        bytes[3] = flags;
        let Body::ConfirmLink(parsed) = Message::parse(&bytes).unwrap().body else { panic!() };
        assert_eq!(parsed.no_eyecatcher, expected, "flags {flags:#x}");
    }
}

const ADD_LINK: AddLink = AddLink {
    mac: MAC,
    gid: GID,
    qpn: Qpn(0x12),
    link: 2,
    mtu: Some(PathMtu::M1024),
    psn: Psn(0xAB_CDEF),
    rejected: None,
    tail: None,
};

// row 63
// RFC 7609, A.3.2
#[test]
fn add_link_v1() {
    let payload = format!("{PORT} 0000 {GID_HEX} 000012 02 03 abcdef");
    let bytes = hex(&format!("02 2c 00 00 {payload}"), 44);
    assert_bytes(&request(Version::V1, Body::AddLink(ADD_LINK)), &bytes);
}

// row 63
#[test]
fn a_client_invites_with_its_port_only() {
    let bytes = hex(&format!("02 2c 00 00 {PORT} 0000 {GID_HEX}"), 44);
    assert_bytes(&request(Version::V1, Body::AddLink(invitation(MAC, GID))), &bytes);
}

// row 66
#[test]
fn a_refusal_repeats_the_offer_with_flag_and_reason() {
    let rejected = Some(RejectReason::NO_ALTERNATE_PATH);
    let refusal = Body::AddLink(AddLink { rejected, ..ADD_LINK });
    let payload = format!("{PORT} 0000 {GID_HEX} 000012 02 03 abcdef");
    assert_bytes(&response(Version::V1, refusal), &hex(&format!("02 2c 01 c0 {payload}"), 44));
    // Version 2's length stands where the reason was.
    let v2 = emitted(&response(Version::V2, refusal));
    assert_eq!(v2, hex(&format!("{} {payload}", v2_header(0x22, 44, 0xC0)), 44));
    let Body::AddLink(parsed) = Message::parse(&v2).unwrap().body else { panic!() };
    assert_eq!(parsed.rejected, Some(RejectReason::UNKNOWN));
}

const UPDATES: [RkeyUpdate; 3] = [
    RkeyUpdate { known: Rkey(0x11), new: Rkey(0x21), vaddr: 0x1000 },
    RkeyUpdate { known: Rkey(0x12), new: Rkey(0x22), vaddr: 0xFFFF_8880_0000_2000 },
    RkeyUpdate { known: Rkey(0x13), new: Rkey(0x23), vaddr: 0x3000 },
];

// row 63
// RFC 7609, A.3.3
#[test]
fn three_keys_take_two_continuations() {
    let first = AddLinkCont::next(2, UPDATES.iter().copied());
    let second = AddLinkCont::next(2, UPDATES[2..].iter().copied());
    assert_eq!((first.left(), second.left()), (1, 0));
    assert_eq!(first.updates().collect::<Vec<_>>(), UPDATES[..2]);
    assert_eq!(second.updates().collect::<Vec<_>>(), UPDATES[2..]);
    let bytes = "03 2c 00 00 02 03 0000 00000011 00000021 0000000000001000 \
                 00000012 00000022 ffff888000002000";
    assert_bytes(&request(Version::V1, Body::AddLinkCont(first)), &hex(bytes, 44));
    let bytes = "03 2c 00 80 02 01 0000 00000013 00000023 0000000000003000";
    assert_bytes(&response(Version::V1, Body::AddLinkCont(second)), &hex(bytes, 44));
    let none = AddLinkCont::next(2, [].into_iter());
    assert_eq!((none.updates().count(), none.left()), (0, 0));
    assert_bytes(&request(Version::V1, Body::AddLinkCont(none)), &hex("03 2c 00 00 02", 44));
}

// rows 64, 73
#[test]
fn add_link_v2_has_its_keys_in_a_tail() {
    let tail = AddLinkTail::new(true, RoceGid([0x66; 16]), &UPDATES);
    let body = Body::AddLink(AddLink { tail: Some(tail), ..ADD_LINK });
    let header = v2_header(0x22, 44 + 28 + 3 * 16, 0);
    // The number of keys is in the host's order, as the length is.
    let [count0, count1] = 3u16.to_ne_bytes();
    let tail = format!("80 00 {} 0000000000000000 {count0:02x}{count1:02x}", "66".repeat(16));
    let keys = "00000011 00000021 0000000000001000 00000012 00000022 ffff888000002000 \
                00000013 00000023 0000000000003000";
    let payload = format!("{PORT} 0000 {GID_HEX} 000012 02 03 abcdef 0000000000000000");
    let bytes = hex(&format!("{header} {payload} {tail} {keys}"), 120);
    assert_bytes(&request(Version::V2, body), &bytes);
}

// row 67
// RFC 7609, A.3.4
#[test]
fn delete_link_one_or_all() {
    let one = DeleteLink {
        target: DeleteTarget::Link(2),
        orderly: true,
        reason: DeleteReason::NO_ASYMMETRIC_NEEDED,
    };
    let bytes = hex("04 2c 00 20 02 00050000", 44);
    assert_bytes(&request(Version::V1, Body::DeleteLink(one)), &bytes);
    let all = DeleteLink {
        target: DeleteTarget::All,
        orderly: false,
        reason: DeleteReason::PROTOCOL_VIOLATION,
    };
    let bytes = hex("04 2c 00 40 00 00040000", 44);
    assert_bytes(&request(Version::V1, Body::DeleteLink(all)), &bytes);
    let unknown = DeleteLink { reason: DeleteReason::UNKNOWN_LINK, ..one };
    let bytes = hex(&format!("{} 02 00100000", v2_header(0x24, 44, 0xA0)), 44);
    assert_bytes(&response(Version::V2, Body::DeleteLink(unknown)), &bytes);
}

// row 65
#[test]
fn request_add_link_has_the_clients_ports() {
    let gids = [GID, RoceGid([0x77; 16])];
    let body = Body::ReqAddLink(ReqAddLink::new(&gids));
    let header = v2_header(0x25, 60, 0);
    let zeros = "00".repeat(20);
    let bytes = hex(&format!("{header} {zeros} 02 000000 {GID_HEX} {}", "77".repeat(16)), 60);
    assert_bytes(&request(Version::V2, body), &bytes);
    // The answer is a refusal, and empty.
    let answer = response(Version::V2, Body::ReqAddLink(ReqAddLink::default()));
    assert_bytes(&answer, &hex(&v2_header(0x25, 44, 0x80), 44));
}

const RTOKEN: Rtoken = Rtoken { rkey: Rkey(0x1234_5678), vaddr: 0x7F00_0000_1000 };

// row 62
// RFC 7609, A.3.5
#[test]
fn confirm_rkey() {
    let other = LinkRtoken { link: 2, rtoken: Rtoken { rkey: Rkey(9), vaddr: 0x2000 } };
    let one = ConfirmRkey::request(RTOKEN, []);
    let two = ConfirmRkey::request(RTOKEN, [other]);
    let first = "12345678 00007f0000001000";
    let bytes = hex(&format!("06 2c 00 00 00 {first}"), 44);
    assert_bytes(&request(Version::V1, Body::ConfirmRkey(one)), &bytes);
    let header = v2_header(0x26, 44, 0);
    let bytes = hex(&format!("{header} 01 {first} 02 00000009 0000000000002000"), 44);
    assert_bytes(&request(Version::V2, Body::ConfirmRkey(two)), &bytes);
    assert_eq!(two.others().unwrap().collect::<Vec<_>>(), [other]);
    let refused = ConfirmRkey { negative: true, retry: true, ..one };
    let bytes = hex(&format!("06 2c 00 b0 00 {first}"), 44);
    assert_bytes(&response(Version::V1, Body::ConfirmRkey(refused)), &bytes);
}

// RFC 7609, A.3.6
#[test]
fn confirm_rkey_continuation_is_kept_as_it_is() {
    let body = Body::ConfirmRkeyCont(ConfirmRkeyCont { content: [0x5A; 40] });
    let bytes = hex(&format!("08 2c 00 00 {}", "5a".repeat(40)), 44);
    assert_bytes(&request(Version::V1, body), &bytes);
}

// row 62
// RFC 7609, A.3.7
#[test]
fn delete_rkey() {
    let keys = [Rkey(0x1234_5678), Rkey(2), Rkey(3)];
    let ours = DeleteRkey::request(&keys[..1]);
    let bytes = hex("09 2c 00 00 01 00 0000 12345678", 44);
    assert_bytes(&request(Version::V1, Body::DeleteRkey(ours)), &bytes);
    let three = DeleteRkey::request(&keys);
    let known = |key| key != Rkey(2);
    let is_unknown = |key| !known(key);
    // Version 1 repeats the keys and marks those that were not known, the first in the highest bit.
    let answer = response(Version::V1, Body::DeleteRkey(three.answer(Version::V1, is_unknown)));
    assert_bytes(&answer, &hex("09 2c 00 a0 03 40 0000 12345678 00000002 00000003", 44));
    // Version 2 counts them, and does not repeat the keys.
    let answer = response(Version::V2, Body::DeleteRkey(three.answer(Version::V2, is_unknown)));
    assert_eq!(emitted(&answer), hex(&format!("{} 03 01", v2_header(0x29, 44, 0xA0)), 44));
    let done = three.answer(Version::V1, |_| false);
    assert!(!done.negative && done.unknown == 0);
}

// row 62
#[test]
fn delete_rkey_v2_may_be_longer_than_44_bytes() {
    let keys: Vec<Rkey> = (1..=255).map(Rkey).collect();
    let message = request(Version::V2, Body::DeleteRkey(DeleteRkey::request(&keys)));
    let bytes = emitted(&message);
    assert_eq!(bytes.len(), 8 + 255 * 4);
    assert_eq!(bytes[1..3], 1028u16.to_ne_bytes());
    assert_eq!(bytes[1024..], [0, 0, 0, 255]);
    assert_eq!(Message::parse(&bytes).unwrap(), message);
}

// row 70
// RFC 7609, A.3.8
#[test]
fn test_link() {
    let body = Body::TestLink(TestLink { user_data: *b"0123456789abcdef" });
    let data = "30313233343536373839616263646566";
    let bytes = hex(&format!("07 2c 00 00 {data}"), 44);
    assert_bytes(&request(Version::V1, body), &bytes);
    let bytes = hex(&format!("{} {data}", v2_header(0x27, 44, 0x80)), 44);
    assert_bytes(&response(Version::V2, body), &bytes);
    // Linux's own has no data.
    let own = request(Version::V1, Body::TestLink(TestLink::default()));
    assert_bytes(&own, &hex("07 2c", 44));
}

// row 73
#[test]
fn version_2_lengths_are_in_the_hosts_order() {
    let bytes = emitted(&request(Version::V2, Body::TestLink(TestLink::default())));
    assert_eq!(bytes[1..3], 44u16.to_ne_bytes());
    // From a host of the other order 44 arrives as 11264, which is "44 or more": it is understood.
    let mut other = bytes.clone();
    other[1..3].reverse();
    assert_eq!(Message::parse(&other), Message::parse(&bytes));
    // Its three keys arrive as 768; what bounds them is what was received.
    let tail = AddLinkTail::new(false, GID, &UPDATES);
    let sent = AddLink { tail: Some(tail), ..ADD_LINK };
    let mut bytes = emitted(&request(Version::V2, Body::AddLink(sent)));
    bytes[1..3].reverse();
    bytes[70..72].reverse();
    let Body::AddLink(parsed) = Message::parse(&bytes).unwrap().body else { panic!() };
    let parsed = parsed.tail.unwrap();
    assert_eq!((parsed.num_rkeys, parsed.rkeys), (0x0300, List::new(&UPDATES)));
}

// row 74
#[test]
fn types_without_a_handler_are_unknown_whatever_their_length() {
    let known: [u8; 15] = [1, 2, 3, 4, 6, 7, 8, 9, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x29];
    for byte in 0..=255 {
        let bytes = [byte, 0, 0, 0];
        let parsed = Message::parse(&bytes);
        if known.contains(&byte) {
            assert!(parsed.is_err(), "{byte:#x} is too short");
        } else {
            assert_eq!(parsed.unwrap().body, Body::Unknown(Type(byte)));
        }
    }
    let unknown = response(Version::V1, Body::Unknown(Type(0x0F)));
    assert_bytes(&unknown, &hex("0f 2c 00 80", 44));
}

#[test]
fn names_are_the_rfcs() {
    assert_eq!(Type::ADD_LINK_CONT.to_string(), "ADD LINK CONTINUATION");
    assert_eq!(Type::REQ_ADD_LINK.of(Version::V2).to_string(), "REQUEST ADD LINK v2");
    assert_eq!(Type(0x23).to_string(), "unknown LLC type 0x23");
    assert_eq!(DeleteReason::LOST_PATH.to_string(), "lost path");
    assert_eq!(DeleteReason(7).to_string(), "unknown reason 0x00000007");
    assert_eq!(RejectReason::NO_ALTERNATE_PATH.to_string(), "no alternate path");
}
