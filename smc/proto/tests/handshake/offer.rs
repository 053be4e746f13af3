// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a client proposes.

use smc_proto::handshake::inventory::{Address, IsmDevice};
use smc_proto::handshake::pnet::{Named, PnetId};
use smc_proto::handshake::reason::Failure;
use smc_proto::id::DeviceId;
use smc_wire::clc::{Diagnosis, Modes, Proposal};
use smc_wire::id::{Chid, IsmGid};

use crate::pair::{IF, Outcome, Pair, config, interface, ism};

fn device(n: u32, chid: u16) -> IsmDevice {
    let gid = IsmGid { gid: n.into(), ext: u64::from(n) << 8 };
    IsmDevice { id: DeviceId(n), gid, chid: Chid(chid), name: format!("ism{n}"), ..ism(1) }
}

fn offered(pair: &mut Pair) -> Vec<(u64, u16)> {
    let smcd = pair.offer().1.unwrap().v2.unwrap().smcd.unwrap();
    smcd.devices().map(|(gid, chid)| (gid.gid, chid.0)).collect()
}

// row 30
#[test]
fn a_fabric_is_offered_once() {
    let mut pair = Pair::bare();
    for n in 1..=3 {
        pair.ends[0].endpoint.add_ism(device(n, if n == 3 { 0xFF02 } else { 0xFF01 }));
    }
    assert_eq!(offered(&mut pair), [(3, 0xFF02), (2, 0xFF01)]);
}

// row 29
#[test]
fn four_emulated_devices_are_offered_at_most() {
    let mut pair = Pair::bare();
    for n in 1..=5 {
        pair.ends[0].endpoint.add_ism(device(n, 0xFF00 + n as u16));
    }
    assert_eq!(offered(&mut pair), [(5, 0xFF05), (4, 0xFF04), (3, 0xFF03), (2, 0xFF02)]);
}

// row 29
#[test]
fn a_native_device_takes_the_line_that_is_too_small_for_an_emulated_one() {
    let mut pair = Pair::bare();
    for n in (1..=6).rev() {
        let chid = if n == 2 || n == 6 { n as u16 } else { 0xFF00 + n as u16 };
        pair.ends[0].endpoint.add_ism(device(n, chid));
    }
    let expected = [(1, 0xFF01), (2, 2), (3, 0xFF03), (4, 0xFF04), (6, 6)];
    assert_eq!(offered(&mut pair), expected);
}

// row 31
#[test]
fn loopback_comes_first_whenever_it_was_added() {
    for loopback_first in [false, true] {
        let mut pair = Pair::bare();
        let mut devices = [device(1, 0xFF01), device(2, 0xFFFF)];
        if loopback_first {
            devices.reverse();
        }
        for device in devices {
            pair.ends[0].endpoint.add_ism(device);
        }
        assert_eq!(offered(&mut pair), [(2, 0xFFFF), (1, 0xFF01)]);
    }
}

// row 32
#[test]
fn a_device_with_a_pnetid_is_offered_under_version_2_only_if_an_interface_has_it_by_hardware() {
    let id = PnetId::new("net1").unwrap();
    let mut config = config();
    let named = Named::Device { name: "ism1".into(), port: 1 };
    config.pnet.add(named, id).unwrap();
    let mut pair = Pair::of([config.clone(), config]);
    pair.ends[0].endpoint.add_ism(device(1, 0xFF01));
    pair.ends[0].endpoint.add_ism(device(2, 0xFF02));
    assert_eq!(offered(&mut pair), [(2, 0xFF02)]);
    let with_hardware = smc_proto::handshake::inventory::Interface {
        id: smc_proto::handshake::inventory::InterfaceId(9),
        pnetid: Some(id),
        ..interface(9)
    };
    pair.ends[0].endpoint.set_interface(with_hardware);
    assert_eq!(offered(&mut pair), [(2, 0xFF02), (1, 0xFF01)]);
}

