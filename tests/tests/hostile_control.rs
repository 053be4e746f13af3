// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest whose driver sends well-placed rubbish on queues that are themselves in order.
//!
//! Invariant: as `Siege`: nobody but the hostile member is affected.

use ism_abi::{
    DmbGranted, MoveRequest, QUEUE_SIGNAL, RegisterRequest, ReplyHeader, command, mode, status,
};
use ism_frontend::channel::MapPolicy;
use ism_frontend::commands::{encode, register_request};
use ism_frontend::virtqueue::Buffer;
use ism_frontend::{Driver, Error, Event};
use ism_tests::fabric::{DMB, MODES, gid, granted, refused};
use ism_tests::random::Random;
use ism_tests::siege::Siege;

const COMMANDS: [u16; 12] = [
    command::HELLO,
    command::PING,
    command::STATS,
    command::QUERY_RGID,
    command::FORGET_PEER,
    command::REGISTER,
    command::UNREGISTER,
    command::ATTACH,
    command::DETACH,
    command::ADD_VLAN,
    command::DEL_VLAN,
    command::SIGNAL_EVENT,
];

/// Numbers that are edges of something.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    3,
    63,
    64,
    4095,
    4096,
    0x4000,
    0x10_0000,
    0x10_0001,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

/// A request that looks real: each field is an edge, something seen, or random.
fn request(random: &mut Random, seen: &[[u8; 16]], tokens: &[u64]) -> Vec<u8> {
    let code = match random.below(20) {
        0 => u16::try_from(random.below(0x1_0000)).expect("small"),
        _ => random.pick(&COMMANDS),
    };
    let mut body = Vec::new();
    let words = random.below(7);
    for _ in 0..words {
        match random.below(5) {
            0 => body.extend(random.pick(seen)),
            1 => body.extend(random.pick(tokens).to_le_bytes()),
            2 => body.extend(random.pick(&EDGES).to_le_bytes()),
            3 => {
                let low = u32::try_from(random.pick(&EDGES) & 0xffff_ffff).expect("masked");
                body.extend(low.to_le_bytes());
            }
            _ => body.extend(random.word().to_le_bytes()),
        }
    }
    if random.below(3) > 0 {
        // Mostly the right length, so that the fields are looked at.
        let right = [8, 0, 8, 24, 40, 32, 24, 8];
        body.resize(random.pick(&right), 0);
    }
    let mut bytes = encode(code, &body);
    if random.below(30) == 0 {
        bytes[2 + random.index(6)] = 1;
    }
    bytes
}

/// Sends one request; the token if one was issued.
fn send(driver: &mut Driver, bytes: &[u8]) -> Option<u64> {
    let reply = driver.request(bytes, 256).expect("every request is answered");
    let header = ReplyHeader::from_bytes(&reply).expect("with a status");
    assert!(header.status <= status::BAD_CDC, "status {}", header.status);
    let registered = bytes.starts_with(&command::REGISTER.to_le_bytes());
    (registered && header.status == status::OK).then(|| {
        let token = reply[8..16].try_into().expect("eight bytes");
        u64::from_le_bytes(token)
    })
}

#[test]
fn rubbish_on_the_control_queue() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut random = Random::announced("rubbish_on_the_control_queue");
        let mut driver = siege.intruder();
        let mut seen = siege.gids.clone();
        seen.extend([gid(&driver), [0; 16], [0xff; 16]]);
        let mut tokens = vec![siege.foreign_token, 0, u64::MAX];
        for round in 0..6000 {
            let bytes = request(&mut random, &seen, &tokens);
            tokens.extend(send(&mut driver, &bytes));
            while let Some(event) = driver.poll_event().expect("events") {
                if let Event::Granted(DmbGranted { token, .. }) = event {
                    tokens.push(token);
                }
            }
            if round % 1000 == 0 {
                siege.others_work();
            }
            tokens.truncate(64);
        }
        drop(driver);
        siege.end();
    }
}

