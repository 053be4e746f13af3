// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Any CLC message.
//!
//! Invariant: each can be emitted, and all that can be are among them.

use proptest::array::{uniform4, uniform32};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use smc_wire::clc::{
    Accept, AcceptConfirm, Body, Confirm, Contact, Decline, Diagnosis, Features, FirstContact,
    IsmArea, IsmEntry, Message, Modes, OfferV1, OfferV2, Os, PrefixV4, PrefixV6, Prefixes,
    Proposal, Smcd, SmcdOffer, Smcr, SmcrOffer, Version,
};
use smc_wire::id::{
    AlertToken, Chid, DmbToken, Eid, IsmGid, LinkGroupId, Mac, PeerId, Psn, Qpn, Rkey, RoceGid,
};
use smc_wire::size::{BufferSize, PathMtu};

fn eids() -> impl Strategy<Value = Eid> {
    uniform32(any::<u8>()).prop_map(Eid)
}

/// Half of the fabrics are emulated.
fn chids() -> impl Strategy<Value = Chid> {
    prop_oneof![any::<u16>(), 0xFF00..=0xFFFFu16].prop_map(Chid)
}

fn modes() -> impl Strategy<Value = Modes> {
    prop_oneof![Just(Modes::R), Just(Modes::D), Just(Modes::Both)]
}

fn ism_areas() -> impl Strategy<Value = IsmArea> {
    (any::<u64>(), chids(), any::<[u8; 3]>(), any::<[u8; 5]>()).prop_map(
        |(gid, chid, vendor_oui, vendor_options)| IsmArea { gid, chid, vendor_oui, vendor_options },
    )
}

fn offers_v1() -> impl Strategy<Value = OfferV1> {
    let v4 = (any::<[u8; 4]>(), 0..=32u8)
        .prop_map(|(subnet, len)| PrefixV4 { subnet: subnet.into(), len });
    let v6 = (any::<[u8; 16]>(), 0..=128u8)
        .prop_map(|(subnet, len)| PrefixV6 { subnet: subnet.into(), len });
    (modes(), v4, vec(v6, 0..=8)).prop_map(|(modes, v4, v6)| OfferV1 {
        modes,
        prefixes: Prefixes { v4, v6: v6.into_iter().collect() },
    })
}

fn offers_v2() -> impl Strategy<Value = OfferV2> {
    let smcr =
        (any::<[u8; 16]>(), any::<u8>(), any::<u8>()).prop_map(|(gid, max_conns, max_links)| {
            SmcrOffer { gid: RoceGid(gid), max_conns, max_links }
        });
    let entry = (any::<u64>(), chids()).prop_map(|(gid, chid)| IsmEntry { gid, chid });
    let smcd = (of(eids()), vec(entry, 0..=8))
        .prop_map(|(seid, entries)| SmcdOffer { seid, entries: entries.into_iter().collect() });
    (0..=15u8, any::<u16>(), vec(eids(), 0..=8), modes(), smcr, smcd).prop_map(
        |(release, feature_mask, ueids, modes, smcr, smcd)| OfferV2 {
            release,
            feature_mask,
            ueids: ueids.into_iter().collect(),
            smcr: modes.smcr().then_some(smcr),
            smcd: modes.smcd().then_some(smcd),
        },
    )
}

pub(crate) fn proposals() -> impl Strategy<Value = Proposal> {
    let base = (any::<[u8; 8]>(), any::<[u8; 16]>(), any::<[u8; 6]>());
    let v1 = (of(ism_areas()), offers_v1()).prop_map(|(ism, v1)| (1, ism, Some(v1), None));
    let v2 = (2..=15u8, ism_areas(), of(offers_v1()), of(offers_v2()))
        .prop_map(|(version, ism, v1, v2)| (version, Some(ism), v1, v2));
    (base, prop_oneof![1 => v1, 4 => v2]).prop_map(|((peer, gid, mac), (version, ism, v1, v2))| {
        Proposal {
            version: Version::new(version).unwrap(),
            peer: PeerId(peer),
            gid: RoceGid(gid),
            mac: Mac(mac),
            ism,
            v1,
            v2,
        }
    })
}

