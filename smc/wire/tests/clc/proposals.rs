// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Proposals: where each area lies, and each bound.
//!
//! Invariant: a broken proposal differs from a good one in what its test is about.

use smc_wire::Error;
use smc_wire::clc::{
    IsmArea, IsmEntry, Modes, OfferV1, OfferV2, Prefixes, Proposal, SmcdOffer, Version,
};
use smc_wire::id::{Chid, IsmGid};

use crate::samples::*;

fn emitted(proposal: &Proposal) -> Vec<u8> {
    let bytes = bytes(|to| proposal.emit(to));
    assert_eq!(Proposal::parse(&bytes).as_ref(), Ok(proposal));
    bytes
}

/// A proposal with everything, and where its areas begin: prefixes, version 2 extension, SMC-D's.
fn everything() -> (Vec<u8>, [usize; 3]) {
    (emitted(&largest()), [80, 80 + 8 + 8 * 17, 80 + 8 + 8 * 17 + 40 + 8 * 32])
}

// row 5
#[test]
fn each_field_is_where_linux_has_it() {
    let (bytes, [prefixes, v2, smcd]) = everything();
    assert_eq!(bytes.len(), 652);
    assert_eq!(bytes[..8], [0xE2, 0xD4, 0xC3, 0xD9, 1, 0x02, 0x8C, 0x2F]);
    assert_eq!(bytes[8..40], [&[1; 8][..], &[2; 16], &[3; 6], &[0, 40]].concat());
    assert_eq!(bytes[40..52], [0, 0, 0, 0, 0, 0, 0, 4, 0, 5, 0, 172]);
    assert_eq!(bytes[52..80], [&[6; 3][..], &[7; 5], &[0; 20]].concat());
    assert_eq!(bytes[prefixes..prefixes + 8], [0, 0, 0, 0, 0, 0, 0, 8]);
    assert_eq!(bytes[prefixes + 8..prefixes + 25], [&[1; 16][..], &[64]].concat());
    assert_eq!(bytes[v2..v2 + 8], [8, 8, 0, 0x11, 0, 0, 0x01, 0x20]);
    assert_eq!(bytes[v2 + 8..v2 + 40], [&[8; 16][..], &[255, 2, 0, 1], &[0; 12]].concat());
    assert_eq!(bytes[v2 + 40..v2 + 72], *b"A                               ");
    assert_eq!(bytes[smcd..smcd + 48], [&[b'S'; 32][..], &[0; 16]].concat());
    let entries = [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0xFF, 0x01, 0x18];
    assert_eq!(bytes[smcd + 48..smcd + 59], entries);
    assert_eq!(bytes[648..], [0xE2, 0xD4, 0xC3, 0xD9]);
}

#[test]
fn smcr_alone_has_no_area_for_version_2_of_smcd() {
    let mut proposal = largest();
    proposal.v2.as_mut().unwrap().smcd = None;
    let bytes = emitted(&proposal);
    assert_eq!(bytes.len(), 652 - 48 - 80);
    assert_eq!(bytes[7], 0x23, "version 2, typev2 R, typev1 both");
    assert_eq!(bytes[224..232], [8, 0, 0, 0x10, 0, 0, 0, 0]);
}

#[test]
fn version_1_alone_is_still_sent_as_version_2() {
    let proposal = Proposal { v2: None, ..largest() };
    let bytes = emitted(&proposal);
    assert_eq!(bytes.len(), 40 + 40 + 8 + 8 * 17 + 4);
    assert_eq!((bytes[7], &bytes[50..52]), (0x2B, &[0, 0][..]), "typev2 is neither");
}

// row 6
#[test]
fn a_v2_only_proposal_of_one_device_has_224_bytes() {
    let bytes = emitted(&v2_only());
    assert_eq!(bytes.len(), 224);
    assert_eq!(bytes[7], 0x26, "version 2, typev2 D, typev1 neither");
    assert_eq!(bytes[8..40], [0; 32], "nothing for version 1, iparea_offset 0");
    assert_eq!(bytes[50..52], [0, 28]);
    assert_eq!(bytes[80..88], [1, 2, 0, 0x10, 0, 0, 0, 64]);
    assert_eq!(bytes[200..210], [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0xFF, 0x01]);
    assert_eq!(bytes[210..220], [0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F, 0xFF, 0x01]);
}

/// What Linux reads as the number of IPv6 prefixes (`smc_clc_msg_prop_valid`).
fn linux_counts(bytes: &[u8]) -> u8 {
    let offset = u16::from_be_bytes([bytes[38], bytes[39]]);
    assert!(offset <= 40);
    bytes[40 + usize::from(offset) + 7]
}

