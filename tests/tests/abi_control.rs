// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The configuration space and the control queue's commands that concern one member alone.
//!
//! Invariant: a request is answered with the whole of its reply whatever its status, and a refused
//! one's reply is zero after the status.

use ism_abi::{
    AttachReply, Config, HelloReply, MAGIC, MAX_DMB_LEN, MAX_DMBS, MIN_DMB_LEN, Ping, QueryReply,
    RegisterReply, ReplyHeader, StatsReply, VERSION, WINDOW_ALIGN, command, mode, status,
};
use ism_frontend::commands::encode;
use ism_frontend::{Driver, Options};
use ism_tests::fabric::{daemon, fabric, join, pair, refused, start};

/// Every command: code, bytes of its body, bytes of its reply's body.
const COMMANDS: [(u16, usize, usize); 12] = [
    (command::HELLO, 8, HelloReply::SIZE),
    (command::PING, 8, Ping::SIZE),
    (command::STATS, 0, StatsReply::SIZE),
    (command::QUERY_RGID, 24, QueryReply::SIZE),
    (command::FORGET_PEER, 24, 0),
    (command::REGISTER, 40, RegisterReply::SIZE),
    (command::UNREGISTER, 8, 0),
    (command::ATTACH, 8, AttachReply::SIZE),
    (command::DETACH, 8, 0),
    (command::ADD_VLAN, 8, 0),
    (command::DEL_VLAN, 8, 0),
    (command::SIGNAL_EVENT, 32, 0),
];

/// The status of a raw answer; the rest must be zero if it is a refusal.
fn status_of(reply: &[u8]) -> u32 {
    let header = ReplyHeader::from_bytes(reply).expect("a reply header");
    assert_eq!(header.reserved, 0);
    if header.status != status::OK {
        assert!(reply[4..].iter().all(|byte| *byte == 0), "a refusal that says more: {reply:02x?}");
    }
    header.status
}

#[test]
fn the_configuration_says_what_the_device_is() {
    let fabric = fabric(mode::MAPPED).set("fabric-id = 0xff42").set("window-size = \"512M\"");
    let daemon = start(&fabric.vm("a", &["all"]).vm("b", &["all"]));
    let mut a = daemon.join("a", Options::default()).expect("a");
    let b = daemon.join("b", Options::default()).expect("b");
    let config = *a.config();
    assert_eq!((config.magic, config.version), (MAGIC, VERSION));
    assert_eq!(config.fabric_id, 0xff42);
    assert_eq!(config.window_size, 512 << 20);
    assert_eq!(config.chunk_size % WINDOW_ALIGN, 0);
    assert_ne!(config.chunk_size, 0);
    assert_eq!(config.notify_size, 0);
    assert!(config.max_dmbs <= MAX_DMBS && config.max_dmbs > 0);
    assert!((MIN_DMB_LEN..=MAX_DMB_LEN).contains(&config.max_dmb_len));
    assert!(config.max_move_len >= MIN_DMB_LEN);
    let window = a.connection().window().expect("a window").len();
    assert_eq!(window, config.window_size, "GET_SHMEM_CONFIG and the configuration agree");
    let (mine, theirs) = (config.gid, b.config().gid);
    assert_ne!(mine[..8], theirs[..8], "SMC compares the first half alone");
    assert_ne!(mine[8..], theirs[8..], "Linux compares the second half alone when a peer goes");
    // Any part can be read, as a driver reads field by field.
    let whole = config.to_bytes();
    for field in Config::FIELDS {
        let part = a.connection().config_bytes(field.offset, field.size).expect("a field");
        assert_eq!(part, whole[field.offset..field.offset + field.size], "{}", field.name);
    }
}

#[test]
fn a_gid_stays_with_its_name() {
    let gids = || {
        let daemon = daemon(mode::MAPPED, &["left", "right"]);
        [join(&daemon, "left").config().gid, join(&daemon, "right").config().gid]
    };
    assert_eq!(gids(), gids(), "the same names after a restart");
}

#[test]
fn writing_the_configuration_changes_nothing() {
    let (_daemon, mut a, _b) = pair(mode::MAPPED);
    let before = *a.config();
    // QEMU sends the whole space for a write of one byte; whether it is refused is no matter.
    let _ = a.connection().write_config(0, &[0xff; Config::SIZE]);
    assert_eq!(a.connection().config().expect("config"), before);
    a.ping(1).expect("the device is alive");
}

#[test]
fn hello_comes_first() {
    let daemon = daemon(mode::MAPPED, &["a"]);
    let mut a = Driver::connect(&daemon.socket("a"), Options::default()).expect("connect");
    for (code, body, room) in COMMANDS {
        if code == command::HELLO {
            continue;
        }
        let reply = a.request(&encode(code, &vec![0; body]), 8 + room).expect("an answer");
        assert_eq!(status_of(&reply), status::NOT_READY, "command {code:#x}");
    }
    let limits = a.hello().expect("hello");
    assert!(limits.max_dmbs > 0 && limits.max_peers > 0 && limits.max_bytes > 0);
    a.stats().expect("a command after HELLO");
}

#[test]
fn hello_of_another_version_is_refused() {
    let (_daemon, mut a, _b) = pair(mode::MAPPED);
    for version in [0, VERSION + 1, u16::MAX] {
        let mut body = [0; 8];
        body[..2].copy_from_slice(&version.to_le_bytes());
        let request = encode(command::HELLO, &body);
        let reply = a.request(&request, 8 + HelloReply::SIZE).expect("an answer");
        assert_eq!(status_of(&reply), status::INVALID);
    }
    a.stats().expect("a refused HELLO resets nothing");
}

