// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a server takes of a proposal, and why it takes nothing.

use smc_proto::config::{Config, Versions};
use smc_proto::endpoint::Wish;
use smc_proto::group::RegisterError;
use smc_proto::handshake::inventory::{Address, IsmDevice};
use smc_proto::handshake::pnet::{Named, PnetId};
use smc_proto::id::DeviceId;
use smc_wire::clc::{Accept, Body, Contact, Diagnosis, Message, Modes, Proposal, Version};
use smc_wire::id::{Chid, Eid, IsmGid};

use crate::craft::{offer_v1, proposal, smcd_offer, smcr_offer};
use crate::pair::{CHID, IF, Pair, config, interface, ism, ueid};

/// What the server answers to a proposal.
fn accept(pair: &mut Pair, proposal: &Proposal) -> Accept {
    let stream = pair.propose(proposal);
    let sent = pair.sent(1).pop();
    let Some(Message::Accept(accept)) = sent else {
        panic!("{sent:?}, {:?}", pair.outcome(1, stream))
    };
    accept
}

fn declines(pair: &mut Pair, proposal: &Proposal) -> Diagnosis {
    let stream = pair.propose(proposal);
    pair.declined(1, stream)
}

/// A proposal of version 1.
fn version_1(modes: Modes, gid: u64) -> Proposal {
    let ism = smc_wire::clc::IsmArea { gid, chid: Chid(1), ..Default::default() };
    Proposal { v1: Some(offer_v1(modes)), v2: None, ism: Some(ism), ..proposal() }
}

/// A server whose native device is on the interface's network.
fn native() -> Pair {
    let mut pair = Pair::of([networked(), networked()]);
    pair.ends[0].endpoint.add_ism(native_device(1));
    pair.ends[1].endpoint.add_ism(native_device(2));
    pair
}

fn networked() -> Config {
    let mut config = config();
    let id = PnetId::new("NET1").unwrap();
    for n in [1, 2] {
        let named = Named::Device { name: format!("native{n}"), port: 1 };
        config.pnet.add(named, id).unwrap();
    }
    config.pnet.add(Named::Interface("eth0".into()), id).unwrap();
    config
}

fn native_device(n: u64) -> IsmDevice {
    let gid = IsmGid { gid: n, ext: 0 };
    IsmDevice { id: DeviceId(9), name: format!("native{n}"), gid, chid: Chid(1), ..ism(n) }
}

fn with_emulated(pair: &mut Pair) {
    for n in [0, 1] {
        pair.ends[n].endpoint.add_ism(ism(n as u64 + 1));
    }
}

fn version_2_smcd(devices: &[(IsmGid, Chid)]) -> Proposal {
    let mut proposal = proposal();
    proposal.v2.as_mut().unwrap().smcd = Some(smcd_offer(devices));
    proposal
}

// row 23
#[test]
fn ism_version_2_comes_before_version_1() {
    let mut pair = native();
    with_emulated(&mut pair);
    let both = Proposal { v2: proposal().v2, ..version_1(Modes::D, 1) };
    // The native device of version 1 has a fabric, which makes it version 2's first entry.
    let Accept(accept) = accept(&mut pair, &both);
    let Body::Smcd(smcd) = accept.body else { panic!("{accept:?}") };
    assert!(matches!(accept.contact, Contact::V2 { .. }));
    assert_eq!((smcd.gid.gid, smcd.chid), (2, Chid(1)));
}

// row 23
#[test]
fn version_1_is_taken_where_version_2_has_no_eid() {
    let mut pair = native();
    let mut both = Proposal { v2: proposal().v2, ..version_1(Modes::D, 1) };
    both.v2.as_mut().unwrap().ueids = [ueid("OTHER").eid()].into_iter().collect();
    let Accept(accept) = accept(&mut pair, &both);
    assert_eq!(accept.contact, Contact::V1 { first: true });
}

// row 11
#[test]
fn a_client_of_version_1_alone_is_served() {
    let mut pair = native();
    let proposal = Proposal { version: Version::V1, ..version_1(Modes::D, 1) };
    let Accept(accept) = accept(&mut pair, &proposal);
    assert_eq!(accept.contact, Contact::V1 { first: true });
    let Body::Smcd(smcd) = accept.body else { panic!("{accept:?}") };
    assert_eq!((smcd.gid.gid, smcd.gid.ext, smcd.chid), (2, 0, Chid(0)));
}

