// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How handshakes end otherwise: time, TCP, lost groups and devices, missing buffers.

use std::time::Duration;

use smc_proto::endpoint::{Late, Wish};
use smc_proto::group::{self, RegisterError};
use smc_proto::handshake::inventory::{Interface, IsmDevice};
use smc_proto::handshake::reason::{Failure, Kind};
use smc_proto::id::{ConnId, DeviceId};
use smc_wire::clc::{Diagnosis, Message};

use crate::craft::{accept, proposal};
use crate::pair::{Outcome, Pair, interface, ism};

const SECOND: Duration = Duration::from_secs(1);

/// Begins a handshake whose peer says nothing: which end's, and on which stream.
type Begin = fn(&mut Pair) -> (usize, usize);

// rows 21, 22
#[test]
fn a_silent_peer_is_waited_for_six_seconds_and_there_is_no_fallback() {
    let silent: [(Begin, Kind); 3] = [
        (|pair| (0, pair.offer().0), Kind::Accept),
        (|pair| (1, pair.propose(&proposal())), Kind::Confirm),
        (
            |pair| {
                pair.offer();
                let conn = pair.ends[1].endpoint.accept(pair.now, &pair.ends[1].route.clone());
                pair.streams[0].conns[1] = Some(conn);
                pair.streams[0].bytes[1].clear();
                (1, 0)
            },
            Kind::Proposal,
        ),
    ];
    for (begin, kind) in silent {
        let mut pair = Pair::ism();
        let (n, stream) = begin(&mut pair);
        let due = pair.ends[n].endpoint.poll_timeout();
        assert_eq!(due, Some(pair.now.after(6 * SECOND)));
        pair.pass(6 * SECOND - Duration::from_nanos(1));
        assert_eq!(pair.outcome(n, stream), None);
        pair.pass(Duration::from_nanos(1));
        assert_eq!(pair.outcome(n, stream), Some(Outcome::Dead(Failure::Timeout(kind))));
        assert_eq!(pair.ends[n].endpoint.poll_timeout(), None);
        assert_eq!(pair.ends[n].endpoint.groups().infos().count(), 0);
        let stats = pair.ends[n].endpoint.stats();
        let errors = [stats.client_handshake_errors, stats.server_handshake_errors];
        assert_eq!(errors[n], 1);
    }
}

// row 22
#[test]
fn the_end_of_tcp_ends_a_handshake_at_any_step() {
    for step in 0..4 {
        let mut pair = Pair::ism();
        let stream = pair.begin();
        for _ in 0..step {
            for n in [0, 1] {
                while let Some(wish) = pair.ends[n].endpoint.poll_wish() {
                    pair.carry_out(n, wish);
                }
            }
            let bytes = std::mem::take(&mut pair.streams[stream].bytes);
            for (n, bytes) in bytes.into_iter().enumerate() {
                let conn = pair.streams[stream].conns[n].unwrap();
                pair.ends[n].endpoint.handle_clc(pair.now, conn, &bytes);
            }
        }
        let server = pair.streams[stream].conns[1].unwrap();
        pair.ends[1].endpoint.handle_tcp_end(pair.now, server);
        pair.run();
        let outcome = pair.outcome(1, stream);
        let expected = if step < 3 {
            Some(Outcome::Dead(Failure::Reset))
        } else {
            outcome.clone().filter(|it| matches!(it, Outcome::Smc(_)))
        };
        assert_eq!(outcome, expected, "step {step}");
        assert!(expected.is_some(), "step {step}");
    }
}

// row 20
#[test]
fn payload_behind_a_message_stays_in_the_stream() {
    let mut pair = Pair::ism();
    pair.tamper = Some(Box::new(|from, message| {
        let confirm = matches!(Message::parse(message), Ok(Message::Confirm(_)));
        if from == 0 && confirm {
            message.extend(b"payload");
        }
    }));
    pair.establish();
    assert_eq!(pair.streams[0].bytes[1], b"payload");
}

