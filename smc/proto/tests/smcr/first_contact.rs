// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! First contact: queue pair attributes, CONFIRM LINK, its failures, gateway or not.

use std::time::Duration;

use smc_proto::smcr::qp::{Rtr, Rts};
use smc_proto::smcr::{Redundancy, Wish};
use smc_wire::clc::Diagnosis;
use smc_wire::id::{Mac, Psn};
use smc_wire::llc::{Body, Message, Version};
use smc_wire::size::PathMtu;

use crate::fabric::World;
use crate::host::{CLIENT, FIRST, Options, SERVER, port};

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

fn one_port(version: Version) -> Options {
    Options::new(version, &[1], &[1])
}

/// The first message with a body that `find` takes.
fn body<T>(world: &World, find: impl Fn(&Body) -> Option<T>) -> T {
    let bodies = world.frames.iter().filter_map(|frame| {
        Message::parse(&frame.bytes).ok().and_then(|message| find(&message.body))
    });
    bodies.into_iter().next().unwrap()
}

// row 58
#[test]
fn queue_pairs_have_linuxs_attributes() {
    let world = World::connected(&one_port(Version::V1));
    for side in [SERVER, CLIENT] {
        let link = world.active(side)[0];
        let peer = link.peer.unwrap();
        let qp = &world.hosts[side].qps[&link.id];
        let rtr = Rtr {
            path_mtu: PathMtu::M1024, // the smaller one of 4096 and 1024
            dest_qpn: peer.qpn,
            rq_psn: peer.psn,
            dgid: port(1 - side, 1).gid,
            dmac: port(1 - side, 1).mac,
            hop_limit: 1,
            min_rnr_timer: 5,
            max_dest_rd_atomic: 1,
        };
        assert_eq!(qp.rtr, Some(rtr));
        let sq_psn = qp.own.psn;
        let rts = Rts { sq_psn, timeout: 15, retry_count: 7, rnr_retry: 7, max_rd_atomic: 1 };
        assert_eq!(qp.rts, Some(rts));
        assert_ne!(sq_psn, Psn(0));
        assert_eq!(link.path_mtu(), PathMtu::M1024);
    }
}

// row 58
#[test]
fn client_sends_only_after_the_servers_confirm_link() {
    let mut world = World::new(&one_port(Version::V2));
    world.start();
    let link = world.group(CLIENT).first_link();
    assert!(world.hosts[CLIENT].qp(link).rtr.is_some());
    assert_eq!(world.hosts[CLIENT].qp(link).rts, None);
    world.run();
    assert!(world.hosts[CLIENT].qp(link).rts.is_some());
}

// row 59
// RFC 7609, 3.5.1
#[test]
fn confirm_link_proves_the_first_link() {
    for version in VERSIONS {
        let world = World::connected(&one_port(version));
        assert_eq!(world.talk(0)[..2], ["S CONFIRM LINK", "C CONFIRM LINK!"]);
        let flags: Vec<_> = world.frames[..2].iter().map(|frame| frame.bytes[3]).collect();
        assert_eq!(flags, [0x03, 0x83]);
        let first = body(&world, |body| match body {
            Body::ConfirmLink(confirm) => Some(*confirm),
            _ => None,
        });
        let server = world.active(SERVER)[0];
        assert_eq!((first.link, first.qpn), (1, server.qp.unwrap().qpn));
        assert_eq!((first.max_links, first.max_conns), (2, 0));
        let client = world.active(CLIENT)[0];
        assert_eq!([server.uids[1], server.uids[0]], client.uids);
        assert_eq!(client.number, 1);
        for side in [SERVER, CLIENT] {
            assert_eq!(world.hosts[side].group.redundancy(), Redundancy::Single);
        }
    }
}

// row 59
#[test]
fn peer_with_eyecatchers_is_declined() {
    for deceived in [SERVER, CLIENT] {
        let mut world = World::new(&one_port(Version::V1));
        world.tamper = Some(Box::new(move |from, _, bytes| {
            if from != deceived && bytes[0] == 1 {
                bytes[3] &= !0x03;
            }
            true
        }));
        world.start();
        world.run_for(Duration::from_secs(10));
        assert!(world.told(deceived, &Wish::FirstContactFailed(Diagnosis::RMBE_EC)));
        assert!(world.group(deceived).is_gone());
    }
}

