// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accept, Confirm and Decline: where each field lies, and each bound.
//!
//! Invariant: a broken message differs from a good one in what its test is about.

use smc_wire::Error;
use smc_wire::clc::{
    Accept, AcceptConfirm, Body, Confirm, Contact, Decline, Diagnosis, Features, FirstContact, Os,
    Smcd, Smcr, Version,
};
use smc_wire::id::{Chid, IsmGid, PeerId, Psn, Qpn, RoceGid};
use smc_wire::size::BufferSize;

use crate::samples::*;

fn accept(common: AcceptConfirm) -> Vec<u8> {
    let bytes = bytes(|to| Accept(common).emit(to));
    assert_eq!(Accept::parse(&bytes), Ok(Accept(common)));
    bytes
}

fn confirm(common: AcceptConfirm, gids: Option<&[RoceGid]>) -> Vec<u8> {
    let confirm = Confirm { common, gids: gids.map(|g| g.iter().copied().collect()) };
    let bytes = bytes(|to| confirm.emit(to));
    assert_eq!(Confirm::parse(&bytes), Ok(confirm));
    bytes
}

fn decline(decline: Decline) -> Vec<u8> {
    let bytes = bytes(|to| decline.emit(to));
    assert_eq!(Decline::parse(&bytes), Ok(decline));
    bytes
}

// row 12
#[test]
fn smcd_has_48_bytes_in_version_1_and_78_in_version_2() {
    let v1 = accept(v1(true, Body::Smcd(smcd_v1())));
    let fields = [
        &[0xE2, 0xD4, 0xC3, 0xC4, 2, 0, 48, 0x19][..],
        &[0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17],
        &[0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28],
        &[0, 0x20, 0, 0, 0x31, 0x32, 0x33, 0x34],
    ]
    .concat();
    assert_eq!(v1, [&fields[..], &[0; 12], &[0xE2, 0xD4, 0xC3, 0xC4]].concat());

    let v2 = confirm(v2(None, Body::Smcd(smcd())), None);
    assert_eq!(v2.len(), 78);
    assert_eq!(v2[4..8], [3, 0, 78, 0x21]);
    assert_eq!(v2[8..32], fields[8..]);
    assert_eq!(v2[32..34], [0xFF, 0x01]);
    assert_eq!(v2[34..66], *b"TEST-UEID                       ");
    assert_eq!(
        v2[66..],
        [&(0x18..0x20).collect::<Vec<u8>>()[..], &[0xE2, 0xD4, 0xC3, 0xC4]].concat()
    );
}

// row 13
#[test]
fn smcr_has_68_bytes_in_version_1_and_108_in_version_2() {
    let v1 = accept(v1(false, Body::Smcr(smcr())));
    let fields = [
        &[0xE2, 0xD4, 0xC3, 0xD9, 2, 0, 68, 0x10][..],
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &[0x20; 16],
        &[0x30; 6],
        &[0x41, 0x42, 0x43, 0x51, 0x52, 0x53, 0x54, 1, 0x61, 0x62, 0x63, 0x64, 0x23, 0],
        &[0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0, 0x81, 0x82, 0x83],
    ]
    .concat();
    assert_eq!(v1, [&fields[..], &[0xE2, 0xD4, 0xC3, 0xD9]].concat());

    let v2 = confirm(v2(None, Body::Smcr(smcr())), None);
    assert_eq!(v2.len(), 108);
    assert_eq!(v2[4..8], [3, 0, 108, 0x20]);
    assert_eq!(v2[8..64], fields[8..]);
    assert_eq!(
        v2[64..],
        [&b"TEST-UEID                       "[..], &[0; 8], &fields[..4]].concat()
    );
}