// row 20
#[test]
fn a_message_in_pieces_is_taken_when_it_is_whole() {
    let mut pair = Pair::ism();
    let (stream, proposal) = pair.offer();
    assert!(proposal.is_some());
    let mut bytes = [0; 700];
    let len = Message::Accept(smc_wire::clc::Accept(accept())).emit(&mut bytes).unwrap();
    let conn = pair.streams[stream].conns[0].unwrap();
    for there in 0..len {
        let taken = pair.ends[0].endpoint.handle_clc(pair.now, conn, &bytes[..there]);
        assert_eq!(taken, 0);
        assert!(pair.ends[0].endpoint.expects_clc(conn));
    }
    let taken = pair.ends[0].endpoint.handle_clc(pair.now, conn, &bytes);
    assert_eq!(taken, len);
    assert!(!pair.ends[0].endpoint.expects_clc(conn));
}

// row 18
#[test]
fn peers_that_are_not_smc_capable_and_ipsec() {
    let mut pair = Pair::ism();
    for end in &mut pair.ends {
        end.route.smc = false;
    }
    assert_eq!(pair.fall_back(), [Diagnosis::PEERNOSMC; 2]);
    assert!(pair.sent(0).is_empty() && pair.sent(1).is_empty());
    let stats = pair.ends[0].endpoint.stats();
    assert_eq!(stats.fallbacks.client.total(), 1);
}

// row 33
#[test]
fn ipsec_on_either_side_declines() {
    let expected =
        [[Diagnosis::IPSEC, Diagnosis::PEERDECL], [Diagnosis::PEERDECL, Diagnosis::IPSEC]];
    for (n, expected) in expected.into_iter().enumerate() {
        let mut pair = Pair::ism();
        pair.ends[n].route.ipsec = true;
        assert_eq!(pair.fall_back(), expected);
    }
}

// rows 18, 48
#[test]
fn a_client_that_gets_no_buffer_declines() {
    let cases = [
        (RegisterError::NoSpace, true, Diagnosis::MAX_DMB),
        (RegisterError::Refused, true, Diagnosis::MEM),
        (RegisterError::Refused, false, Diagnosis::MEM),
    ];
    for (error, mapped, diagnosis) in cases {
        let mut pair = Pair::mapped([mapped, false]);
        pair.ends[0].faults.register.extend(vec![error; 3]);
        assert_eq!(pair.fall_back(), [diagnosis, Diagnosis::PEERDECL]);
        assert!(pair.establish().iter().all(|end| end.first_contact));
    }
}

// row 48
#[test]
fn a_smaller_buffer_is_announced_where_the_first_size_fails() {
    let mut pair = Pair::mapped([true, true]);
    pair.ends[0].faults.register.extend(vec![RegisterError::NoSpace; 2]);
    let [client, server] = pair.establish();
    assert_eq!(client.receive.size.bytes(), 16384);
    assert_eq!(server.params.peer_ring.len(), 16384 - 32);
}

// rows 18, 22
#[test]
fn a_dmb_that_cannot_be_attached_declines_on_the_client_and_fails_on_the_server() {
    let mut pair = Pair::mapped([true, false]);
    pair.ends[0].faults.no_attach = true;
    assert_eq!(pair.fall_back(), [Diagnosis::MEM, Diagnosis::PEERDECL]);
    let mut pair = Pair::mapped([false, true]);
    pair.ends[1].faults.no_attach = true;
    let [client, server] = pair.connect();
    assert_eq!(server, Outcome::Dead(Failure::Attach));
    assert!(matches!(client, Outcome::Smc(_)));
}

#[test]
fn an_attachment_that_comes_too_late_is_undone() {
    late_attachment(|pair, conn| {
        pair.ends[0].endpoint.handle_tcp_end(pair.now, conn);
        pair.run();
    });
}

#[test]
fn an_attachment_of_a_device_that_goes_is_undone() {
    late_attachment(|pair, _| pair.ends[0].endpoint.remove_ism(pair.now, DeviceId(1)));
}