// row 24
#[test]
fn version_1_needs_a_subnet_of_the_same_length() {
    let addresses =
        [([10, 0, 0, 7], 24, true), ([10, 0, 0, 7], 25, false), ([10, 0, 1, 7], 24, false)];
    for (ip, prefix_len, same) in addresses {
        let mut pair = native();
        let mut at = interface(2);
        at.addresses = vec![Address { ip: ip.into(), prefix_len }];
        pair.ends[1].endpoint.set_interface(at);
        if same {
            accept(&mut pair, &version_1(Modes::D, 1));
        } else {
            let diagnosis = declines(&mut pair, &version_1(Modes::D, 1));
            assert_eq!(diagnosis, Diagnosis::DIFFPREFIX);
        }
    }
}

// row 24
#[test]
fn any_of_the_clients_ipv6_subnets_will_do() {
    let ours: [(&str, bool); 3] = [("fd00:7::5", true), ("fd00:8::5", false), ("fe80::5", false)];
    for (ip, same) in ours {
        let mut pair = native();
        let mut at = interface(2);
        at.addresses = vec![Address { ip: ip.parse().unwrap(), prefix_len: 32 }];
        pair.ends[1].endpoint.set_interface(at);
        let mut proposal = version_1(Modes::D, 1);
        let prefixes = &mut proposal.v1.as_mut().unwrap().prefixes;
        for subnet in ["fd00:6::", "fd00:7::", "fe80::"] {
            let subnet = subnet.parse().unwrap();
            prefixes.v6.push(smc_wire::clc::PrefixV6 { subnet, len: 32 });
        }
        let stream = pair.propose(&proposal);
        assert_eq!(pair.outcome(1, stream).is_none(), same, "{ip}");
    }
}

// row 25
#[test]
fn version_2_crosses_subnets() {
    let mut pair = Pair::ism();
    let mut at = interface(2);
    at.addresses = vec![Address { ip: [192, 168, 0, 2].into(), prefix_len: 16 }];
    pair.ends[1].endpoint.set_interface(at);
    accept(&mut pair, &proposal());
}

// row 27
#[test]
fn the_clients_first_eid_that_is_known_is_taken() {
    let mut pair = Pair::ism();
    let mut config = config();
    config.eids.add(ueid("SECOND")).unwrap();
    pair.ends[1].endpoint.configure(config).unwrap();
    let mut proposal = proposal();
    let offered = ["UNKNOWN", "SECOND", "SMCV2-TEST-UEID"].map(|name| ueid(name).eid());
    proposal.v2.as_mut().unwrap().ueids = offered.into_iter().collect();
    let Accept(accept) = accept(&mut pair, &proposal);
    let Contact::V2 { eid, .. } = accept.contact else { panic!("{accept:?}") };
    assert_eq!(eid, ueid("SECOND").eid());
}

// row 27
#[test]
fn the_systems_eid_comes_before_those_of_users() {
    let system = Eid(*b"IBM-SYSZ-ISMSEID0000000012345678");
    for (ours, enabled, theirs, taken) in [
        (Some(system), true, Some(system), true),
        (Some(system), false, Some(system), false),
        (Some(system), true, None, false),
        (None, true, Some(system), false),
        (Some(Eid([b'X'; 32])), true, Some(system), false),
    ] {
        let mut pair = Pair::ism();
        let mut config = match ours {
            Some(system) => Config::default().with_system_eid(system),
            None => Config::default(),
        };
        config.eids.add(ueid("SMCV2-TEST-UEID")).unwrap();
        let switched = config.eids.enable_system(enabled);
        assert_eq!(switched.is_ok(), ours.is_some());
        pair.ends[1].endpoint.configure(config).unwrap();
        let mut proposal = proposal();
        proposal.v2.as_mut().unwrap().smcd.as_mut().unwrap().seid = theirs;
        let Accept(accept) = accept(&mut pair, &proposal);
        let Contact::V2 { eid, .. } = accept.contact else { panic!("{accept:?}") };
        assert_eq!(eid == system, taken, "{ours:?} {theirs:?}");
    }
}