// row 14
#[test]
fn the_first_contact_extension_has_36_bytes_or_52() {
    let smcd = |release| accept(v2(Some(first(false, release)), Body::Smcd(smcd())));
    let smcr = |release| accept(v2(Some(first(true, release)), Body::Smcr(smcr())));
    assert_eq!([smcd(0), smcd(1), smcr(0), smcr(1)].map(|a| a.len()), [114, 130, 160, 160]);
    assert!([smcd(0), smcd(1)].iter().all(|a| a[7] == 0x29), "the flag of the first contact");

    let host = b"guest                           ";
    assert_eq!(smcd(0)[74..110], [&[0, 0x20, 0, 0][..], host].concat());
    assert_eq!(smcd(1)[74..110], [&[0, 0x21, 0, 0][..], host].concat());
    assert_eq!(smcd(1)[110..126], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(smcr(0)[140..156], [0; 16], "in release 0 they are reserved");
    assert_eq!(smcr(1)[140..144], [255, 2, 0, 1]);

    let direct = FirstContact { v2_direct: true, os: Os::ZOS, ..first(true, 15) };
    assert_eq!(
        accept(v2(Some(direct), Body::Smcr(crate::samples::smcr())))[104..106],
        [0x80, 0x1F]
    );
}

// row 14
#[test]
fn release_0_may_leave_out_what_release_1_added() {
    let old = FirstContact { features: None, ..first(true, 0) };
    assert_eq!(accept(v2(Some(old), Body::Smcr(smcr()))).len(), 144);
    let long = FirstContact { features: Some(Features::default()), ..first(false, 0) };
    assert_eq!(accept(v2(Some(long), Body::Smcd(smcd()))).len(), 130);
    // With and without, the list of a confirm is found.
    let gids = [RoceGid([7; 16]); 8];
    for count in 0..8 {
        for first in [old, first(true, 0), first(true, 1)] {
            let len = 104 + if first.features.is_some() { 52 } else { 36 } + 4 + 16 * count + 4;
            let common = v2(Some(first), Body::Smcr(smcr()));
            assert_eq!(confirm(common, Some(&gids[..count])).len(), len);
        }
    }
}

// row 15
#[test]
fn a_first_contact_without_its_extension_is_refused() {
    let short = |result: Result<Accept, Error>| matches!(result, Err(Error::Short { .. }));
    let bare = accept(v2(None, Body::Smcd(smcd())));
    assert!(short(Accept::parse(&with(&bare, 7, 0x29))), "the trailer is no extension");
    let bare = accept(v2(None, Body::Smcr(smcr())));
    assert!(short(Accept::parse(&with(&bare, 7, 0x28))));

    let whole = accept(v2(Some(first(false, 1)), Body::Smcd(smcd())));
    for less in 1..=52 {
        assert!(Accept::parse(&shorter(&whole, less)).is_err(), "{less}");
    }
    assert!(short(Accept::parse(&shorter(&whole, 16))), "release 1 in 36 bytes");
    assert_eq!(field(Accept::parse(&longer(&whole, &[0]))), "clc.length");
    // The extension without the flag.
    assert_eq!(field(Accept::parse(&with(&whole, 7, 0x21))), "clc.length");
}

// row 16
#[test]
fn an_smcr_confirm_lists_the_clients_gids() {
    let common = v2(Some(first(true, 1)), Body::Smcr(smcr()));
    let gids = [RoceGid([0xA0; 16]), RoceGid([0xB0; 16])];
    let two = confirm(common, Some(&gids));
    assert_eq!(two.len(), 196);
    assert_eq!(two[156..192], [&[2, 0, 0, 0][..], &[0xA0; 16], &[0xB0; 16]].concat());
    assert_eq!(confirm(common, Some(&[])).len(), 164);
    assert_eq!(confirm(common, None).len(), 160);

    let nine = longer(&with(&two, 156, 9), &[0; 7 * 16]);
    assert_eq!(field(Confirm::parse(&nine)), "confirm.gid_cnt");
    assert!(Confirm::parse(&with(&two, 156, 3)).is_err());
    assert!(Confirm::parse(&with(&two, 156, 1)).is_err());
    // An accept has none, nor has SMC-D, nor a later contact.
    assert_eq!(field(Accept::parse(&with(&two, 4, 2))), "clc.length");
    let smcd = confirm(v2(Some(first(false, 1)), Body::Smcd(smcd())), None);
    assert_eq!(field(Confirm::parse(&longer(&smcd, &[0; 4]))), "clc.length");
    let later = confirm(v2(None, Body::Smcr(smcr())), None);
    assert_eq!(field(Confirm::parse(&longer(&later, &[0; 4]))), "clc.length");
}

// row 17
#[test]
fn a_decline_has_28_bytes_in_version_1_and_44_in_version_2() {
    let peer = PeerId([1, 2, 3, 4, 5, 6, 7, 8]);
    let v1 = decline(Decline::new(false, peer, Diagnosis::NOSMCDEV));
    let fields = [1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 0, 0, 0, 0, 0, 0];
    let head = [0xE2, 0xD4, 0xC3, 0xD9, 4, 0, 28, 0x10];
    assert_eq!(v1, [&head[..], &fields, &head[..4]].concat());

    let v2 = decline(Decline::new(true, peer, Diagnosis::NOSMCD2DEV));
    let fields = [1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 0, 7, 0x20, 0, 0, 0];
    let head = [0xE2, 0xD4, 0xC3, 0xD9, 4, 0, 44, 0x20];
    assert_eq!(v2, [&head[..], &fields, &[0; 16], &head[..4]].concat());

    for (bytes, len) in [(v1, 28), (v2, 44)] {
        assert_eq!(field(Decline::parse(&longer(&bytes, &[0]))), "clc.length");
        assert!(Decline::parse(&shorter(&bytes, 1)).is_err());
        assert_eq!(field(Decline::parse(&with(&bytes, len - 1, 0))), "clc.trailer");
    }
}

// row 17
#[test]
fn an_old_linux_declines_with_28_bytes_in_version_2() {
    let new = Decline::new(true, PeerId::default(), Diagnosis::NOSMCDEV);
    let old = Decline { more: None, ..new };
    let bytes = decline(old);
    assert_eq!((bytes.len(), bytes[7], bytes[20]), (28, 0x20, 0x20));
    // Version 1 has no more.
    assert_eq!(field(Decline::parse(&with(&decline(new), 7, 0x10))), "clc.length");
    let v1 = Decline { version: Version::V1, ..new };
    assert_eq!(field(v1.emit(&mut [0; 64])), "decline.version");
    let v3 = Decline { version: Version::new(3).unwrap(), ..new };
    assert_eq!(field(v3.emit(&mut [0; 64])), "decline.version");
}

// row 19
#[test]
fn syncerr_sets_the_out_of_sync_bit() {
    for v2 in [false, true] {
        let sent = Decline::new(v2, PeerId::default(), Diagnosis::SYNCERR);
        assert!(sent.out_of_sync);
        assert_eq!(decline(sent)[7] & 0x0F, 0x08);
        let other = Decline::new(v2, PeerId::default(), Diagnosis::INTERR);
        assert_eq!(decline(other)[7] & 0x0F, 0);
    }
}

#[test]
fn smcd_may_decline_with_its_own_eyecatcher() {
    let sent = Decline { smcd: true, ..Decline::new(true, PeerId::default(), Diagnosis::MEM) };
    let bytes = decline(sent);
    assert_eq!((bytes[3], bytes[43]), (0xC4, 0xC4));
    assert_eq!(field(Decline::parse(&with(&bytes, 3, 0xD9))), "clc.trailer");
}

// rows 12, 13
#[test]
fn eyecatcher_and_mode_belong_together() {
    for (bytes, other, last) in [
        (accept(v1(false, Body::Smcd(smcd_v1()))), 0xD9, 47),
        (accept(v2(None, Body::Smcd(smcd()))), 0xD9, 77),
        (accept(v1(false, Body::Smcr(smcr()))), 0xC4, 67),
        (accept(v2(None, Body::Smcr(smcr()))), 0xC4, 107),
    ] {
        assert_eq!(field(Accept::parse(&with(&bytes, 3, other))), "clc.trailer");
        let both = with(&with(&bytes, 3, other), last, other);
        assert_eq!(field(Accept::parse(&both)), "clc.eyecatcher");
        // Neither, and both modes.
        for mode in [2, 3] {
            let broken = with(&bytes, 7, bytes[7] & !3 | mode);
            assert_eq!(field(Accept::parse(&broken)), "accept_confirm.typev1");
        }
        // An answer in a version that was not proposed.
        assert_eq!(field(Accept::parse(&with(&bytes, 7, bytes[7] | 0x30))), "clc.version");
        assert_eq!(field(Accept::parse(&with(&bytes, 7, bytes[7] & 0x0F))), "clc.version");
        assert_eq!(field(Confirm::parse(&bytes)), "clc.type");
    }
}

#[test]
fn an_rmbe_has_a_number_and_ends_within_4_gib() {
    let bytes = accept(v1(false, Body::Smcr(smcr())));
    let parsed = |idx, size: u8| Accept::parse(&with(&with(&bytes, 45, idx), 50, size << 4 | 3));
    assert_eq!(field(parsed(0, 2)), "accept_confirm.rmbe_idx");
    assert!(parsed(255, 10).is_ok(), "255 of 16 MiB");
    assert!(parsed(8, 15).is_ok(), "8 of 512 MiB");
    assert_eq!(field(parsed(9, 15)), "accept_confirm.rmbe_idx");
    let smcr = Smcr { rmbe_idx: 8, size: BufferSize::MAX, ..smcr() };
    assert_eq!(smcr.offset(), 7 << 29);
    let refused = Accept(v1(false, Body::Smcr(Smcr { rmbe_idx: 0, ..smcr })));
    assert_eq!(field(refused.emit(&mut [0; 256])), "accept_confirm.rmbe_idx");
}

#[test]
fn a_dmbs_element_ends_within_4_gib() {
    let bytes = accept(v1(false, Body::Smcd(smcd_v1())));
    let parsed = |idx, size: u8| Accept::parse(&with(&with(&bytes, 24, idx), 25, size << 4));
    assert!(parsed(255, 6).is_ok() && parsed(7, 15).is_ok());
    assert_eq!(field(parsed(8, 15)), "accept_confirm.dmbe_idx");
}

#[test]
fn the_packet_size_is_one_of_five() {
    let bytes = accept(v1(false, Body::Smcr(smcr())));
    for mtu in 0..16 {
        let parsed = Accept::parse(&with(&bytes, 50, 0x20 | mtu));
        if (1..=5).contains(&mtu) {
            let Ok(Accept(AcceptConfirm { body: Body::Smcr(smcr), .. })) = parsed else {
                panic!("{parsed:?}");
            };
            assert_eq!(smcr.mtu.bytes(), 128 << mtu);
        } else {
            assert_eq!(field(parsed), "accept_confirm.qp_mtu");
        }
    }
}

#[test]
fn only_an_emulated_device_has_128_bits_of_gid() {
    let emulated = accept(v2(None, Body::Smcd(smcd())));
    let native = with_u16(&emulated, 32, 0x07C0);
    let Ok(Accept(AcceptConfirm { body: Body::Smcd(parsed), .. })) = Accept::parse(&native) else {
        panic!("a native device is one too");
    };
    assert_eq!(parsed.gid, IsmGid { ext: 0, ..gid() }, "reserved otherwise");
}

#[test]
fn what_cannot_be_said_is_not_emitted() {
    let refused = |common| field(Accept(common).emit(&mut [0; 256]));
    assert_eq!(refused(v1(true, Body::Smcd(smcd()))), "accept_confirm.chid");
    let ext = Smcd { chid: Chid(0x07C0), ..smcd() };
    assert_eq!(refused(v2(None, Body::Smcd(ext))), "accept_confirm.gid_ext");
    let truncated = Smcd { chid: Chid(0), ..smcd() };
    assert_eq!(refused(v1(true, Body::Smcd(truncated))), "accept_confirm.gid_ext");
    let qpn = Smcr { qpn: Qpn(1 << 24), ..smcr() };
    assert_eq!(refused(v1(true, Body::Smcr(qpn))), "accept_confirm.qpn");
    let psn = Smcr { psn: Psn(1 << 24), ..smcr() };
    assert_eq!(refused(v1(true, Body::Smcr(psn))), "accept_confirm.psn");
    let without = FirstContact { features: None, ..first(true, 1) };
    assert_eq!(refused(v2(Some(without), Body::Smcr(smcr()))), "first_contact.release");
    let features = Some(Features { max_conns: 1, ..Features::default() });
    let reserved = FirstContact { features, ..first(true, 0) };
    assert_eq!(refused(v2(Some(reserved), Body::Smcr(smcr()))), "first_contact.release");
    let release = first(true, 16);
    assert_eq!(refused(v2(Some(release), Body::Smcr(smcr()))), "first_contact.release");
    let list = Confirm { common: v1(true, Body::Smcr(smcr())), gids: Some(<_>::default()) };
    assert_eq!(field(list.emit(&mut [0; 256])), "confirm.gid_cnt");
}

#[test]
fn a_contact_says_whether_it_is_the_first() {
    assert!(Contact::V1 { first: true }.is_first());
    assert!(v2(Some(first(true, 1)), Body::Smcr(smcr())).contact.is_first());
    assert!(!v2(None, Body::Smcr(smcr())).contact.is_first());
}