/// A pair whose client's device and interface are of the same network by the table.
fn one_network() -> Pair {
    let id = PnetId::new("NET1").unwrap();
    let mut config = config();
    config.pnet.add(Named::Device { name: "ism1".into(), port: 1 }, id).unwrap();
    config.pnet.add(Named::Interface("eth0".into()), id).unwrap();
    let mut pair = Pair::of([config.clone(), config]);
    pair.ends[0].endpoint.add_ism(device(1, 0x0001));
    pair
}

fn v1_modes(proposal: &Proposal) -> Option<Modes> {
    proposal.v1.as_ref().map(|v1| v1.modes)
}

// row 32
#[test]
fn the_device_of_the_interfaces_network_is_offered_under_version_1() {
    let proposal = one_network().offer().1.unwrap();
    let ism = proposal.ism.unwrap();
    assert_eq!((ism.gid, ism.chid), (1, Chid(1)));
    assert_eq!(v1_modes(&proposal), Some(Modes::D));
    // For version 2 it serves too, so the list is empty.
    assert_eq!(proposal.v2.unwrap().smcd.unwrap().entries.len(), 0);
}

// row 24
#[test]
fn version_1_names_the_subnet_and_goes_without_one() {
    let mut pair = one_network();
    let prefixes = pair.offer().1.unwrap().v1.unwrap().prefixes;
    assert_eq!((prefixes.v4.subnet, prefixes.v4.len), ([10, 0, 0, 0].into(), 24));
    let elsewhere = Address { ip: [192, 168, 0, 1].into(), prefix_len: 16 };
    let mut at = interface(1);
    at.addresses = vec![elsewhere];
    pair.ends[0].endpoint.set_interface(at);
    let (stream, _) = pair.offer();
    // As in Linux the device of version 1 is then offered nowhere: an empty list of version 2.
    assert_eq!(pair.outcome(0, stream), None);
    let last = pair.offer().1.unwrap();
    assert_eq!(v1_modes(&last), None);
}