// row 7
#[test]
fn byte_47_is_no_count_of_prefixes_without_version_1() {
    let with_gid = |gid| Proposal {
        ism: Some(IsmArea { gid, chid: Chid(1), ..IsmArea::default() }),
        ..v2_only()
    };
    // As Linux sends it, and as Linux refuses it: taken all the same.
    let linux = with(&emitted(&with_gid(8)), 47, 9);
    assert_eq!((linux[38..40].to_vec(), linux_counts(&linux)), (vec![0, 0], 9));
    assert_eq!(Proposal::parse(&linux), Ok(with_gid(9)));
    // Ours is one that Linux takes, with any GID.
    for gid in [0, 8, 9, 0xFF, u64::MAX, 0x100] {
        let bytes = emitted(&with_gid(gid));
        assert!(linux_counts(&bytes) <= 8);
        assert_eq!(bytes.len(), 224);
    }
    assert_eq!(emitted(&with_gid(0x100))[38..40], [0, 0], "no need to differ from Linux");
}

// row 8
#[test]
fn offsets_end_at_40_172_and_288() {
    let (bytes, [_, v2, _]) = everything();
    for (at, limit, name) in [
        (38, 40, "proposal.iparea_offset"),
        (50, 172, "proposal.v2_ext_offset"),
        (v2 + 6, 288, "proposal.smcd_v2_ext_offset"),
    ] {
        assert_eq!(bytes[at..at + 2], [(limit >> 8) as u8, limit as u8]);
        let broken = with_u16(&bytes, at, limit + 1);
        assert_eq!(field(Proposal::parse(&broken)), name);
    }
    let nowhere = with_u16(&emitted(&v2_only()), 38, 41);
    assert_eq!(field(Proposal::parse(&nowhere)), "proposal.iparea_offset");
}

// row 8
#[test]
fn offsets_that_overlap_areas_are_refused() {
    let (bytes, [_, v2, _]) = everything();
    for (at, right) in [(38, 40), (50, 172), (v2 + 6, 288)] {
        for wrong in (0..right).chain([u16::MAX]) {
            assert!(Proposal::parse(&with_u16(&bytes, at, wrong)).is_err(), "{wrong} at {at}");
        }
    }
}

// row 9
#[test]
fn counts_of_nine_are_refused() {
    let (bytes, [prefixes, v2, _]) = everything();
    for (at, more, name) in [
        (prefixes + 7, 17, "proposal.ipv6_prefixes_cnt"),
        (v2, 32, "proposal.eid_cnt"),
        (v2 + 1, 10, "proposal.ism_gid_cnt"),
    ] {
        assert_eq!(bytes[at], 8);
        assert_eq!(field(Proposal::parse(&with(&bytes, at, 9))), name);
        // There would be room for a ninth one.
        let room = longer(&with(&bytes, at, 9), &vec![0; more]);
        assert_eq!(field(Proposal::parse(&room)), name);
        assert_eq!(field(Proposal::parse(&with(&bytes, at, 255))), name);
    }
}

// row 10
#[test]
fn the_length_is_the_sum_of_the_areas() {
    for proposal in [largest(), v2_only(), v1_smcr(), Proposal { v2: None, ..largest() }] {
        let bytes = emitted(&proposal);
        let len = bytes.len() as u16;
        // The length lies, the bytes are the same.
        let more = Error::Short { what: "proposal", need: bytes.len() + 1, have: bytes.len() };
        assert_eq!(Proposal::parse(&with_u16(&bytes, 5, len + 1)), Err(more));
        assert_eq!(field(Proposal::parse(&with_u16(&bytes, 5, len - 1))), "clc.length");
        // The length is right, the areas are not as long.
        assert_eq!(field(Proposal::parse(&longer(&bytes, &[0]))), "clc.length");
        let short = Proposal::parse(&shorter(&bytes, 1));
        assert!(matches!(short, Err(Error::Short { .. })), "{short:?}");
        // A byte of what follows in the stream.
        assert_eq!(field(Proposal::parse(&[&bytes[..], &[0]].concat())), "clc.length");
    }
}

#[test]
fn any_cut_is_refused() {
    let (bytes, _) = everything();
    for len in 0..bytes.len() {
        assert!(Proposal::parse(&bytes[..len]).is_err());
        if len >= 7 {
            assert!(Proposal::parse(&with_u16(&bytes[..len], 5, len as u16)).is_err(), "{len}");
        }
    }
}

// row 11
// RFC 7609, A.2.2
#[test]
fn a_version_1_proposal_may_lack_the_smcd_area() {
    let without = emitted(&v1_smcr());
    assert_eq!(without.len(), 52);
    assert_eq!(without[7], 0x10, "version 1, SMC-R");
    assert_eq!(without[38..48], [0, 0, 10, 1, 2, 0, 24, 0, 0, 0]);
    for modes in [Modes::R, Modes::D, Modes::Both] {
        let offer = OfferV1 { modes, prefixes: Prefixes::default() };
        let ism = Some(IsmArea { gid: 7, ..IsmArea::default() });
        let proposal = Proposal { ism, v1: Some(offer), ..v1_smcr() };
        assert_eq!(emitted(&proposal).len(), 92);
    }
    let neither = with(&without, 7, 0x12);
    assert_eq!(field(Proposal::parse(&neither)), "proposal.typev1");
    let between = longer(&with_u16(&without, 38, 4), &[0; 4]);
    assert_eq!(field(Proposal::parse(&between)), "proposal.iparea_offset");
    // In version 1 the bits of typev2 are reserved.
    assert_eq!(Proposal::parse(&with(&without, 7, 0x1C)), Ok(v1_smcr()));
}