/// Something happens before the answer of an attachment; it is detached.
fn late_attachment(happens: impl FnOnce(&mut Pair, ConnId)) {
    let mut pair = Pair::mapped([true, false]);
    let stream = pair.begin();
    let conn = pair.streams[stream].conns[0].unwrap();
    let mut attach = None;
    while attach.is_none() {
        for n in [0, 1] {
            while let Some(wish) = pair.ends[n].endpoint.poll_wish() {
                match wish {
                    Wish::Attach { device, token, .. } => attach = Some((device, token)),
                    wish => pair.carry_out(n, wish),
                }
            }
            let bytes = std::mem::take(&mut pair.streams[stream].bytes[n]);
            let name = pair.streams[stream].conns[n].unwrap();
            pair.ends[n].endpoint.handle_clc(pair.now, name, &bytes);
        }
    }
    happens(&mut pair, conn);
    let (device, token) = attach.unwrap();
    pair.ends[0].endpoint.handle_attached(pair.now, conn, device, token, Some(65536));
    pair.run();
    assert!(pair.ends[0].log.contains(&Wish::Detach { device, token }));
}

// row 57
#[test]
fn a_device_that_goes_aborts_connections_and_handshakes() {
    let mut pair = Pair::ism();
    let [client, _] = pair.establish();
    pair.ends[0].faults.hold_buffers = true;
    let stream = pair.begin();
    pair.run();
    assert_eq!(pair.outcome(0, stream), None);
    pair.ends[0].endpoint.remove_ism(pair.now, DeviceId(1));
    pair.run();
    let aborted = pair.ends[0].outcomes.get(&client.conn);
    assert!(matches!(aborted, Some(Outcome::Aborted { tell_peer: true })), "{aborted:?}");
    assert_eq!(pair.outcome(0, stream), Some(Outcome::Dead(Failure::GroupGone)));
    pair.ends[0].endpoint.add_ism(IsmDevice { id: DeviceId(2), ..ism(1) });
}

#[test]
fn a_second_handshake_waits_for_the_first_contact_with_the_same_peer() {
    let mut pair = Pair::ism();
    pair.ends[0].faults.hold_buffers = true;
    let (first, second) = (pair.begin(), pair.begin());
    pair.run();
    // The first client has its Accept and waits for buffers; the second server waits for the first.
    let accepts =
        |pair: &Pair| pair.sent(1).iter().filter(|it| matches!(it, Message::Accept(_))).count();
    assert_eq!(accepts(&pair), 1);
    pair.ends[0].faults.hold_buffers = false;
    let held: Vec<_> = pair.ends[0].log.clone();
    for wish in held.into_iter().filter(|it| matches!(it, Wish::Group(_))) {
        pair.carry_out(0, wish);
    }
    pair.run();
    for (stream, is_first) in [(first, true), (second, false)] {
        for n in [0, 1] {
            let Some(Outcome::Smc(established)) = pair.outcome(n, stream) else {
                panic!("{stream}: {:?}", pair.outcome(n, stream))
            };
            assert_eq!(established.first_contact, is_first);
        }
    }
}

#[test]
fn a_first_contact_is_not_waited_for_longer_than_a_second() {
    let mut pair = Pair::ism();
    pair.propose(&proposal());
    pair.propose(&proposal());
    let accepts = |pair: &Pair| pair.sent(1).len();
    assert_eq!(accepts(&pair), 1);
    pair.pass(SECOND);
    assert_eq!(accepts(&pair), 2);
}

#[test]
fn a_released_handshake_gives_everything_back() {
    let mut pair = Pair::ism();
    let stream = pair.propose(&proposal());
    let conn = pair.streams[stream].conns[1].unwrap();
    pair.release(1, conn);
    assert_eq!(pair.outcome(1, stream), None);
    assert_eq!(pair.ends[1].endpoint.handshakes(), 0);
    assert_eq!(pair.ends[1].endpoint.groups().infos().count(), 0);
    assert_eq!(pair.ends[1].endpoint.poll_timeout(), None);
}

#[test]
fn outcomes_that_nobody_asked_for_do_not_stop_the_clock() {
    let mut pair = Pair::ism();
    let (client, _) = pair.offer();
    let server = pair.propose(&proposal());
    for (n, stream) in [(0, client), (1, server)] {
        let conn = pair.streams[stream].conns[n].unwrap();
        let (now, end) = (pair.now, &mut pair.ends[n].endpoint);
        let due = end.poll_timeout();
        end.handle_remote_gid(now, conn, true);
        end.handle_next_hop(now, conn, None);
        end.handle_attached(now, conn, DeviceId(1), Default::default(), Some(65536));
        assert_eq!(end.poll_timeout(), due);
        assert!(end.expects_clc(conn));
    }
}

