// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random interleavings, losses and bytes.
//!
//! Invariant: whatever happens, nothing panics, each command is answered once, and the ends agree when
//! they have come to rest.

use std::time::Duration;

use proptest::prelude::*;
use smc_proto::id::BufferId;
use smc_proto::smcr::Wish;
use smc_wire::llc::{DeleteReason, Version};

use crate::fabric::World;
use crate::host::{CLIENT, Options, SERVER, Side, port};

#[derive(Debug, Clone)]
enum Act {
    Step(usize),
    Pass(u64),
    Port(Side, u8, bool),
    Cut(u8, u8, bool),
    Share(Side, u32),
    Unshare(Side, u32),
    Delete(Side, usize),
    FailQp(Side),
    Garbage(Side, usize, Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    let side = 0..2usize;
    let n = 1..3u8;
    let up = proptest::bool::weighted(0.7);
    let cut = proptest::bool::weighted(0.3);
    prop_oneof![
        60 => any::<usize>().prop_map(Act::Step),
        4 => (1..3000u64).prop_map(Act::Pass),
        3 => (side.clone(), n.clone(), up).prop_map(|(s, n, up)| Act::Port(s, n, up)),
        1 => (n.clone(), n, cut).prop_map(|(a, b, cut)| Act::Cut(a, b, cut)),
        4 => (side.clone(), 1..4u32).prop_map(|(s, b)| Act::Share(s, b)),
        4 => (side.clone(), 1..4u32).prop_map(|(s, b)| Act::Unshare(s, b)),
        1 => (side.clone(), 0..3usize).prop_map(|(s, l)| Act::Delete(s, l)),
        1 => side.prop_map(Act::FailQp),
    ]
}

fn garbage() -> impl Strategy<Value = Act> {
    let kind = prop_oneof![0u8..0x10, 0x20u8..0x30, Just(0xFE)];
    let flags = prop_oneof![Just(0u8), Just(0x80), any::<u8>()];
    let rest = prop_oneof![
        proptest::collection::vec(0u8..4, 40..200),
        proptest::collection::vec(any::<u8>(), 0..200)
    ];
    (0..2usize, 0..3usize, kind, flags, rest).prop_map(|(side, link, kind, flags, rest)| {
        let mut bytes = vec![kind, 44, 0, flags];
        bytes.extend(rest);
        Act::Garbage(side, link, bytes)
    })
}

/// Commands for buffers and their answers.
#[derive(Default)]
struct Ledger {
    asked: [usize; 2],
}

fn apply(world: &mut World, ledger: &mut Ledger, act: &Act) {
    let now = world.now;
    match act {
        Act::Step(pick) => {
            world.step(Some(*pick));
        }
        Act::Pass(ms) => {
            let end = now.after(Duration::from_millis(*ms));
            if !world.tick(end) {
                world.now = end;
            }
        }
        &Act::Port(side, n, up) => world.set_port(side, n, up),
        &Act::Cut(a, b, cut) => {
            let pair = (port(SERVER, a).device, port(CLIENT, b).device);
            if cut {
                world.cut.insert(pair);
            } else {
                world.cut.remove(&pair);
            }
        }
        &Act::Share(side, buffer) => {
            let taken = world.group(side).share_rmb(now, BufferId(buffer)).is_ok();
            ledger.asked[side] += usize::from(taken);
            world.pump(side);
        }
        &Act::Unshare(side, buffer) => {
            let taken = world.group(side).unshare_rmb(now, BufferId(buffer)).is_ok();
            ledger.asked[side] += usize::from(taken);
            world.pump(side);
        }
        &Act::Delete(side, nth) => {
            let link = world.hosts[side].group.links().nth(nth).map(|link| link.id);
            if let Some(link) = link {
                world.group(side).delete_link(now, link, DeleteReason::OPERATOR);
                world.pump(side);
            }
        }
        &Act::FailQp(side) => world.hosts[side].fail_qp = true,
        Act::Garbage(side, nth, bytes) => {
            let link = world.hosts[*side].group.links().nth(*nth).map(|link| link.id);
            if let Some(link) = link {
                world.group(*side).handle_recv(now, link, bytes);
                world.pump(*side);
            }
        }
    }
}

/// All works again, and a long time passes.
fn come_to_rest(world: &mut World) {
    world.cut.clear();
    for side in [SERVER, CLIENT] {
        world.hosts[side].fail_qp = false;
        world.hosts[side].up = [1, 2].map(|n| port(side, n).device).into();
    }
    world.run_for(Duration::from_secs(200));
}

/// Answers to commands for buffers; the first RMB's is one.
fn answers(world: &World, side: Side) -> usize {
    let told = world.hosts[side].told.iter();
    told.filter(|wish| matches!(wish, Wish::BufferReady { .. } | Wish::BufferFree { .. })).count()
}

fn check(world: &mut World, ledger: &Ledger) {
    for side in [SERVER, CLIENT] {
        assert_eq!(answers(world, side), ledger.asked[side] + 1, "answers of side {side}");
        assert!(world.group(side).is_gone() || world.group(side).is_quiet());
        let contact =
            |wish: &&Wish| matches!(wish, Wish::FirstContactDone | Wish::FirstContactFailed(_));
        assert_eq!(world.hosts[side].told.iter().filter(contact).count(), 1);
    }
    let gone = [SERVER, CLIENT].map(|side| world.hosts[side].group.is_gone());
    assert_eq!(gone[0], gone[1], "one side is gone, the other is not");
    if gone == [false, false] {
        world.check_agreement();
    }
    for (side, gone) in gone.into_iter().enumerate() {
        assert!(!gone || world.hosts[side].qps.is_empty(), "queue pairs of a group that is gone");
    }
    for stream in &world.streams {
        assert!(!stream.aborted, "the receiver missed what had completed");
        assert!(stream.killed || stream.is_done());
    }
}

fn options(version: u8, server: bool, client: bool) -> Options {
    let ports = |two| -> &[u8] { if two { &[1, 2] } else { &[1] } };
    let version = if version == 1 { Version::V1 } else { Version::V2 };
    Options::new(version, ports(server), ports(client))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // rows 62, 68: whatever happens to links and ports meanwhile
    #[test]
    fn ends_agree_when_they_have_come_to_rest(
        version in 1..3u8,
        server in any::<bool>(),
        client in any::<bool>(),
        early in any::<bool>(),
        acts in proptest::collection::vec(act(), 0..250),
    ) {
        let options = options(version, server, client);
        let mut world = World::new(&options);
        world.start();
        if !early {
            world.run_for(Duration::from_secs(5));
            for side in [SERVER, CLIENT] {
                world.share(side, BufferId(100));
            }
            for side in [SERVER, CLIENT] {
                world.send(side, BufferId(100), 4000);
            }
        }
        let mut ledger = Ledger { asked: if early { [0; 2] } else { [1; 2] } };
        for act in &acts {
            apply(&mut world, &mut ledger, act);
        }
        come_to_rest(&mut world);
        check(&mut world, &ledger);
    }

    // Bytes that nobody sent, in any state: at worst the group ends.
    #[test]
    fn no_bytes_make_a_group_panic(
        version in 1..3u8,
        acts in proptest::collection::vec(prop_oneof![act(), garbage()], 0..150),
    ) {
        let mut world = World::new(&options(version, true, true));
        world.start();
        let mut ledger = Ledger::default();
        for act in &acts {
            apply(&mut world, &mut ledger, act);
        }
        come_to_rest(&mut world);
        for side in [SERVER, CLIENT] {
            prop_assert_eq!(answers(&world, side), ledger.asked[side] + 1);
            prop_assert!(world.hosts[side].group.links().count() <= 3);
        }
    }
}
