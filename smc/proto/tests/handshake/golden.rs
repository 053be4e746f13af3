// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One endpoint in the place of a captured Linux: it gets what the other Linux sent and must answer,
//! byte for byte, what the one it stands for did.

use smc_golden::Golden;
use smc_proto::endpoint::Endpoint;
use smc_proto::group::RegisterError;
use smc_proto::handshake::inventory::{Address, PortGid, RoceVersion};
use smc_proto::handshake::pnet::{Named, PnetId};
use smc_proto::id::DeviceId;
use smc_wire::clc::{AcceptConfirm, Message};
use smc_wire::id::Ueid;

use crate::stand_in::{ETH0, NOW, StandIn, messages};

/// Changes what the inputs say, which is how the scenario ended.
type Prepare = fn(&mut StandIn);

fn stand_in(scenario: &str, handshakes: usize, established: usize) {
    stand_in_as(scenario, handshakes, established, |_| {});
}

fn stand_in_as(scenario: &str, handshakes: usize, established: usize, prepare: Prepare) {
    for side in ["client", "server"] {
        let messages = messages(scenario, handshakes);
        let mut end = StandIn::new(scenario, side, &messages);
        prepare(&mut end);
        end.replay(&messages);
        assert_eq!(end.established, established, "{scenario} {side}");
    }
}

// rows 5, 12, 14
#[test]
fn smcd_version_2() {
    stand_in("smcd-pair", 3, 3);
}

// row 27
#[test]
fn smcd_with_several_ueids() {
    stand_in("smcd-two-ueids", 2, 2);
}

#[test]
fn smcd_strangers_decline() {
    stand_in("smcd-strangers", 1, 0);
}

// rows 5, 13, 14, 16
#[test]
fn smcr_version_2() {
    stand_in("smcr-v2", 3, 3);
}

// row 34
#[test]
fn smcr_version_2_with_limits() {
    stand_in("smcr-v2-limits", 2, 2);
}

// rows 5, 13
#[test]
fn smcr_version_1() {
    stand_in("smcr-v1", 3, 3);
}

fn ueids(end: &mut StandIn, names: &[&str]) {
    let mut config = end.endpoint.config().clone();
    config.eids.flush();
    for name in names {
        config.eids.add(Ueid::new(name).unwrap()).unwrap();
    }
    end.endpoint.configure(config).unwrap();
}

fn without_port(end: &mut StandIn) {
    end.endpoint.remove_port(NOW, DeviceId(9));
}

/// The capture began before the port was there, which names the host for good.
fn never_a_port(end: &mut StandIn) {
    let interface = end.endpoint.inventory().interface(ETH0).cloned().unwrap();
    end.endpoint = Endpoint::new(end.endpoint.config().clone()).unwrap();
    end.endpoint.set_interface(interface);
}

/// The loopback is a device of version 1 of the network that TCP's interface is in.
fn loopback_of_version_1(end: &mut StandIn) {
    let mut config = end.endpoint.config().clone();
    let id = PnetId::new("NET1").unwrap();
    config.pnet.add(Named::Interface("eth0".into()), id).unwrap();
    config.pnet.add(Named::Device { name: "lo".into(), port: 1 }, id).unwrap();
    end.endpoint.configure(config).unwrap();
    let mut interface = end.endpoint.inventory().interface(ETH0).cloned().unwrap();
    interface.addresses = vec![Address { ip: [127, 0, 0, 1].into(), prefix_len: 8 }];
    end.endpoint.set_interface(interface);
}

// row 12
#[test]
fn smcd_version_1_in_a_group_of_version_2() {
    let all = messages("smcd-v1", usize::MAX);
    let of = |steps: &[&str]| {
        let is = |it: &&Golden| {
            let step = it.note("step").unwrap();
            steps.iter().any(|wanted| step.starts_with(wanted))
        };
        all.iter().filter(is).cloned().collect::<Vec<_>>()
    };
    let first = of(&["the GID query forced to succeed"]);
    let later = of(&["without a UEID", "the client connects again"]);
    let mut end = StandIn::new("smcd-v1", "server", &[first.clone(), later.clone()].concat());
    loopback_of_version_1(&mut end);
    ueids(&mut end, &["VHOST-USER-ISM"]);
    end.replay(&first);
    ueids(&mut end, &[]);
    end.replay(&later);
    assert_eq!(end.established, 3);
}

// row 24
#[test]
fn smcd_version_1_of_another_subnet() {
    let mut messages = messages("smcd-v1", usize::MAX);
    messages.retain(|it| it.note("step").unwrap().starts_with("the server sees another prefix"));
    let mut end = StandIn::new("smcd-v1", "server", &messages);
    loopback_of_version_1(&mut end);
    let mut interface = end.endpoint.inventory().interface(ETH0).cloned().unwrap();
    interface.addresses.clear();
    end.endpoint.set_interface(interface);
    end.replay(&messages);
}

