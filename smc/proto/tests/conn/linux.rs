// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A limited sender (SO_SNDBUF) whose peer is Linux, which forgets a request with the next CDC that it sends.
//!
//! Invariant: the model answers as net/smc of Linux 7.3 does, and no more often.

use proptest::prelude::*;
use smc_wire::cdc::{Cursor, ProducerFlags, Smcd};

use crate::world::{A, B, Kind, PLAIN, World, stream};

const RING: u32 = 64 << 10;

/// The SMC-D receiver of Linux, and as much of its sender as it takes to send.
#[derive(Default)]
struct Linux {
    /// What it says (`local_tx_ctrl`), and the consumer cursor that it said last (`rx_curs_confirmed`).
    said: Smcd,
    consumed: u32,
    confirmed: u32,
    produced: u32,
    /// What it has heard (`local_rx_ctrl`, `bytes_to_rcv`).
    heard: Smcd,
    unread: u32,
    /// How many of our CDCs it has seen.
    looked: usize,
}

impl Linux {
    const UPDATE_LIMIT: u32 = RING / 10;

    fn cursor(at: u32) -> Cursor {
        Cursor { wrap: (at / RING) as u16, count: at % RING }
    }

    fn flag(&self, flag: ProducerFlags) -> bool {
        self.heard.flags.contains(flag)
    }

    /// `smcd_cdc_msg_send`
    fn publish(&mut self, world: &mut World) {
        let (prod, cons) = (Self::cursor(self.produced), Self::cursor(self.consumed));
        self.said = Smcd { prod, cons, ..self.said };
        world.ends[A].area = self.said;
        self.confirmed = self.consumed;
        self.heard.flags.set(ProducerFlags::CONSUMER_UPDATE_REQUESTED, false);
    }

    /// `smcd_cdc_rx_tsklet`: a CDC is seen. Where nothing is to be sent, even a request is not answered.
    fn look(&mut self, world: &World) {
        let cdcs = world.ends[A].cdcs.len();
        if std::mem::replace(&mut self.looked, cdcs) == cdcs {
            return;
        }
        let (was, is) = (self.heard.prod, world.ends[B].area);
        let at = |cursor: Cursor| u32::from(cursor.wrap) * RING + cursor.count;
        self.unread += at(is.prod) - at(was);
        self.heard = is;
    }

    /// `smc_rx_recvmsg`, then `smc_tx_consumer_update`
    fn read(&mut self, world: &mut World, n: u32) {
        let n = n.min(self.unread);
        self.unread -= n;
        self.consumed += n;
        let to_confirm = self.consumed - self.confirmed;
        let free = RING - to_confirm - self.unread;
        let worth = to_confirm > Self::UPDATE_LIMIT
            && (free <= RING / 2 || self.flag(ProducerFlags::WRITE_BLOCKED));
        if n > 0 && (self.flag(ProducerFlags::CONSUMER_UPDATE_REQUESTED) || worth) {
            self.publish(world);
        }
        if self.unread == 0 {
            self.heard.flags.set(ProducerFlags::WRITE_BLOCKED, false);
        }
    }

    fn send(&mut self, world: &mut World, n: u32) {
        self.produced += n;
        self.publish(world);
    }

    /// Reads and lets both look until nothing moves.
    fn read_all(&mut self, world: &mut World) {
        for _ in 0..4 {
            self.look(world);
            self.read(world, u32::MAX);
            world.look(A);
        }
    }
}

fn limited_to(limit: u32) -> World {
    let mut world = World::new([Kind::Mapped; 2], (RING, RING));
    world.prompt = false;
    world.conn(A).limit_sending(limit, false);
    world
}

fn room(world: &mut World) -> u32 {
    world.conn(A).send_room().unwrap().total()
}

#[test]
fn a_limit_is_above_what_linux_tells_of_by_itself() {
    let mut world = limited_to(1000);
    assert_eq!(room(&mut world), Linux::UPDATE_LIMIT + 1);
    world.conn(A).limit_sending(20_000, false);
    assert_eq!(room(&mut world), 20_000);
}

#[test]
fn a_limited_writer_goes_on_though_linux_forgot_the_request() {
    let (mut world, mut linux) = (limited_to(1000), Linux::default());
    let all = world.send(A, &stream(0, RING as usize), PLAIN);
    linux.look(&world);
    linux.send(&mut world, 10);
    world.look(A);
    assert_eq!(room(&mut world), 0);
    linux.read(&mut world, RING);
    world.look(A);
    assert_eq!(room(&mut world) as usize, all);
}

#[test]
fn a_limit_that_is_lowered_lets_a_byte_through_that_linux_tells_of() {
    let (mut world, mut linux) = (limited_to(RING), Linux::default());
    world.send(A, &stream(0, 20_000), PLAIN);
    // All is read, and Linux says nothing of it.
    linux.look(&world);
    linux.read(&mut world, RING);
    world.look(A);
    world.conn(A).limit_sending(1000, false);
    assert_eq!(room(&mut world), 1);
    world.send(A, b"x", PLAIN);
    assert_eq!(room(&mut world), 0);
    linux.read_all(&mut world);
    assert!(room(&mut world) > 0);
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Send(u32),
    LinuxLooks,
    LinuxReads(u32),
    LinuxSends(u32),
    Look,
    Read(u32),
    Limit(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let n = 1..20_000u32;
    prop_oneof![
        4 => n.clone().prop_map(Act::Send),
        3 => Just(Act::LinuxLooks),
        3 => n.clone().prop_map(Act::LinuxReads),
        2 => (1..100u32).prop_map(Act::LinuxSends),
        3 => Just(Act::Look),
        1 => n.clone().prop_map(Act::Read),
        1 => n.prop_map(Act::Limit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // row 41
    #[test]
    fn no_limited_writer_waits_for_ever_for_linux(
        limit in 1..20_000u32,
        acts in proptest::collection::vec(act(), 0..100),
    ) {
        let (mut world, mut linux) = (limited_to(limit), Linux::default());
        for act in acts {
            match act {
                Act::Send(n) => _ = world.send(A, &stream(0, n as usize), PLAIN),
                Act::LinuxLooks => linux.look(&world),
                Act::LinuxReads(n) => linux.read(&mut world, n),
                Act::LinuxSends(n) => linux.send(&mut world, n),
                Act::Look => world.look(A),
                Act::Read(n) => _ = world.recv(A, n as usize),
                Act::Limit(n) => {
                    world.conn(A).limit_sending(n, false);
                    world.run(A);
                }
            }
            prop_assert!(world.conn(A).error().is_none());
        }
        world.look(A);
        linux.read_all(&mut world);
        prop_assert!(room(&mut world) > 0);
    }
}