#[test]
fn a_prefix_is_not_longer_than_an_address() {
    let (bytes, [prefixes, ..]) = everything();
    let v4 = |len| Proposal::parse(&with(&bytes, prefixes + 4, len));
    let v6 = |len| Proposal::parse(&with(&bytes, prefixes + 8 + 16, len));
    assert!(v4(32).is_ok() && v6(128).is_ok());
    assert_eq!(field(v4(33)), "proposal.prefix_len");
    assert_eq!(field(v6(129)), "proposal.ipv6_prefix.prefix_len");
}

// row 28
#[test]
fn an_emulated_device_takes_two_entries() {
    let emulated = |gid| IsmEntry { gid, chid: FABRIC };
    let other = |gid| IsmEntry { gid, chid: Chid(0xFF02) };
    let native = |gid| IsmEntry { gid, chid: Chid(0x07C0) };
    let devices = |entries: &[IsmEntry]| {
        let smcd = SmcdOffer { seid: None, entries: entries.iter().copied().collect() };
        smcd.devices().map(|(gid, chid)| (gid.gid, gid.ext, chid.0)).collect::<Vec<_>>()
    };
    assert_eq!(devices(&[emulated(1), emulated(2)]), [(1, 2, 0xFF01)]);
    assert_eq!(devices(&[emulated(1)]), []);
    assert_eq!(devices(&[native(1), native(2)]), [(1, 0, 0x07C0), (2, 0, 0x07C0)]);
    // An odd entry is passed over, and what follows it is read from its own beginning.
    assert_eq!(devices(&[emulated(1), native(2)]), [(2, 0, 0x07C0)]);
    assert_eq!(devices(&[emulated(1), other(2), other(3)]), [(2, 3, 0xFF02)]);
    assert_eq!(devices(&[emulated(1), emulated(2), emulated(3)]), [(1, 2, 0xFF01)]);
    assert_eq!(devices(&[]), []);
}

#[test]
fn four_emulated_devices_or_eight_native_ones_have_room() {
    for (chid, room) in [(FABRIC, 4), (Chid::LOOPBACK, 4), (Chid(0xFEFF), 8)] {
        let mut smcd = SmcdOffer::default();
        let pushed = (0..9).filter(|&n| smcd.push(IsmGid { gid: n, ext: 0 }, chid)).count();
        assert_eq!((pushed, smcd.entries.len()), (room, 8));
    }
    // A second entry alone is never written.
    let mut smcd = SmcdOffer::default();
    assert!((0..7).all(|gid| smcd.push(IsmGid { gid, ext: 0 }, Chid(1))));
    assert!(!smcd.push(gid(), FABRIC));
    assert_eq!(smcd.entries.len(), 7);
}

#[test]
fn a_later_version_is_read_as_version_2() {
    let later = with(&emitted(&v2_only()), 7, 0xF6);
    let version = Version::new(15).unwrap();
    assert_eq!(Proposal::parse(&later), Ok(Proposal { version, ..v2_only() }));
    assert_eq!(field(Proposal::parse(&with(&later, 7, 0x06))), "clc.version");
}

#[test]
fn a_later_release_is_read() {
    let later = with(&emitted(&v2_only()), 83, 0xF0);
    let proposal = Proposal::parse(&later).unwrap();
    assert_eq!(proposal.v2.unwrap().release, 15);
}

#[test]
fn the_eyecatcher_is_smcrs_at_both_ends() {
    let bytes = emitted(&v2_only());
    let smcd = with(&with(&bytes, 3, 0xC4), 223, 0xC4);
    assert_eq!(field(Proposal::parse(&smcd)), "clc.eyecatcher");
    assert_eq!(field(Proposal::parse(&with(&bytes, 223, 0xC4))), "clc.trailer");
    assert_eq!(field(Proposal::parse(&with(&bytes, 220, 0))), "clc.trailer");
    assert_eq!(field(Proposal::parse(&with(&bytes, 0, b'S'))), "clc.eyecatcher");
    assert_eq!(field(Proposal::parse(&with(&bytes, 4, 2))), "clc.type");
}

#[test]
fn what_cannot_be_said_is_not_emitted() {
    let refused = |proposal: Proposal| field(proposal.emit(&mut [0; 1024]));
    let v1 = Version::V1;
    assert_eq!(refused(Proposal { version: v1, ..v2_only() }), "proposal.version");
    assert_eq!(refused(Proposal { version: v1, ..largest() }), "proposal.version");
    assert_eq!(refused(Proposal { ism: None, ..largest() }), "proposal.version");
    let none = OfferV2 { smcr: None, smcd: None, ..largest().v2.unwrap() };
    assert_eq!(refused(Proposal { v2: Some(none), ..largest() }), "proposal.typev2");
    let release = OfferV2 { release: 16, ..largest().v2.unwrap() };
    assert_eq!(refused(Proposal { v2: Some(release), ..largest() }), "proposal.release");
    let mut prefix = largest();
    prefix.v1.as_mut().unwrap().prefixes.v4.len = 33;
    assert_eq!(refused(prefix), "proposal.prefix_len");
}