#[test]
fn no_dmb_is_asked_for_that_is_larger_than_the_devices_largest() {
    let mut pair = Pair::bare();
    for n in [0, 1] {
        let max_dmb = 32768;
        pair.ends[n].endpoint.add_ism(IsmDevice { max_dmb, ..ism(n as u64 + 1) });
    }
    let ends = pair.establish();
    assert!(ends.iter().all(|end| end.receive.size.bytes() == 32768));
    let counted = &pair.ends[0].endpoint.stats().smcd.rx;
    assert_eq!((counted.buffers_allocated, counted.buffers_downgraded), (1, 0));
}

#[test]
fn a_buffer_that_a_lost_peer_may_still_write_is_not_used_again() {
    let mut pair = Pair::ism();
    let [_, server] = pair.establish();
    let stream = pair.propose(&proposal());
    let conn = pair.streams[stream].conns[1].unwrap();
    pair.ends[1].endpoint.handle_tcp_end(pair.now, conn);
    pair.run();
    let freed = |wish: &Wish| matches!(wish, Wish::Group(group::Wish::Free { .. }));
    assert_eq!(pair.ends[1].log.iter().filter(|it| freed(it)).count(), 2);
    let groups: Vec<_> = pair.ends[1].endpoint.groups().infos().map(|it| it.id).collect();
    assert_eq!(groups, [server.group]);
}

#[test]
fn a_vlan_is_left_when_its_last_group_ends() {
    let mut pair = Pair::ism();
    for (n, end) in pair.ends.iter_mut().enumerate() {
        let vlan = Interface { vlan: 9, ..interface(n as u8 + 1) };
        end.endpoint.set_interface(vlan);
    }
    for (n, end) in pair.establish().iter().enumerate() {
        pair.release(n, end.conn);
    }
    let added = Wish::Group(group::Wish::AddVlan { device: DeviceId(1), vlan: 9 });
    let removed = Wish::Group(group::Wish::RemoveVlan { device: DeviceId(1), vlan: 9 });
    assert!(pair.ends[0].log.contains(&added));
    assert!(!pair.ends[0].log.contains(&removed));
    pair.pass(600 * SECOND);
    assert!(pair.ends[0].log.contains(&removed));
}

// row 18
#[test]
fn declines_that_cross_are_not_taken_for_data() {
    let mut pair = crate::smcr::version_2(1);
    pair.fabric.faults[1].mute = true;
    // The server's Decline stays under way until the client has given up too.
    pair.tamper = Some(Box::new(|from, message| {
        if from == 1 && matches!(Message::parse(message), Ok(Message::Decline(_))) {
            message.clear();
        }
    }));
    let stream = pair.begin();
    pair.run();
    for _ in 0..12 {
        pair.pass(SECOND);
    }
    for n in [0, 1] {
        let skips = |wish: &Wish| matches!(wish, Wish::Fallback { late: Late::Decline, .. });
        assert!(pair.ends[n].log.iter().any(skips), "end {n}: {:?}", pair.outcome(n, stream));
        let crossing = pair.ends[1 - n].log.iter().rev().find_map(|wish| match wish {
            Wish::SendClc { message, .. } => Some(message.to_vec()),
            _ => None,
        });
        let mut bytes = crossing.unwrap();
        assert!(matches!(Message::parse(&bytes), Ok(Message::Decline(_))));
        let len = bytes.len();
        let late = Late::Decline;
        assert!((1..len).all(|some| late.len_in(&bytes[..some]).is_none()));
        bytes.extend(b"data");
        assert_eq!(late.len_in(&bytes), Some(len));
        assert_eq!(late.len_in(&bytes[len..]), Some(0));
        assert_eq!(Late::Nothing.len_in(&bytes), Some(0));
    }
    // A side that was declined skips nothing.
    let mut pair = Pair::ism();
    pair.ends[1].faults.unreachable = true;
    pair.connect();
    let skips = |n: usize| {
        pair.ends[n].log.iter().find_map(|wish| match wish {
            Wish::Fallback { late, .. } => Some(*late),
            _ => None,
        })
    };
    assert_eq!([0, 1].map(skips), [Some(Late::Nothing), Some(Late::Decline)]);
}