// row 59: one of the flag's two bits is enough
#[test]
fn one_bit_says_no_eyecatchers() {
    let mut world = World::new(&one_port(Version::V1));
    world.tamper = Some(Box::new(|_, _, bytes| {
        if bytes[0] == 1 {
            bytes[3] = bytes[3] & !0x03 | 0x02;
        }
        true
    }));
    world.start();
    world.run_for(Duration::from_secs(10));
    assert!(world.told(SERVER, &Wish::FirstContactDone));
    assert!(world.told(CLIENT, &Wish::FirstContactDone));
}

#[test]
fn silent_peer_ends_first_contact_in_time() {
    for (side, seconds) in [(SERVER, 2), (CLIENT, 4)] {
        let mut world = World::new(&one_port(Version::V2));
        world.tamper = Some(Box::new(|_, _, _| false));
        world.start();
        world.run_for(Duration::from_secs(seconds) - Duration::from_millis(1));
        let failed = Wish::FirstContactFailed(Diagnosis::TIMEOUT_CL);
        assert!(!world.told(side, &failed));
        world.run_for(Duration::from_millis(1));
        assert!(world.told(side, &failed));
        assert!(world.group(side).is_gone(), "a link without a peer is destroyed");
        assert!(world.hosts[side].qps.is_empty());
    }
}

#[test]
fn client_goes_on_with_one_link_if_the_server_offers_none() {
    let mut world = World::new(&one_port(Version::V1));
    world.tamper = Some(Box::new(|_, _, bytes| bytes[0] != 2));
    world.start();
    world.run();
    assert!(!world.told(CLIENT, &Wish::FirstContactDone));
    world.run_for(Duration::from_secs(2));
    assert!(world.told(CLIENT, &Wish::FirstContactDone));
    assert!(world.told(SERVER, &Wish::FirstContactDone));
    world.check_agreement();
}

#[test]
fn queue_pair_that_cannot_be_made_or_connected_declines() {
    let mut world = World::new(&one_port(Version::V2));
    let link = world.group(CLIENT).first_link();
    world.start();
    let now = world.now;
    world.group(CLIENT).handle_qp_failed(now, link);
    world.pump(CLIENT);
    assert!(world.told(CLIENT, &Wish::FirstContactFailed(Diagnosis::ERR_RDYLNK)));

    let params = smc_proto::smcr::Params::new(
        smc_proto::smcr::Role::Server,
        Version::V1,
        [0; 4],
        port(0, 1),
    );
    let mut group = smc_proto::smcr::LinkGroup::new(&params);
    group.handle_qp_created(now, group.first_link(), None);
    let wishes: Vec<_> = std::iter::from_fn(|| group.poll_wish()).collect();
    assert!(wishes.contains(&Wish::FirstContactFailed(Diagnosis::INTERR)), "{wishes:?}");
    assert!(group.is_gone());
}

#[test]
fn first_rmb_needs_no_confirm_rkey() {
    let world = World::connected(&one_port(Version::V2));
    assert!(world.told(CLIENT, &Wish::BufferReady { buffer: FIRST, result: Ok(()) }));
    assert!(!world.talk(0).iter().any(|said| said.contains("RKEY")));
    world.check_agreement();
}

// row 72
#[test]
fn gateway_changes_address_and_hops_in_version_2_only() {
    let gateway = Mac([9; 6]);
    for version in VERSIONS {
        let mut options = one_port(version);
        options.gateway = [Some(gateway); 2];
        let world = World::connected(&options);
        let routed = version == Version::V2;
        for side in [SERVER, CLIENT] {
            let link = world.active(side)[0];
            let rtr = world.hosts[side].qps[&link.id].rtr.unwrap();
            let direct = (port(1 - side, 1).mac, 1);
            assert_eq!((rtr.dmac, rtr.hop_limit), if routed { (gateway, 64) } else { direct });
        }
    }
}

// row 72: ADD LINK says whether the sender reaches the peer directly
#[test]
fn add_link_says_direct_or_not() {
    for gateway in [None, Some(Mac([9; 6]))] {
        let mut options = Options::new(Version::V2, &[1, 2], &[1, 2]);
        options.gateway = [gateway; 2];
        let world = World::connected(&options);
        let direct = body(&world, |body| match body {
            Body::AddLink(add) => add.tail.map(|tail| tail.direct),
            _ => None,
        });
        assert_eq!(direct, gateway.is_none());
        for link in world.active(CLIENT) {
            let rtr = world.hosts[CLIENT].qps[&link.id].rtr.unwrap();
            assert_eq!(rtr.hop_limit, if direct { 1 } else { 64 });
        }
    }
}