#[test]
fn tokens_of_others_are_worth_nothing() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut driver = siege.intruder();
        let own = gid(&driver);
        // It has a valid token too, which the others must not be taken for.
        let valid = driver.register(own, 1, DMB, mode).expect("register");
        let stale = driver.register(own, 0, DMB, mode).expect("register");
        let stale_token = stale.token();
        driver.unregister(stale).expect("unregister");
        let mut random = Random::announced("tokens_of_others_are_worth_nothing");
        let guesses = [0, u64::MAX, siege.foreign_token ^ 1, random.word(), random.word()];
        for token in [siege.foreign_token, stale_token].into_iter().chain(guesses) {
            refused(driver.unregister_token(token), status::NO_TOKEN);
            refused(driver.attach(token), status::NO_TOKEN);
            refused(driver.detach(token), status::NO_TOKEN);
            for (offset, len) in [(0, 1), (0, DMB), (DMB, 0), (u32::MAX, 1)] {
                let payload = vec![0xbd; len as usize];
                refused(driver.move_to(token, offset, &payload, true), status::NO_TOKEN);
            }
            driver.signal(token).expect("sent");
        }
        driver.flush_signals().expect("flush");
        while let Some(event) = driver.poll_event().expect("events") {
            assert!(!matches!(event, Event::Signals(_)), "signalled by a wrong token");
        }
        ism_tests::fabric::all_zero(&valid.bytes);
        driver.unregister(valid).expect("the valid one");
        for other in siege.gids[2..].iter().chain(&[[0; 16], [0xff; 16]]) {
            let request = register_request(*other, 0, DMB, mode);
            refused(driver.register_raw(&request), status::UNREACHABLE);
            refused(driver.query(*other, None), status::UNREACHABLE);
            refused(driver.signal_event(*other, 1, 2), status::UNREACHABLE);
            driver.forget_peer(*other, 1).ok();
        }
        drop(driver);
        siege.end();
    }
}

#[test]
fn moves_past_every_edge() {
    let siege = Siege::begin(mode::COPIED);
    let mut random = Random::announced("moves_past_every_edge");
    let mut driver = siege.intruder();
    let own = gid(&driver);
    // Its own RAM on both sides: what a move may change is the middle DMB.
    let around = [0, 1, 2].map(|n| driver.register(own, n, DMB, mode::COPIED).expect("register"));
    let token = around[1].token();
    for _ in 0..3000 {
        let offset = u32::try_from(random.pick(&EDGES) & 0xffff_ffff).expect("masked");
        let near = DMB.wrapping_add(random.below(64)).wrapping_sub(32);
        let request = MoveRequest {
            token: if random.below(8) == 0 { random.word() } else { token },
            offset: if random.below(2) == 0 { offset } else { near },
            len: random.below(96),
            signal: random.below(3),
            reserved: u32::from(random.below(10) == 0),
        };
        let payload = random.bytes(random.clone().below(96) as usize);
        match driver.move_raw(&request.to_bytes(), &payload) {
            Ok(()) | Err(Error::Status(_)) => {}
            Err(error) => panic!("{request:?}: {error}"),
        }
        while driver.poll_event().expect("events").is_some() {}
    }
    ism_tests::fabric::all_zero(&around[0].bytes);
    ism_tests::fabric::all_zero(&around[2].bytes);
    drop((around, driver));
    siege.end();
}

#[test]
fn malformed_signals() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut random = Random::announced("malformed_signals");
        let mut driver = siege.intruder();
        let place = driver.connection().ram().allocate(4096).expect("RAM");
        let bytes = random.bytes(4096);
        let ram = driver.connection().ram().bytes(place, 4096).expect("RAM");
        ram.write(0, &bytes).expect("write");
        let signals = driver.queue(QUEUE_SIGNAL).expect("queue");
        for len in [1, 4, 7, 9, 16, 24, 4096] {
            for writable in [false, true] {
                let mut chain = vec![Buffer::readable(place, len)];
                if writable {
                    chain.push(Buffer::writable(place + 2048, 64));
                }
                signals.add(&chain).expect("room");
            }
            signals.add(&[Buffer::writable(place, len)]).expect("room");
        }
        signals.ring().expect("ring");
        driver.flush_signals().expect("every buffer comes back");
        drop(driver);
        siege.end();
    }
}

