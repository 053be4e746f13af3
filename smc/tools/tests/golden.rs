// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Answers of a real kernel (Linux 7.3.4, x86-64, SMC over its own loopback device, with iperf3
//! running over SMC-D on IPv6 and fallen back to TCP on IPv4; two of them from a VM with a
//! virtio-ism device), and what becomes of damaged ones.

use smc_tools::eid::{Eid, Seid};
use smc_tools::fallback::{Fallbacks, Side};
use smc_tools::linkgroup::{Device, Gid, LinkGroup};
use smc_tools::netlink::{Attributes, Malformed, Messages};
use smc_tools::socket::{Buffers, Carrier, Dmbs, Socket};
use smc_tools::stats;
use smc_tools::system::System;

const GENERIC_HEADER: usize = 4;
const LOOPBACK: Gid = Gid { gid: 0xad47_096e_8248_4f7a, ext: 0xb0dc_02a3_5cd6_6840 };

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Parses a datagram of the SMC family as the client does.
fn generic<T>(
    datagram: &[u8],
    parse: impl Fn(&Attributes<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    Messages::new(datagram)
        .map(|message| {
            let payload = message?.payload.get(GENERIC_HEADER..).ok_or(Malformed::Length)?;
            parse(&Attributes::parse(payload)?)
        })
        .collect()
}

fn sockets(datagram: &[u8]) -> Result<Vec<Socket>, Malformed> {
    Messages::new(datagram).map(|message| Socket::parse(message?.payload)).collect()
}

// row 81: what the kernel said is read
#[test]
fn system() {
    let found = generic(&bytes(include_str!("golden/info.hex")), System::parse).unwrap();
    let expected = System {
        version: 2,
        release: 1,
        host: "(none)".into(),
        seid: String::new(),
        smcd_v2: true,
        smcr_v2: true,
    };
    assert_eq!(found, [expected]);
}

#[test]
fn eids() {
    let found = generic(&bytes(include_str!("golden/ueid.hex")), Eid::parse).unwrap();
    assert_eq!(found, ["VHOST-USER-ISM"]);
    let found = generic(&bytes(include_str!("golden/seid.hex")), Seid::parse).unwrap();
    assert_eq!(found, [Seid { seid: String::new(), enabled: false }]);
}

// row 81: what the kernel said is read
#[test]
fn link_groups() {
    let found = generic(&bytes(include_str!("golden/linkgroup.hex")), LinkGroup::parse).unwrap();
    let server = LinkGroup {
        id: 0x100,
        version: 2,
        release: 1,
        gid: LOOPBACK,
        peer_gid: LOOPBACK,
        chid: 0xffff,
        vlan: 0,
        connections: 4,
        pnetid: String::new(),
        eid: "VHOST-USER-ISM".into(),
        peer_host: "(none)".into(),
        peer_os: 2,
        send_buffer_bytes: 0,
        dmb_bytes: 262_144,
        process: None,
    };
    assert_eq!(found[0], server);
    assert_eq!((found[1].id, found[1].connections, found[1].dmb_bytes), (0x200, 0, 65_536));
    assert_eq!(found.len(), 2);
}

/// Between two VMs over virtio-ism: fabric 0xff01, and another device at the other end.
#[test]
fn a_link_group_to_another_vm() {
    let golden = bytes(include_str!("golden/linkgroup-virtio-ism.hex"));
    let found = generic(&golden, LinkGroup::parse).unwrap();
    let [group] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((group.chid, group.connections), (0xff01, 2));
    assert_eq!(group.gid.to_string(), "0x7fb3afc899c359a4:bcdeec85449e1f27");
    assert_eq!(group.peer_gid.to_string(), "0x83457f297529587c:a6179e9fc369fa24");
    assert_eq!((group.send_buffer_bytes, group.dmb_bytes), (0x22_0000, 0x22_0000));
}

// row 81: what the kernel said is read
#[test]
fn devices() {
    let found = generic(&bytes(include_str!("golden/device.hex")), Device::parse).unwrap();
    let expected = Device {
        fid: 0,
        pci_id: "0000:00:03.0".into(),
        pci_chid: 0,
        vendor: 0x1af4,
        device: 0x1066,
        link_groups: 1,
        in_use: true,
        pnetid: String::new(),
        pnetid_by_user: false,
        process: None,
    };
    assert_eq!(found, [expected]);
}

// row 81: what the kernel said is read
#[test]
fn stats() {
    let found = generic(&bytes(include_str!("golden/stats.hex")), stats::parse).unwrap();
    let [stats] = found.as_slice() else { panic!("{found:?}") };
    let (smcd, rx, tx) = (&stats.smcd, &stats.smcd.rx, &stats.smcd.tx);
    assert_eq!((smcd.client_v2, smcd.server_v2, smcd.connections()), (5, 5, 10));
    assert_eq!((smcd.client_v1, smcd.server_v1, stats.smcr.connections()), (0, 0, 0));
    assert_eq!((rx.bytes, rx.requests), (2_526_022_383, 119_342));
    assert_eq!((tx.bytes, tx.requests), (2_526_022_383, 119_435));
    assert_eq!(rx.request_sizes.0, [75_880, 4_281, 648, 38_531, 0, 0, 0, 0, 0]);
    assert_eq!(tx.request_sizes.0, [75_866, 4_278, 648, 0, 38_643, 0, 0, 0, 0]);
    assert_eq!(rx.buffer_sizes.0, [0, 0, 0, 10, 0, 0, 0, 0, 0]);
    assert_eq!((rx.buffers_allocated, rx.buffers_reused, rx.buffer_bytes), (5, 5, 262_144));
    assert_eq!((rx.buffer_too_small, rx.buffer_full), (1_164, 2_284));
    assert_eq!((tx.peer_buffer_too_small, tx.buffer_too_small), (38_644, 38_644));
    assert_eq!((tx.buffer_full, tx.peer_buffer_full, smcd.nodelay), (35_919, 0, 5));
}

// row 81: what the kernel said is read
#[test]
fn fallbacks() {
    let found = generic(&bytes(include_str!("golden/fallback.hex")), Fallbacks::parse).unwrap();
    let all = Fallbacks::collect(found);
    assert_eq!((all.server, all.client), (0, 4));
    let [reason] = all.reasons.as_slice() else { panic!("{all:?}") };
    assert_eq!((reason.side, reason.code, reason.count), (Side::Client, 0x0301_0000, 4));
    assert_eq!(reason.name, "PEERNOSMC");
}

// row 81: what the kernel said is read
#[test]
fn sockets_of_every_kind() {
    let found = sockets(&bytes(include_str!("golden/sockets.hex"))).unwrap();
    assert_eq!(found.len(), 8);
    let tcp = &found[0];
    assert_eq!((tcp.state_name(), tcp.local), ("ACTIVE", "10.9.9.9:46874".parse().unwrap()));
    assert_eq!(tcp.peer, "10.9.9.9:6000".parse().unwrap());
    assert_eq!(tcp.carrier, Carrier::Tcp { reason: 0x0301_0000, peer_diagnosis: 0 });
    let listening = &found[2];
    assert_eq!(
        (listening.state_name(), listening.inode, &listening.carrier),
        ("LISTEN", 1129, &Carrier::None)
    );
    assert_eq!(listening.local, "127.0.0.1:5000".parse().unwrap());
    let smcd = &found[3];
    assert_eq!(smcd.local, "[::1]:5201".parse().unwrap());
    assert_eq!(smcd.peer, "[::1]:42738".parse().unwrap());
    let dmbs = Dmbs {
        link_group: 0x100,
        gid: LOOPBACK,
        peer_gid: LOOPBACK,
        token: 0x708e_b0fc_146f_b593,
        peer_token: 0x3fff_3d6a_28df_6c32,
    };
    assert_eq!(smcd.carrier, Carrier::Smcd { dmbs: Some(dmbs) });
    let buffers = Buffers { send: 65_504, receive: 65_504, peer_receive: 65_504 };
    assert_eq!(smcd.buffers, Some(buffers));
}

#[test]
fn what_is_printed_as_json_can_be_read_back() {
    let found = sockets(&bytes(include_str!("golden/sockets.hex"))).unwrap();
    let json = serde_json::to_string(&found).unwrap();
    assert!(json.contains(r#""token":"0x708eb0fc146fb593""#), "{json}");
    assert_eq!(serde_json::from_str::<Vec<Socket>>(&json).unwrap(), found);
    let groups = generic(&bytes(include_str!("golden/linkgroup.hex")), LinkGroup::parse).unwrap();
    let json = serde_json::to_string(&groups).unwrap();
    assert_eq!(serde_json::from_str::<Vec<LinkGroup>>(&json).unwrap(), groups);
}

/// Every shortening and every change of one byte is an answer or an error, never a panic.
#[test]
fn damaged_answers_are_survived() {
    fn damage(golden: &str, parse: impl Fn(&[u8]) -> bool) {
        let golden = bytes(golden);
        assert!(parse(&golden));
        let refused = (1..golden.len()).filter(|&cut| !parse(&golden[..cut])).count();
        assert!(refused > golden.len() / 2, "most shortenings are noticed");
        for at in 0..golden.len() {
            for value in [0, 1, 3, 0x7f, 0x80, 0xff] {
                let mut damaged = golden.clone();
                damaged[at] = value;
                parse(&damaged);
            }
        }
    }
    damage(include_str!("golden/info.hex"), |b| generic(b, System::parse).is_ok());
    damage(include_str!("golden/ueid.hex"), |b| generic(b, Eid::parse).is_ok());
    damage(include_str!("golden/seid.hex"), |b| generic(b, Seid::parse).is_ok());
    damage(include_str!("golden/linkgroup.hex"), |b| generic(b, LinkGroup::parse).is_ok());
    damage(include_str!("golden/device.hex"), |b| generic(b, Device::parse).is_ok());
    damage(include_str!("golden/stats.hex"), |b| generic(b, stats::parse).is_ok());
    damage(include_str!("golden/fallback.hex"), |b| generic(b, Fallbacks::parse).is_ok());
    damage(include_str!("golden/sockets.hex"), |b| sockets(b).is_ok());
}
