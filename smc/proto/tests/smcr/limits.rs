// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of connections, links and RMBs; byte order; what is dropped.

use smc_proto::id::{BufferId, ConnId};
use smc_proto::smcr::{BufferError, JoinError, Received, Redundancy, Rtoken};
use smc_wire::id::{Mac, Qpn, Rkey, RoceGid};
use smc_wire::llc::{Body, Message, Version};

use crate::fabric::World;
use crate::host::{CLIENT, Options, SERVER};

// row 71
#[test]
fn server_takes_255_connections_without_negotiation() {
    let mut world = World::connected(&Options::new(Version::V1, &[1, 2], &[1, 2]));
    let group = world.group(SERVER);
    (0..255).for_each(|n| assert!(group.join(ConnId(n)).is_ok()));
    assert_eq!(group.join(ConnId(255)), Err(JoinError::Full(255)));
    group.leave(ConnId(7));
    assert!(group.join(ConnId(256)).is_ok());
    assert_eq!(group.connections(), 255);
}

// row 71: negotiated in version 2.1, said in CONFIRM LINK
#[test]
fn negotiated_limits_count_from_release_1_on() {
    for (release, conns, links, said) in [(0, 255, 2, (2, 0)), (1, 16, 1, (1, 16))] {
        let mut options = Options::new(Version::V2, &[1, 2], &[1, 2]);
        options.release = release;
        options.max_conns = 16;
        options.max_links = 1;
        let mut world = World::new(&options);
        world.start();
        world.run();
        let done = smc_proto::smcr::Wish::FirstContactDone;
        assert!(world.told(CLIENT, &done), "with one link there is no offer to wait for");
        let Body::ConfirmLink(confirm) = Message::parse(&world.frames[0].bytes).unwrap().body
        else {
            panic!("no CONFIRM LINK")
        };
        assert_eq!((confirm.max_links, confirm.max_conns), said);
        assert_eq!(world.active(SERVER).len(), links);
        let taken = (0..300).take_while(|&n| world.group(SERVER).join(ConnId(n)).is_ok()).count();
        assert_eq!(taken, conns);
        if links == 1 {
            world.set_port(SERVER, 2, true);
            world.set_port(CLIENT, 2, true);
            world.run();
            assert_eq!(world.group(SERVER).redundancy(), Redundancy::Single);
        }
    }
}

// row 71: with all 255 RMBs of the peer known, the server makes another group
#[test]
fn there_are_255_rmbs_each_way() {
    let mut world = World::connected(&Options::new(Version::V2, &[1], &[1]));
    let now = world.now;
    for n in 1..255 {
        world.group(CLIENT).share_rmb(now, BufferId(n)).unwrap();
    }
    assert_eq!(world.group(CLIENT).share_rmb(now, BufferId(255)), Err(BufferError::Full));
    world.pump(CLIENT);
    world.run();
    assert_eq!(world.group(SERVER).rtoken_count(), 255);
    assert_eq!(world.group(SERVER).join(ConnId(1)), Err(JoinError::Full(255)));
    let link = world.active(SERVER)[0].id;
    let more = Rtoken { rkey: Rkey(5), vaddr: 5 };
    assert_eq!(world.group(SERVER).add_rtoken(link, more), None);
    world.check_agreement();
    // All of them fit into one ADD LINK.
    world.set_port(SERVER, 2, true);
    world.set_port(CLIENT, 2, true);
    world.run();
    assert_eq!(world.group(SERVER).redundancy(), Redundancy::Symmetric);
    world.check_agreement();
}

// row 71: an idle RMB makes room for a new one
#[test]
fn idle_rmbs_do_not_count() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1]));
    for n in 1..300 {
        world.share(CLIENT, BufferId(n));
        let now = world.now;
        world.group(CLIENT).unshare_rmb(now, BufferId(n)).unwrap();
        world.pump(CLIENT);
        world.run();
    }
    let link = world.active(CLIENT)[0].id;
    let registered =
        (0..300).filter(|&n| world.hosts[CLIENT].group.local_rtoken(BufferId(n), link).is_some());
    assert_eq!(registered.count(), 255);
    assert_eq!(world.group(SERVER).rtoken_count(), 1);
    world.check_agreement();
}

#[test]
fn client_follows_the_server_to_its_link() {
    let mut world = World::connected(&Options::new(Version::V1, &[1, 2], &[1, 2]));
    for link in world.active(SERVER) {
        let (qpn, port, conn) = (link.qp.unwrap().qpn, link.port, ConnId(link.id.0));
        let client = world.group(CLIENT);
        let found = client.join_on(conn, qpn, port.gid, port.mac).unwrap();
        assert_eq!(client.link(found).unwrap().number, link.number);
        assert_eq!(client.find_link(port.gid, port.mac, Some(qpn)), Some(found));
    }
    let client = world.group(CLIENT);
    let nowhere = client.join_on(ConnId(9), Qpn(1), RoceGid([1; 16]), Mac([1; 6]));
    assert_eq!(nowhere, Err(JoinError::NoServerLink));
}

// row 73: lengths and counts of version 2 in the host's order, keys big-endian
#[test]
fn version_2_lengths_are_in_the_hosts_order() {
    let world = World::connected(&Options::new(Version::V2, &[1, 2], &[1, 2]));
    let add = world.frames.iter().find(|frame| frame.bytes[0] == 0x22).unwrap();
    let bytes = &add.bytes;
    assert_eq!(bytes[1..3], u16::try_from(bytes.len()).unwrap().to_ne_bytes());
    assert_eq!(bytes[70..72], 1u16.to_ne_bytes());
    let key = u32::from_be_bytes(bytes[76..80].try_into().unwrap());
    let new = world.active(SERVER)[1].id;
    let token = world.hosts[SERVER].group.local_rtoken(crate::host::FIRST, new).unwrap();
    assert_eq!(key, token.rkey.0);
    assert_eq!(bytes[80..88], token.vaddr.to_be_bytes());
}

// row 74
#[test]
fn unknown_types_are_dropped_silently() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1]));
    let link = world.active(CLIENT)[0].id;
    let frames = world.frames.len();
    for kind in [0x0F, 0x00, 0x05, 0x23, 0x28, 0x7F, 0xFD] {
        let mut bytes = [0; 44];
        bytes[0] = kind;
        bytes[1] = 44;
        assert_eq!(world.inject(CLIENT, link, &bytes), Received::Dropped, "{kind:#x}");
    }
    world.run();
    assert_eq!(world.frames.len(), frames, "nobody answered");
    assert!(world.group(SERVER).is_open());
}

// row 74: a wrong length, or another version than the group's, is dropped in the same way
#[test]
fn malformed_messages_are_dropped_silently() {
    let mut world = World::connected(&Options::new(Version::V1, &[1], &[1]));
    let link = world.active(CLIENT)[0].id;
    let test =
        Message { version: Version::V1, response: false, body: Body::TestLink(Default::default()) };
    let mut bytes = [0; 44];
    test.emit(&mut bytes).unwrap();
    let mut long = bytes;
    long[1] = 45;
    let mut other = [0; 44];
    Message { version: Version::V2, ..test }.emit(&mut other).unwrap();
    for message in [&bytes[..43], &long, &other, &[], &[0xFE], &[0xFE; 44]] {
        assert_eq!(world.inject(CLIENT, link, message), Received::Dropped);
    }
    assert_eq!(world.inject(CLIENT, link, &bytes), Received::Control);
}
