// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Nanoseconds of the device model's own work, without a daemon: `cargo bench -p ism-emulator`.
//!
//! Invariant: each figure is the median of batches on one thread, with the wishes carried out by
//! nobody but this file; the lock and the rings are the daemon's to measure.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run may panic")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ism_abi::{
    HelloRequest, MoveRequest, Ping, RegisterReply, RegisterRequest, ReplyHeader, RequestHeader,
    SignalRequest, TokenRequest, VERSION, command,
};
use ism_emulator::{
    Abilities, Fabric, FabricConfig, GroupConfig, MemberConfig, MemberId, Mode, Quota, Tag, Wish,
};

/// Odd, so that the 50th (from 0) is the median.
const BATCHES: usize = 101;
const NOW: Duration = Duration::from_secs(1000);

fn request(command: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = RequestHeader { command, reserved: [0; 6] }.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// The median time of one call, over batches of `calls`.
fn measure(name: &str, calls: u32, mut run: impl FnMut()) {
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                run();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    let at = |nth: usize| batches.get(nth).copied().unwrap_or(f64::NAN);
    println!("{name:<38} {:>9.1} ns   (p10 {:.1}, p90 {:.1})", at(50), at(10), at(90));
}

struct Bench {
    fabric: Fabric,
    /// Owner and writer.
    members: [MemberId; 2],
    last: Option<RegisterReply>,
}

impl Bench {
    /// `rate`: signals a second, 0 for no limit.
    fn new(mode: Mode, rate: u32) -> Self {
        let mut config = FabricConfig::new(0xff01);
        config.groups.insert("g".to_owned(), GroupConfig { mode, check_cdc: false });
        let mut fabric = Fabric::new(config, b"0123456789abcdef").unwrap();
        let members = [1, 2].map(|n| {
            let quota = Quota { signals_per_s: rate, ..Quota::default() };
            let (name, groups) = (format!("vm{n}"), vec!["g".to_owned()]);
            let member = MemberConfig { name, gid: [n; 16], groups, vlans: None, quota };
            fabric.add_member(member).unwrap()
        });
        let mut bench = Self { fabric, members, last: None };
        for id in members {
            let abilities = Abilities { window: Some(1 << 30), copied: true, board: true };
            bench.fabric.connect(id, abilities).unwrap();
            let hello = HelloRequest { version: VERSION, reserved: [0; 6] };
            bench.control(id, &request(command::HELLO, &hello.to_bytes()));
        }
        bench
    }

    /// A request and all that follows from it.
    fn control(&mut self, id: MemberId, bytes: &[u8]) {
        black_box(self.fabric.control(id, Tag(0), bytes, NOW));
        while let Some(wish) = self.fabric.poll_wish() {
            match wish {
                Wish::Map { member, extent, .. } => self.fabric.finish_map(extent, member, true),
                Wish::Zero { extent, offset, len } => {
                    self.fabric.finish_zero(extent, offset, len, true);
                }
                Wish::EventsReady { member } => {
                    while self.fabric.poll_event(member).is_some() {}
                    self.fabric.events_delivered(member);
                }
                Wish::Reply { reply, .. } => {
                    let body = reply.as_bytes().get(ReplyHeader::SIZE..).unwrap();
                    self.last = RegisterReply::from_bytes(body).or(self.last);
                }
                _ => {}
            }
        }
    }

    /// Registers a DMB of the first member for the second; returns its token.
    fn register(&mut self, index: u32, mode: Mode) -> u64 {
        let body = RegisterRequest {
            rgid: [2; 16],
            index,
            len: 64 << 10,
            ram_addr: 0,
            vlan_id: 0,
            vlan_valid: 0,
            mode: mode.wire(),
            reserved: [0; 4],
        };
        let [owner, _] = self.members;
        self.control(owner, &request(command::REGISTER, &body.to_bytes()));
        self.last.unwrap().token
    }

    fn unregister(&mut self, token: u64) {
        let [owner, _] = self.members;
        self.control(owner, &request(command::UNREGISTER, &TokenRequest { token }.to_bytes()));
    }
}

fn control() {
    let mut bench = Bench::new(Mode::Mapped, 0);
    let [owner, _] = bench.members;
    let ping = request(command::PING, &Ping { cookie: 1 }.to_bytes());
    measure("ping", 1000, || bench.control(owner, &ping));
    for (name, mode) in [("mapped", Mode::Mapped), ("copied", Mode::Copied)] {
        let mut bench = Bench::new(mode, 0);
        // Beside a hundred others.
        for index in 100..200 {
            bench.register(index, mode);
        }
        measure(&format!("register and unregister, {name}"), 100, || {
            let token = bench.register(1, mode);
            bench.unregister(token);
        });
    }
}

fn signals() {
    for (name, rate) in [("", 0), (", with a rate limit", 500_000_000)] {
        let mut bench = Bench::new(Mode::Mapped, rate);
        let tokens: Vec<u64> = (0..1000).map(|index| bench.register(index, Mode::Mapped)).collect();
        let [owner, writer] = bench.members;
        let requests: Vec<_> =
            tokens.into_iter().map(|token| SignalRequest { token }.to_bytes()).collect();
        let signals = bench.fabric.signals(owner).unwrap();
        let mut next = requests.iter().cycle();
        measure(&format!("signal{name}"), 1000, || {
            let told = bench.fabric.signal(writer, next.next().unwrap(), NOW);
            black_box(told.unwrap());
        });
        measure(&format!("signal, take, arm{name}"), 1000, || {
            let told = bench.fabric.signal(writer, next.next().unwrap(), NOW);
            black_box(told.unwrap());
            while signals.take().is_some() {}
            signals.arm();
        });
    }
}

fn moves() {
    let mut bench = Bench::new(Mode::Copied, 0);
    let token = bench.register(0, Mode::Copied);
    let [_, writer] = bench.members;
    let header = MoveRequest { token, offset: 32, len: 4096, signal: 1, reserved: 0 }.to_bytes();
    measure("begin and finish a move", 1000, || {
        let target = bench.fabric.begin_move(writer, &header, 4096, NOW).unwrap();
        black_box(target.finish());
    });
}

fn main() {
    // `cargo test --benches` and the like only want to know that it starts.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    control();
    signals();
    moves();
}