/// Two RoCE ports of one network; the capture lost the server's second one before its end.
fn two_ports(end: &mut StandIn) {
    let mut config = end.endpoint.config().clone();
    let id = PnetId::new("NET1").unwrap();
    config.pnet.add(Named::Interface("eth0".into()), id).unwrap();
    for name in ["rxe0", "rxe1"] {
        config.pnet.add(Named::Device { name: name.into(), port: 1 }, id).unwrap();
    }
    end.endpoint.configure(config).unwrap();
    let last = if end.side == "client" { 12 } else { 11 };
    let mac = end.second.unwrap();
    let mut port = end.endpoint.inventory().ports()[0].clone();
    (port.id, port.adapter, port.mac) = (DeviceId(10), "rxe1".into(), mac);
    port.gids = vec![PortGid {
        gid: crate::craft::gid_of([10, 77, 0, last]),
        version: RoceVersion::V2,
        interface: ETH0,
    }];
    end.endpoint.set_port(NOW, port);
}

// row 16
#[test]
fn smcr_with_two_ports() {
    stand_in_as("smcr-v2-two-ports", 4, 4, two_ports);
}

// row 72
#[test]
fn smcr_through_a_gateway() {
    stand_in("smcr-v2-routed", 2, 2);
}

// row 23
#[test]
fn smcr_offered_in_both_versions() {
    stand_in_as("smcr-versions", 1, 1, |end| {
        ueids(end, &["VHOST-USER-ISM"]);
        let mut port = end.endpoint.inventory().ports()[0].clone();
        let v1 = port.gids.clone().into_iter().filter(|it| it.gid.0.starts_with(&[0; 10]));
        let v1: Vec<_> = v1.map(|it| PortGid { version: RoceVersion::V1, ..it }).collect();
        port.gids.extend(v1);
        end.endpoint.set_port(NOW, port);
    });
}

// rows 17, 18
#[test]
fn a_server_declines_what_linux_declines() {
    let cases: [(&str, &str, Prepare); 9] = [
        ("smcd-declines", "the client has no UEID", |_| {}),
        ("smcd-declines", "the client has another UEID", |_| {}),
        ("smcd-declines", "the server has no UEID", |it| ueids(it, &[])),
        ("smcd-v1", "the only device is one of version 1", |it| {
            ueids(it, &["VHOST-USER-ISM"]);
            it.reachable = false;
        }),
        ("smcr-v1-declines", "the client's prefix has another length", |_| {}),
        ("smcr-v1-declines", "the server has no RoCE device", without_port),
        ("smcr-v2-declines", "the server has no RoCE device", never_a_port),
        ("smcr-v2-declines", "the server has another UEID", |it| ueids(it, &["OTHER"])),
        ("smcr-v2-declines", "the server does not find the network device", |it| {
            it.endpoint.remove_interface(ETH0);
        }),
    ];
    for (scenario, step, prepare) in cases {
        let mut messages = messages(scenario, usize::MAX);
        messages.retain(|it| it.note("step").unwrap().starts_with(step));
        assert_eq!(messages.len(), 2, "{scenario}: {step}");
        let mut end = StandIn::new(scenario, "server", &messages);
        prepare(&mut end);
        end.replay(&messages);
    }
}

fn without_buffers(end: &mut StandIn, error: RegisterError) {
    end.no_buffer = Some(error);
    // The capture's function fails where the receive buffer is had, too.
    let mut devices: Vec<_> = end.endpoint.inventory().ism().to_vec();
    for device in &mut devices {
        end.endpoint.remove_ism(NOW, device.id);
        device.mapped = true;
        end.endpoint.add_ism(device.clone());
    }
}

// row 18
#[test]
fn an_end_without_buffers_declines_as_linux_does() {
    let cases: [(&str, &'static str, &str, RegisterError); 6] = [
        ("smcd-declines", "client", "the client has no DMB left", RegisterError::NoSpace),
        ("smcd-declines", "server", "the server has no DMB left", RegisterError::NoSpace),
        ("smcd-declines", "client", "the client has no memory for a DMB", RegisterError::Refused),
        ("smcd-declines", "server", "the server has no memory for a DMB", RegisterError::Refused),
        ("smcr-v2-declines", "client", "the client has no memory", RegisterError::Refused),
        ("smcr-v2-declines", "server", "the server has no memory", RegisterError::Refused),
    ];
    for (scenario, side, step, error) in cases {
        let mut messages = messages(scenario, usize::MAX);
        messages.retain(|it| it.note("step").unwrap().starts_with(step));
        // Those SMC-D captures have a group already; that a group begins is no part of a Decline.
        for golden in &mut messages {
            if let Ok(Message::Accept(mut accept)) = Message::parse(&golden.bytes) {
                begin_group(&mut accept.0);
                let mut bytes = [0; 700];
                let len = Message::Accept(accept).emit(&mut bytes).unwrap();
                golden.bytes = bytes[..len].to_vec();
            }
        }
        let mut end = StandIn::new(scenario, side, &messages);
        without_buffers(&mut end, error);
        end.replay(&messages);
        assert_eq!(end.established, 0);
    }
}

fn begin_group(accept: &mut AcceptConfirm) {
    if let smc_wire::clc::Contact::V2 { first, .. } = &mut accept.contact {
        first.get_or_insert_with(|| crate::craft::first(1));
    }
}