#[test]
fn ping_returns_its_cookie() {
    let (_daemon, mut a, _b) = pair(mode::MAPPED);
    for cookie in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        assert_eq!(a.ping(cookie).expect("ping"), cookie);
    }
}

#[test]
fn unknown_commands_are_unsupported() {
    let (_daemon, mut a, _b) = pair(mode::MAPPED);
    let known = COMMANDS.map(|(code, ..)| code);
    for code in (0..0x50).chain([0x100, 0x7fff, 0xffff]).filter(|code| !known.contains(code)) {
        let reply = a.request(&encode(code, &[]), 64).expect("an answer");
        assert_eq!(status_of(&reply), status::UNSUPPORTED, "command {code:#x}");
    }
}

#[test]
fn a_request_of_any_other_length_is_invalid() {
    let (_daemon, mut a, _b) = pair(mode::MAPPED);
    for (code, body, room) in COMMANDS {
        for len in (0..body + 16).filter(|len| *len != body) {
            let reply = a.request(&encode(code, &vec![0; len]), 8 + room).expect("an answer");
            assert_eq!(status_of(&reply), status::INVALID, "command {code:#x}, body of {len}");
        }
        for len in 0..8 {
            let request = &encode(code, &[])[..len];
            if !request.is_empty() {
                let reply = a.request(request, 8 + room).expect("an answer");
                assert_eq!(status_of(&reply), status::INVALID, "command {code:#x}, {len} bytes");
            }
        }
    }
    a.stats().expect("nothing was reset by a malformed HELLO");
}

#[test]
fn a_reserved_byte_that_is_set_is_invalid() {
    let (_daemon, mut a, _b) = pair(mode::MAPPED);
    for (code, body, room) in COMMANDS {
        for at in 2..8 {
            let mut request = encode(code, &vec![0; body]);
            request[at] = 1;
            let reply = a.request(&request, 8 + room).expect("an answer");
            assert_eq!(status_of(&reply), status::INVALID, "command {code:#x}, byte {at}");
        }
    }
    // Reserved fields of bodies: (command, body, reserved bytes of it).
    let bodies: [(u16, usize, std::ops::Range<usize>); 5] = [
        (command::HELLO, 8, 2..8),
        (command::QUERY_RGID, 24, 19..24),
        (command::REGISTER, 40, 36..40),
        (command::ADD_VLAN, 8, 2..8),
        (command::SIGNAL_EVENT, 32, 20..24),
    ];
    for (code, len, reserved) in bodies {
        for at in reserved {
            let mut body = vec![0; len];
            body[0] = 1;
            body[at] = 1;
            let room = COMMANDS.iter().find(|c| c.0 == code).map_or(0, |c| c.2);
            let reply = a.request(&encode(code, &body), 8 + room).expect("an answer");
            assert_eq!(status_of(&reply), status::INVALID, "command {code:#x}, body byte {at}");
        }
    }
}

#[test]
fn vlans_are_joined_and_left() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    let (ga, gb) = (a.config().gid, b.config().gid);
    refused(a.query(gb, Some(100)), status::UNREACHABLE);
    a.add_vlan(100).expect("join");
    refused(a.query(gb, Some(100)), status::UNREACHABLE);
    b.add_vlan(100).expect("join");
    assert_eq!(a.query(gb, Some(100)).expect("both are in it"), mode::MAPPED);
    assert_eq!(b.query(ga, Some(100)).expect("both are in it"), mode::MAPPED);
    a.add_vlan(100).expect("join again");
    b.del_vlan(100).expect("leave");
    refused(a.query(gb, Some(100)), status::UNREACHABLE);
    b.del_vlan(100).expect("leave again");
    assert_eq!(a.query(gb, None).expect("without a VLAN"), mode::MAPPED);
    // ISM_RESERVED_VLANID is always accepted.
    a.add_vlan(0x1fff).expect("reserved");
    assert_eq!(a.query(gb, Some(0x1fff)).expect("reserved"), mode::MAPPED);
    a.del_vlan(0x1fff).expect("reserved");
    for id in [0, 4095, 4096, 0x1ffe, 0x2000, u16::MAX] {
        refused(a.add_vlan(id), status::INVALID);
        refused(a.del_vlan(id), status::INVALID);
        refused(a.query(gb, Some(id)), status::INVALID);
    }
}

#[test]
fn counters_count() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    let start = a.stats().expect("stats");
    assert_eq!((start.dmbs, start.grants, start.dmb_bytes), (0, 0, 0));
    assert_eq!((start.signals_sent, start.signals_received, start.errors), (0, 0, 0));
    let gb = b.config().gid;
    let dmb = a.register(gb, 5, MIN_DMB_LEN, mode::MAPPED).expect("register");
    b.signal(dmb.token()).expect("signal");
    ism_tests::fabric::signalled(&mut a);
    refused(a.unregister_token(1), status::NO_TOKEN);
    let stats = a.stats().expect("stats");
    assert_eq!((stats.dmbs, stats.grants, stats.dmb_bytes), (1, 0, MIN_DMB_LEN.into()));
    assert_eq!((stats.signals_sent, stats.signals_received, stats.errors), (0, 1, 1));
    let stats = b.stats().expect("stats");
    assert_eq!((stats.dmbs, stats.grants), (0, 1));
    assert_eq!((stats.signals_sent, stats.signals_received), (1, 0));
    a.hello().expect("hello");
    let stats = a.stats().expect("stats");
    assert_eq!((stats.dmbs, stats.errors, stats.signals_received), (0, 0, 0), "since HELLO");
}
