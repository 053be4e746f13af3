// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages as Linux would send them, and helpers to break them.
//!
//! Invariant: each sample can be emitted.

use std::net::Ipv4Addr;

use smc_wire::Error;
use smc_wire::clc::{
    AcceptConfirm, Body, Contact, Features, FirstContact, IsmArea, Modes, OfferV1, OfferV2,
    PrefixV4, PrefixV6, Prefixes, Proposal, Smcd, SmcdOffer, Smcr, SmcrOffer, Version, hostname,
};
use smc_wire::id::{
    AlertToken, Chid, DmbToken, Eid, IsmGid, LinkGroupId, Mac, PeerId, Psn, Qpn, Rkey, RoceGid,
    Ueid,
};
use smc_wire::size::{BufferSize, PathMtu};

/// A virtio-ism device's fabric.
pub(crate) const FABRIC: Chid = Chid(0xFF01);

/// The bytes of what `emit` writes.
pub(crate) fn bytes(emit: impl Fn(&mut [u8]) -> Result<usize, Error>) -> Vec<u8> {
    let mut buffer = [0xAA; 1024];
    let len = emit(&mut buffer).unwrap();
    // A buffer of exactly the length is enough, one byte less is not.
    assert_eq!(emit(&mut vec![0; len]), Ok(len));
    assert!(matches!(emit(&mut vec![0; len - 1]), Err(Error::Short { .. })));
    buffer[..len].to_vec()
}

/// `bytes` with the 16 bits at `at` set.
pub(crate) fn with_u16(bytes: &[u8], at: usize, value: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// `bytes` with one byte set.
pub(crate) fn with(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = value;
    bytes
}

/// `bytes` with `more` before the trailer and the length that this gives.
pub(crate) fn longer(bytes: &[u8], more: &[u8]) -> Vec<u8> {
    let (body, trailer) = bytes.split_at(bytes.len() - 4);
    let all = [body, more, trailer].concat();
    with_u16(&all, 5, all.len() as u16)
}

/// `bytes` without `less` bytes before the trailer, and with the length that this gives.
pub(crate) fn shorter(bytes: &[u8], less: usize) -> Vec<u8> {
    let (body, trailer) = bytes.split_at(bytes.len() - 4);
    let all = [&body[..body.len() - less], trailer].concat();
    with_u16(&all, 5, all.len() as u16)
}

/// The field that an error names.
pub(crate) fn field<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    match result {
        Err(Error::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn eid(text: &str) -> Eid {
    Ueid::new(text).unwrap().eid()
}

/// An emulated device's GID whose 16 bytes are 0x10, 0x11, ...
pub(crate) fn gid() -> IsmGid {
    IsmGid { gid: 0x1011_1213_1415_1617, ext: 0x1819_1A1B_1C1D_1E1F }
}

/// One UEID and one emulated device, nothing for version 1: what a Linux guest with our device sends.
pub(crate) fn v2_only() -> Proposal {
    let mut smcd = SmcdOffer::default();
    assert!(smcd.push(gid(), FABRIC));
    Proposal {
        version: Version::V2,
        peer: PeerId::default(),
        gid: RoceGid::default(),
        mac: Mac::default(),
        ism: Some(IsmArea::default()),
        v1: None,
        v2: Some(OfferV2 {
            release: 1,
            feature_mask: 1,
            ueids: [eid("TEST-UEID")].into_iter().collect(),
            smcr: None,
            smcd: Some(smcd),
        }),
    }
}

/// Everything, and as much of it as there may be: 652 bytes.
pub(crate) fn largest() -> Proposal {
    let v6 = |n: u8| PrefixV6 { subnet: [n; 16].into(), len: 64 };
    let mut smcd = SmcdOffer { seid: Some(Eid([b'S'; 32])), ..SmcdOffer::default() };
    for n in 0..4 {
        assert!(smcd.push(gid(), Chid(FABRIC.0 + n)));
    }
    assert!(!smcd.push(gid(), FABRIC));
    Proposal {
        version: Version::V2,
        peer: PeerId([1; 8]),
        gid: RoceGid([2; 16]),
        mac: Mac([3; 6]),
        ism: Some(IsmArea { gid: 4, chid: Chid(5), vendor_oui: [6; 3], vendor_options: [7; 5] }),
        v1: Some(OfferV1 {
            modes: Modes::Both,
            prefixes: Prefixes { v4: PrefixV4::default(), v6: (1..=8).map(v6).collect() },
        }),
        v2: Some(OfferV2 {
            release: 1,
            feature_mask: 1,
            ueids: (b'A'..=b'H').map(|c| eid(&char::from(c).to_string())).collect(),
            smcr: Some(SmcrOffer { gid: RoceGid([8; 16]), max_conns: 255, max_links: 2 }),
            smcd: Some(smcd),
        }),
    }
}

/// A version 1 proposal of SMC-R as RFC 7609 has it, without the SMC-D area.
pub(crate) fn v1_smcr() -> Proposal {
    let v4 = PrefixV4 { subnet: Ipv4Addr::new(10, 1, 2, 0), len: 24 };
    Proposal {
        version: Version::V1,
        ism: None,
        v1: Some(OfferV1 { modes: Modes::R, prefixes: Prefixes { v4, v6: <_>::default() } }),
        v2: None,
        ..largest()
    }
}

pub(crate) fn smcr() -> Smcr {
    Smcr {
        peer: PeerId([1, 2, 3, 4, 5, 6, 7, 8]),
        gid: RoceGid([0x20; 16]),
        mac: Mac([0x30; 6]),
        qpn: Qpn(0x41_4243),
        rkey: Rkey(0x5152_5354),
        rmbe_idx: 1,
        alert_token: AlertToken(0x6162_6364),
        size: BufferSize::from_bits(2),
        mtu: PathMtu::M1024,
        rmb_addr: 0x7172_7374_7576_7778,
        psn: Psn(0x81_8283),
    }
}

pub(crate) fn smcd() -> Smcd {
    Smcd {
        gid: gid(),
        chid: FABRIC,
        token: DmbToken(0x2122_2324_2526_2728),
        dmbe_idx: 0,
        size: BufferSize::from_bits(2),
        link_id: LinkGroupId([0x31, 0x32, 0x33, 0x34]),
    }
}

/// SMC-D's buffer in version 1, which has no CHID and 64-bit GIDs.
pub(crate) fn smcd_v1() -> Smcd {
    Smcd { gid: IsmGid { ext: 0, ..gid() }, chid: Chid(0), ..smcd() }
}

pub(crate) fn v1(first: bool, body: Body) -> AcceptConfirm {
    AcceptConfirm { contact: Contact::V1 { first }, body }
}

pub(crate) fn v2(first: Option<FirstContact>, body: Body) -> AcceptConfirm {
    AcceptConfirm { contact: Contact::V2 { eid: eid("TEST-UEID"), first }, body }
}

/// What Linux fills in in a release.
pub(crate) fn first(smcr: bool, release: u8) -> FirstContact {
    let (max_conns, max_links) = if smcr { (255, 2) } else { (0, 0) };
    let features = Features { max_conns, max_links, feature_mask: 1, vendor_options: 0 };
    FirstContact::new(smcr, release, hostname("guest"), features)
}
