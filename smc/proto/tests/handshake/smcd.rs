// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC-D: first contact, reuse, both kinds of senders.

use std::time::Duration;

use smc_proto::endpoint::{Path, Wish};
use smc_proto::group::{self, Version};
use smc_wire::clc::Message;
use smc_wire::size::BufferSize;

use crate::pair::{Pair, ueid};

fn accepts(pair: &Pair) -> Vec<smc_wire::clc::AcceptConfirm> {
    let accepts = pair.sent(1).into_iter().filter_map(|message| match message {
        Message::Accept(accept) => Some(accept.0),
        _ => None,
    });
    accepts.collect()
}

#[test]
fn first_contact_gives_each_side_the_others_buffer() {
    let mut pair = Pair::ism();
    let [client, server] = pair.establish();
    for (ours, theirs) in [(&client, &server), (&server, &client)] {
        assert!(ours.first_contact);
        assert_eq!(ours.version, Version::V2);
        assert_eq!(ours.eid, Some(ueid("SMCV2-TEST-UEID").eid()));
        assert_eq!(ours.receive.size, BufferSize::covering(65536, BufferSize::MAX));
        let Path::Copied { send, peer, .. } = &ours.path else { panic!("{:?}", ours.path) };
        assert_eq!(send.size.bytes(), 65536);
        assert_eq!(peer.token(), theirs.receive.dmb.token);
        assert_eq!(peer.ring_len(), 65536 - 32);
    }
    assert_eq!(pair.ends[0].endpoint.stats().smcd.client_v2, 1);
    assert_eq!(pair.ends[1].endpoint.stats().smcd.server_v2, 1);
    assert_eq!(pair.ends.each_ref().map(|end| end.endpoint.handshakes()), [0, 0]);
}

#[test]
fn a_later_connection_joins_the_group_and_reuses_what_is_free() {
    let mut pair = Pair::ism();
    let first = pair.establish();
    let second = pair.establish();
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first.group, second.group);
        assert!(!second.first_contact);
        assert_ne!(first.receive.dmb, second.receive.dmb);
    }
    for (n, first) in first.iter().enumerate() {
        pair.release(n, first.conn);
    }
    let third = pair.establish();
    for (first, third) in first.iter().zip(&third) {
        assert_eq!(first.receive.dmb, third.receive.dmb);
    }
    let lens: Vec<_> = accepts(&pair).iter().map(|it| it.contact.is_first()).collect();
    assert_eq!(lens, [true, false, false]);
}

#[test]
fn each_side_decides_for_itself_how_it_sends() {
    for mapped in [[false, true], [true, false], [true, true]] {
        let mut pair = Pair::mapped(mapped);
        let ends = pair.establish();
        for (end, mapped) in ends.iter().zip(mapped) {
            assert_eq!(matches!(end.path, Path::Mapped { .. }), mapped);
        }
    }
}

// row 49
#[test]
fn an_idle_group_ends_after_ten_minutes_and_the_next_connection_is_a_first_contact() {
    let mut pair = Pair::ism();
    for (n, end) in pair.establish().iter().enumerate() {
        pair.release(n, end.conn);
    }
    pair.pass(Duration::from_secs(599));
    assert_eq!(pair.ends[0].endpoint.groups().infos().count(), 1);
    pair.pass(Duration::from_secs(1));
    for end in &pair.ends {
        assert_eq!(end.endpoint.groups().infos().count(), 0);
        let signal = |wish: &Wish| matches!(wish, Wish::Group(group::Wish::Signal { .. }));
        assert!(end.log.iter().any(signal));
    }
    assert!(pair.establish().iter().all(|end| end.first_contact));
}