// row 24
#[test]
fn an_ipv6_client_names_eight_subnets_that_are_not_link_local() {
    let mut pair = one_network();
    let v6 = |n: u16| Address {
        ip: std::net::Ipv6Addr::new(0xFD00, n, 0, 0, 0, 0, 0, 1).into(),
        prefix_len: 32,
    };
    let local = Address { ip: "fe80::1".parse().unwrap(), prefix_len: 64 };
    let mut at = interface(1);
    at.addresses = std::iter::once(local).chain((0..9).map(v6)).collect();
    pair.ends[0].endpoint.set_interface(at);
    pair.ends[0].route.local = "fd00::1".parse().unwrap();
    let prefixes = pair.offer().1.unwrap().v1.unwrap().prefixes;
    let subnets: Vec<_> = prefixes.v6.iter().map(|it| it.subnet.segments()[1]).collect();
    assert_eq!(subnets, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(prefixes.v6.iter().all(|it| it.len == 32));
}

// row 18
#[test]
fn a_client_without_anything_to_offer_declines() {
    let mut pair = Pair::bare();
    let (stream, proposal) = pair.offer();
    assert!(proposal.is_none());
    assert_eq!(pair.declined(0, stream), Diagnosis::NOSMCDEV);
}

// row 18
#[test]
fn version_1_alone_without_a_subnet_is_a_configuration_error() {
    let mut pair = one_network();
    let mut config = pair.ends[0].endpoint.config().clone();
    config.smcd.v2 = false;
    pair.ends[0].endpoint.configure(config).unwrap();
    let mut at = interface(1);
    at.addresses.clear();
    pair.ends[0].endpoint.set_interface(at);
    let (stream, _) = pair.offer();
    assert_eq!(pair.declined(0, stream), Diagnosis::CNFERR);
}

#[test]
fn without_an_interface_only_ism_version_2_is_offered() {
    let mut pair = Pair::ism();
    pair.ends[0].endpoint.remove_interface(IF);
    let proposal = pair.offer().1.unwrap();
    assert_eq!(v1_modes(&proposal), None);
    assert_eq!(proposal.v2.unwrap().modes(), Some(Modes::D));
}

#[test]
fn a_device_that_refuses_the_vlan_is_not_offered_under_version_1() {
    for refused in [false, true] {
        let mut pair = one_network();
        let mut at = interface(1);
        at.vlan = 7;
        pair.ends[0].endpoint.set_interface(at);
        pair.ends[0].endpoint.add_ism(device(2, 0xFF02));
        pair.ends[0].faults.no_vlan = refused;
        let proposal = pair.offer().1.unwrap();
        assert_eq!(v1_modes(&proposal), (!refused).then_some(Modes::D));
        assert_eq!(proposal.v2.unwrap().modes(), Some(Modes::D));
    }
}

// row 29
#[test]
fn a_device_that_found_no_line_cannot_be_chosen() {
    let mut pair = Pair::bare();
    for n in 1..=5 {
        pair.ends[0].endpoint.add_ism(device(n, 0xFF00 + n as u16));
    }
    let (stream, _) = pair.offer();
    let mut accept = crate::craft::accept();
    let smc_wire::clc::Body::Smcd(body) = &mut accept.body else { panic!() };
    body.chid = Chid(0xFF01);
    pair.inject_accept(stream, accept);
    let lie = Failure::Lie("Accept.chid");
    assert_eq!(pair.outcome(0, stream), Some(Outcome::Dead(lie)));
}

#[test]
fn smc_r_version_2_needs_a_ueid() {
    for ueids in [true, false] {
        let mut pair = Pair::roce();
        if !ueids {
            pair.ends[0].endpoint.configure(smc_proto::config::Config::default()).unwrap();
        }
        let proposal = pair.offer().1.unwrap();
        assert_eq!(v1_modes(&proposal), Some(Modes::R));
        assert_eq!(proposal.v2.is_some(), ueids);
    }
}

// row 32
#[test]
fn the_hardwares_pnetid_comes_before_the_tables() {
    let [one, two] = ["NET1", "NET2"].map(|name| PnetId::new(name).unwrap());
    for (hardware, offered) in [(Some(two), 2), (None, 1)] {
        let mut config = config();
        config.pnet.add(Named::Interface("eth0".into()), one).unwrap();
        config.pnet.add(Named::Device { name: "ism1".into(), port: 1 }, one).unwrap();
        config.pnet.add(Named::Device { name: "ism2".into(), port: 1 }, two).unwrap();
        let mut pair = Pair::of([config.clone(), config]);
        for n in [1, 2] {
            pair.ends[0].endpoint.add_ism(device(n, n as u16));
        }
        let at = smc_proto::handshake::inventory::Interface { pnetid: hardware, ..interface(1) };
        pair.ends[0].endpoint.set_interface(at);
        assert_eq!(pair.offer().1.unwrap().ism.unwrap().gid, offered);
    }
}

// row 32
#[test]
fn a_stacked_interface_has_its_base_devices_network_and_for_roce_its_own() {
    let id = PnetId::new("NET1").unwrap();
    for (named, ism, roce) in [("eth0", true, true), ("vlan0", false, true)] {
        let mut config = config();
        config.pnet.add(Named::Interface(named.into()), id).unwrap();
        config.pnet.add(Named::Device { name: "ism1".into(), port: 1 }, id).unwrap();
        config.pnet.add(Named::Device { name: "rxe1".into(), port: 1 }, id).unwrap();
        let mut pair = Pair::of([config.clone(), config]);
        let end = &mut pair.ends[0];
        end.endpoint.add_ism(device(1, 1));
        let mut port = crate::fabric::port(1, 1);
        port.interface = None;
        end.endpoint.set_port(pair.now, port);
        let upper = smc_proto::handshake::inventory::InterfaceId(20);
        let stacked = smc_proto::handshake::inventory::Interface {
            id: upper,
            name: "vlan0".into(),
            base: Some(IF),
            ..interface(1)
        };
        end.endpoint.set_interface(stacked);
        end.route.interface = Some(upper);
        let modes = v1_modes(&pair.offer().1.unwrap());
        assert_eq!(modes, Modes::of(roce, ism), "{named}");
    }
}