// row 28
#[test]
fn an_emulated_device_without_its_second_entry_is_passed_over() {
    let mut pair = Pair::ism();
    let mut proposal = version_2_smcd(&[]);
    let smcd = proposal.v2.as_mut().unwrap().smcd.as_mut().unwrap();
    smcd.entries.push(smc_wire::clc::IsmEntry { gid: 0xA001, chid: CHID });
    assert_eq!(declines(&mut pair, &proposal), Diagnosis::NOSMCD2DEV);
    let smcd = proposal.v2.as_mut().unwrap().smcd.as_mut().unwrap();
    assert!(smcd.push(IsmGid { gid: 0xA001, ext: 0xB001 }, CHID));
    // Three entries: the first two pair, as in Linux, and name nobody.
    assert_eq!(declines(&mut pair, &proposal), Diagnosis::NOSMCD2DEV);
}

// row 28
#[test]
fn all_128_bits_of_an_emulated_gid_are_asked_for() {
    let mut pair = Pair::ism();
    pair.propose(&proposal());
    let asked = pair.ends[1].log.iter().find_map(|wish| match wish {
        Wish::QueryRemoteGid { gid, vlan, .. } => Some((*gid, *vlan)),
        _ => None,
    });
    assert_eq!(asked, Some((IsmGid { gid: 0xA001, ext: 0xB001 }, 0x1FFF)));
}

#[test]
fn the_next_device_is_tried_where_one_has_no_room() {
    let mut pair = native();
    with_emulated(&mut pair);
    let emulated = (IsmGid { gid: 0xA001, ext: 0xB001 }, CHID);
    let proposal = version_2_smcd(&[(IsmGid { gid: 1, ext: 0 }, Chid(1)), emulated]);
    // Both buffers of 64 KiB and their three smaller sizes.
    let sizes = 3;
    pair.ends[1].faults.register.extend(vec![RegisterError::Refused; sizes]);
    let Accept(accept) = accept(&mut pair, &proposal);
    let Body::Smcd(smcd) = accept.body else { panic!("{accept:?}") };
    assert_eq!(smcd.chid, CHID);
}

/// A proposal of SMC-R alone, in version 2 or 1.
fn smcr(v2: bool) -> Proposal {
    let mut proposal = version_1(Modes::R, 0);
    if v2 {
        proposal.v1 = None;
        proposal.v2 = self::proposal().v2;
        let offer = proposal.v2.as_mut().unwrap();
        (offer.smcd, offer.smcr) = (None, Some(smcr_offer([10, 0, 0, 1])));
    }
    proposal
}

// row 18
#[test]
fn a_server_says_why_it_takes_nothing() {
    let without_eids = |mut proposal: Proposal| {
        proposal.v2.as_mut().unwrap().ueids.clear();
        proposal
    };
    let nowhere = |pair: &mut Pair| pair.ends[1].endpoint.remove_interface(IF);
    let elsewhere = |pair: &mut Pair| {
        let mut at = interface(2);
        at.addresses.clear();
        pair.ends[1].endpoint.set_interface(at);
    };
    let none = |_: &mut Pair| {};
    let unreachable = |pair: &mut Pair| pair.ends[1].faults.unreachable = true;
    let full = |pair: &mut Pair| {
        // Send buffers of the three sizes are had, DMBs not.
        pair.ends[1].endpoint.remove_ism(pair.now, DeviceId(1));
        pair.ends[1].endpoint.add_ism(IsmDevice { mapped: true, ..ism(2) });
        pair.ends[1].faults.register.extend(vec![RegisterError::NoSpace; 3]);
    };
    let poor = |pair: &mut Pair| {
        pair.ends[1].faults.register.extend(vec![RegisterError::Refused; 3]);
    };
    type Case<'a> = (&'a dyn Fn() -> Pair, &'a dyn Fn(&mut Pair), Proposal, Diagnosis);
    let ipsec = |pair: &mut Pair| pair.ends[1].route.ipsec = true;
    let cases: [Case; 14] = [
        (&Pair::bare, &none, proposal(), Diagnosis::NOISM2SUPP),
        (&Pair::ism, &none, without_eids(proposal()), Diagnosis::NOUEID),
        (&Pair::ism, &none, without_eids(smcr(true)), Diagnosis::NOUEID),
        (&Pair::ism, &unreachable, proposal(), Diagnosis::NOSMCD2DEV),
        (&Pair::ism, &nowhere, smcr(true), Diagnosis::GETVLANERR),
        (&Pair::ism, &elsewhere, version_1(Modes::D, 1), Diagnosis::DIFFPREFIX),
        (&Pair::ism, &none, version_1(Modes::D, 1), Diagnosis::NOSMCDDEV),
        (&Pair::ism, &none, smcr(true), Diagnosis::NOSMCRDEV),
        (&Pair::ism, &none, smcr(false), Diagnosis::NOSMCDEV),
        (&Pair::ism, &full, proposal(), Diagnosis::MAX_DMB),
        (&Pair::ism, &poor, proposal(), Diagnosis::MEM),
        (&Pair::ism, &ipsec, proposal(), Diagnosis::IPSEC),
        (&native, &unreachable, version_1(Modes::D, 1), Diagnosis::NOSMCDDEV),
        // First NOSMCD2DEV is stored, then DIFFPREFIX; what is told last is the prefix's.
        (&Pair::ism, &elsewhere, both_differ(), Diagnosis::DIFFPREFIX),
    ];
    for (n, (pair, fault, proposal, diagnosis)) in cases.into_iter().enumerate() {
        let mut pair = pair();
        fault(&mut pair);
        assert_eq!(declines(&mut pair, &proposal), diagnosis, "case {n}");
        assert_eq!(pair.ends[1].endpoint.groups().infos().count(), 0, "case {n}");
    }
}