fn smcr() -> impl Strategy<Value = Smcr> {
    let port = (any::<[u8; 8]>(), any::<[u8; 16]>(), any::<[u8; 6]>());
    let numbers = (0..1u32 << 24, any::<u32>(), any::<u32>(), any::<u64>(), 0..1u32 << 24);
    // Sizes up to 16 MiB leave room for 255 RMBEs.
    (port, numbers, 1..=255u8, 0..=10u8, 1..=5u8).prop_map(
        |((peer, gid, mac), (qpn, rkey, token, rmb_addr, psn), rmbe_idx, size, mtu)| Smcr {
            peer: PeerId(peer),
            gid: RoceGid(gid),
            mac: Mac(mac),
            qpn: Qpn(qpn),
            rkey: Rkey(rkey),
            rmbe_idx,
            alert_token: AlertToken(token),
            size: BufferSize::from_bits(size),
            mtu: PathMtu::from_bits("mtu", mtu).unwrap(),
            rmb_addr,
            psn: Psn(psn),
        },
    )
}

fn smcd() -> impl Strategy<Value = Smcd> {
    let gid = (any::<u64>(), any::<u64>(), chids());
    (gid, any::<u64>(), 0..8u8, 0..16u8, any::<[u8; 4]>()).prop_map(
        |((gid, ext, chid), token, dmbe_idx, size, link_id)| Smcd {
            gid: IsmGid { gid, ext: if chid.is_emulated() { ext } else { 0 } },
            chid,
            token: DmbToken(token),
            dmbe_idx,
            size: BufferSize::from_bits(size),
            link_id: LinkGroupId(link_id),
        },
    )
}

fn first_contacts() -> impl Strategy<Value = FirstContact> {
    let features = (any::<u8>(), any::<u8>(), any::<u16>(), any::<u32>()).prop_map(
        |(max_conns, max_links, feature_mask, vendor_options)| Features {
            max_conns,
            max_links,
            feature_mask,
            vendor_options,
        },
    );
    let release = prop_oneof![
        Just((0, None)),
        Just((0, Some(Features::default()))),
        (1..=15u8, features.prop_map(Some)),
    ];
    (any::<bool>(), 0..16u8, release, uniform32(any::<u8>())).prop_map(
        |(v2_direct, os, (release, features), hostname)| FirstContact {
            v2_direct,
            os: Os::from_bits(os),
            release,
            hostname,
            features,
        },
    )
}

fn accept_confirms() -> impl Strategy<Value = AcceptConfirm> {
    let body = prop_oneof![smcr().prop_map(Body::Smcr), smcd().prop_map(Body::Smcd)];
    let contact = prop_oneof![
        1 => any::<bool>().prop_map(|first| Contact::V1 { first }),
        3 => (eids(), of(first_contacts())).prop_map(|(eid, first)| Contact::V2 { eid, first }),
    ];
    (contact, body).prop_map(|(contact, body)| match (contact, body) {
        (Contact::V1 { .. }, Body::Smcd(smcd)) => {
            let gid = IsmGid { ext: 0, ..smcd.gid };
            AcceptConfirm { contact, body: Body::Smcd(Smcd { gid, chid: Chid(0), ..smcd }) }
        }
        (contact, body) => AcceptConfirm { contact, body },
    })
}

fn confirms() -> impl Strategy<Value = Confirm> {
    let gids = of(vec(any::<[u8; 16]>(), 0..=8));
    (accept_confirms(), gids).prop_map(|(common, gids)| {
        let listed = matches!(
            common,
            AcceptConfirm { contact: Contact::V2 { first: Some(_), .. }, body: Body::Smcr(_) }
        );
        let gids = gids.filter(|_| listed);
        Confirm { common, gids: gids.map(|gids| gids.into_iter().map(RoceGid).collect()) }
    })
}

fn declines() -> impl Strategy<Value = Decline> {
    let flags = (any::<bool>(), any::<bool>());
    let more = of(uniform4(any::<u32>()))
        .prop_flat_map(|more| (if more.is_some() { 2..=2u8 } else { 1..=2 }, Just(more)));
    (flags, any::<[u8; 8]>(), any::<u32>(), 0..16u8, more).prop_map(
        |((out_of_sync, smcd), peer, diagnosis, os, (version, more))| Decline {
            version: Version::new(version).unwrap(),
            out_of_sync,
            smcd,
            peer: PeerId(peer),
            diagnosis: Diagnosis(diagnosis),
            os: Os::from_bits(os),
            more: more.map(|more| more.map(Diagnosis)),
        },
    )
}

pub(crate) fn messages() -> impl Strategy<Value = Message> {
    prop_oneof![
        3 => proposals().prop_map(Message::Proposal),
        1 => accept_confirms().prop_map(Accept).prop_map(Message::Accept),
        2 => confirms().prop_map(Message::Confirm),
        1 => declines().prop_map(Message::Decline),
    ]
}