#[test]
fn registers_without_end() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut driver = siege.intruder();
        let own = gid(&driver);
        let mut index = 0;
        let refusal = loop {
            let mut request: RegisterRequest = register_request(own, index, DMB, mode);
            request.ram_addr = if mode == mode::COPIED { 0x20_0000 } else { 0 };
            match driver.register_raw(&request) {
                Ok(_) => index += 1,
                Err(error) => break error,
            }
            while driver.poll_event().expect("events").is_some() {}
        };
        let expected = [Some(status::NO_SPACE), Some(status::INVALID)];
        assert!(expected.contains(&refusal.status()), "after {index} DMBs: {refusal}");
        siege.others_work();
        drop(driver);
        siege.end();
    }
}

#[test]
fn doorbells_without_end() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut driver = siege.intruder();
        let own = gid(&driver);
        let dmb = driver.register(own, 0, DMB, mode).expect("register");
        let grant = granted(&mut driver);
        let target = siege.stream_chunks() + 50;
        // Until the others have done some work beside the storm.
        while siege.stream_chunks() < target {
            for _ in 0..100 {
                driver.signal(grant.token).expect("signal");
                for queue in 0..4 {
                    driver.queue(queue).and_then(|queue| queue.ring()).expect("ring");
                }
            }
            while driver.poll_event().expect("events").is_some() {}
        }
        drop((dmb, driver));
        siege.end();
    }
}

#[test]
fn a_window_that_never_answers_delays_nobody_else() {
    let siege = Siege::begin(mode::MAPPED);
    let mut hostile = siege.intruder();
    let set = |driver: &mut Driver, policy| {
        driver.connection().channel().expect("a channel").set_policy(policy).expect("policy");
    };
    set(&mut hostile, MapPolicy::Stall);
    let mut victim = siege.victim();
    // The victim's REGISTER cannot succeed, and is answered; what else it does goes on meanwhile.
    let request = register_request(gid(&hostile), 0, DMB, mode::MAPPED);
    victim.start_request(&encode(command::REGISTER, &request.to_bytes()), 64).expect("sent");
    siege.others_work();
    let reply = victim.finish_request(ism_tests::fabric::soon()).expect("an answer");
    let header = ReplyHeader::from_bytes(&reply).expect("a status");
    assert_eq!(header.status, status::IO_ERROR);
    victim.ping(1).expect("ping");
    let own = gid(&victim);
    victim.register(own, 1, DMB, mode::MAPPED).expect("others can be mapped");
    granted(&mut victim);
    siege.others_work();
    drop((hostile, victim));
    siege.end();
}

#[test]
fn a_member_without_event_buffers_delays_nobody_else() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut hostile = siege.intruder();
        hostile.return_event_buffers(false).expect("keep");
        let (own, mut last) = (gid(&hostile), 0);
        // Uses up its own buffers.
        let dmb = hostile.register(own, 0, DMB, mode).expect("register");
        let grant = granted(&mut hostile);
        for _ in 1..hostile.queue(1).expect("events").size() {
            hostile.signal(grant.token).expect("signal");
            ism_tests::fabric::signalled(&mut hostile);
            last += 1;
        }
        assert!(last > 0);
        let mut victim = siege.victim();
        refused(victim.register(own, 0, DMB, mode), status::IO_ERROR);
        victim.ping(1).expect("ping");
        siege.others_work();
        drop((dmb, hostile, victim));
        siege.end();
    }
}