// row 18
#[test]
fn of_several_reasons_the_first_is_told() {
    let mut pair = Pair::ism();
    let mut proposal = proposal();
    proposal.v1 = Some(offer_v1(Modes::D));
    // Version 2 has no buffer, then version 1 no device.
    pair.ends[1].faults.register.extend(vec![RegisterError::Refused; 3]);
    assert_eq!(declines(&mut pair, &proposal), Diagnosis::MEM);
    assert_eq!(declines(&mut Pair::bare(), &proposal), Diagnosis::NOSMCDDEV);
}

#[test]
fn a_device_is_tried_once_though_two_of_the_clients_reach_it() {
    let mut pair = Pair::ism();
    let [one, two] = [0xB001, 0xB00F].map(|ext| (IsmGid { gid: 0xA001, ext }, CHID));
    pair.ends[0].endpoint.add_ism(IsmDevice { id: DeviceId(7), gid: two.0, ..ism(1) });
    pair.ends[1].faults.register.extend(vec![RegisterError::Refused; 3]);
    let diagnosis = declines(&mut pair, &version_2_smcd(&[one, two]));
    assert_eq!(diagnosis, Diagnosis::MEM);
    let queries = pair.ends[1].log.iter();
    let queries = queries.filter(|wish| matches!(wish, Wish::QueryRemoteGid { .. }));
    assert_eq!(queries.count(), 1);
}

/// Neither version 2's device can be reached nor is the subnet the same, and SMC-R is offered too.
fn both_differ() -> Proposal {
    let mut proposal = version_2_smcd(&[(IsmGid { gid: 0xDEAD, ext: 0 }, CHID)]);
    proposal.v1 = Some(offer_v1(Modes::Both));
    proposal
}

// row 18
#[test]
fn eids_that_differ_have_no_reason_of_their_own() {
    let mut pair = Pair::ism();
    let mut proposal = proposal();
    proposal.v2.as_mut().unwrap().ueids = [ueid("OTHER").eid()].into_iter().collect();
    assert_eq!(declines(&mut pair, &proposal), Diagnosis::NOSMCDDEV);
    proposal.v2.as_mut().unwrap().smcr = Some(smcr_offer([10, 0, 0, 1]));
    assert_eq!(declines(&mut pair, &proposal), Diagnosis::NOSMCDEV);
}

// row 18
#[test]
fn a_vlan_that_the_device_refuses() {
    let mut pair = native();
    let mut at = interface(2);
    at.vlan = 5;
    pair.ends[1].endpoint.set_interface(at);
    pair.ends[1].faults.no_vlan = true;
    assert_eq!(declines(&mut pair, &version_1(Modes::D, 1)), Diagnosis::ISMVLANERR);
}

#[test]
fn a_version_that_is_switched_off_is_not_taken() {
    let mut config = config();
    config.smcd = Versions::NONE;
    let mut pair = Pair::of([self::config(), config]);
    with_emulated(&mut pair);
    assert_eq!(declines(&mut pair, &proposal()), Diagnosis::NOISM2SUPP);
}
