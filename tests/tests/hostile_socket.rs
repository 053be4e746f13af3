// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A front-end that does not keep the vhost-user protocol: bytes, sizes, orders and descriptors.
//!
//! Invariant: as `Siege`: nobody but the hostile member is affected.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ism_abi::{QUEUE_EVENT, ReplyHeader, command, mode};
use ism_frontend::commands::{encode, register_request};
use ism_frontend::raw::{MAX_FDS, NEED_REPLY, REPLY, VERSION_1, header, message, receive, send};
use ism_frontend::{Driver, Options};
use ism_tests::fabric::{DMB, MODES, gid, granted, soon};
use ism_tests::random::Random;
use ism_tests::siege::Siege;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_VRING_CALL: u32 = 13;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SET_BACKEND_REQ_FD: u32 = 21;
/// One past the last request of the protocol.
const REQUESTS: u32 = 46;
/// Protocol features MQ, REPLY_ACK, BACKEND_REQ, CONFIG, MEM_SLOTS and SHMEM.
const FEATURES: u64 = 1 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 15 | 1 << 22;

/// A socket that gives up reading soon: what the daemon answers to rubbish is its own business.
fn connect(siege: &Siege) -> UnixStream {
    let socket = UnixStream::connect(siege.socket()).expect("connect");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
    socket
}

/// Descriptors of kinds that a front-end might send, right and wrong ones.
fn descriptors() -> Vec<OwnedFd> {
    let (one, other) = UnixStream::pair().expect("pair");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let memfd = |size| {
        let fd = memfd_create("hostile", MemfdFlags::ALLOW_SEALING).expect("memfd");
        ftruncate(&fd, size).expect("size");
        fd
    };
    vec![
        eventfd(0, EventfdFlags::empty()).expect("eventfd"),
        eventfd(u32::MAX, EventfdFlags::SEMAPHORE).expect("eventfd"),
        memfd(0),
        memfd(1 << 20),
        one.into(),
        other.into(),
        reader.into(),
        writer.into(),
        File::open("/dev/null").expect("null").into(),
        File::open("/").expect("root").into(),
        File::open("/proc/self/mem").expect("mem").into(),
    ]
}

fn borrowed(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

/// The beginning that a sane front-end makes, so that later requests are not refused for its lack.
fn begin(socket: &UnixStream) {
    let get = |request| {
        send(socket, &message(request, VERSION_1, &[]), &[]).expect("send");
        let reply = receive(socket);
        reply.ok().and_then(|(_, body)| Some(u64::from_ne_bytes(body.try_into().ok()?)))
    };
    let set = |request, value: u64| {
        send(socket, &message(request, VERSION_1, &value.to_ne_bytes()), &[]).expect("send");
    };
    let features = get(GET_FEATURES).unwrap_or(0);
    let protocol = get(GET_PROTOCOL_FEATURES).unwrap_or(0);
    set(SET_PROTOCOL_FEATURES, protocol & FEATURES);
    send(socket, &message(SET_OWNER, VERSION_1, &[]), &[]).expect("send");
    set(SET_FEATURES, features);
}

/// Reads what the daemon says until it says no more.
fn drain(mut socket: &UnixStream) {
    let mut buffer = [0; 4096];
    while socket.read(&mut buffer).is_ok_and(|n| n > 0) {}
}

#[test]
fn bytes_that_are_no_messages() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut random = Random::announced("bytes_that_are_no_messages");
        let fds = descriptors();
        for round in 0..150 {
            let socket = connect(&siege);
            if round % 3 == 0 {
                begin(&socket);
            }
            for _ in 0..random.below(4) {
                let len = 1 + random.index(5000);
                let attached = borrowed(&fds[..random.index(fds.len())]);
                // The daemon may have hung up after the first bytes.
                let _ = send(&socket, &random.bytes(len), &attached);
            }
        }
        siege.end();
    }
}

#[test]
fn every_request_with_every_size() {
    let siege = Siege::begin(mode::MAPPED);
    let mut random = Random::announced("every_request_with_every_size");
    for request in 0..REQUESTS {
        for size in [0u32, 1, 7, 8, 9, 12, 16, 20, 32, 40, 48, 4096, 4097, 1 << 20, u32::MAX] {
            for flags in [VERSION_1, VERSION_1 | NEED_REPLY, REPLY | VERSION_1, 0, 2, u32::MAX] {
                let socket = connect(&siege);
                let mut bytes = header(request, flags, size).to_vec();
                bytes.extend(random.bytes(usize::try_from(size.min(4200)).expect("small")));
                let _ = send(&socket, &bytes, &[]);
            }
        }
        siege.others_work();
    }
    siege.end();
}

#[test]
fn every_request_with_every_number_of_descriptors() {
    let siege = Siege::begin(mode::MAPPED);
    let fds = descriptors();
    let many: Vec<OwnedFd> =
        (0..MAX_FDS).map(|_| eventfd(0, EventfdFlags::empty()).expect("eventfd")).collect();
    for request in 0..REQUESTS {
        for body in [0usize, 8, 40, 264] {
            for count in [0, 1, 2, 8, 9, 32, 33, MAX_FDS] {
                let socket = connect(&siege);
                begin(&socket);
                let fds = borrowed(if count <= 2 { &fds[..count] } else { &many[..count] });
                let body = vec![1; body];
                let _ = send(&socket, &message(request, VERSION_1, &body), &fds);
                // Descriptors that come with the body and not with the header.
                let _ = send(&socket, &header(request, VERSION_1, 8), &[]);
                let _ = send(&socket, &[0; 8], &fds);
            }
        }
    }
    siege.end();
}

/// A body of the right size for most requests, with fields that are edges or random.
fn body(random: &mut Random) -> Vec<u8> {
    let size = random.pick(&[0usize, 8, 8, 8, 12, 16, 20, 40, 40, 48, 72]);
    let mut body = Vec::new();
    while body.len() < size {
        let word = match random.below(6) {
            0 => 0,
            1 => u64::from(random.below(5)),
            2 => 1 << random.below(64),
            3 => u64::from(random.below(8)) << 32 | u64::from(random.below(8)),
            4 => u64::MAX - u64::from(random.below(4096)),
            _ => random.word(),
        };
        body.extend(word.to_ne_bytes());
    }
    body.truncate(size);
    body
}

#[test]
fn well_formed_messages_in_any_order() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut random = Random::announced("well_formed_messages_in_any_order");
        let fds = descriptors();
        for round in 0..200 {
            let socket = connect(&siege);
            if random.below(4) > 0 {
                begin(&socket);
            }
            for _ in 0..30 {
                let flags = VERSION_1 | random.pick(&[0, 0, NEED_REPLY]);
                let bytes = message(random.below(REQUESTS), flags, &body(&mut random));
                let at = random.index(fds.len());
                let attached = &borrowed(&fds)[at..(at + random.index(2)).min(fds.len())];
                if send(&socket, &bytes, attached).is_err() {
                    break; // The daemon has hung up.
                }
            }
            if round % 20 == 0 {
                drain(&socket);
            }
        }
        siege.end();
    }
}

#[test]
fn rubbish_after_a_good_start() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut random = Random::announced("rubbish_after_a_good_start");
        let fds = descriptors();
        for _ in 0..40 {
            let mut driver = siege.intruder();
            let own = gid(&driver);
            driver.register(own, 0, DMB, mode).expect("register");
            let socket = driver.connection().socket().try_clone().expect("clone");
            for _ in 0..20 {
                let bytes = message(random.below(REQUESTS), VERSION_1, &body(&mut random));
                let at = random.index(fds.len());
                if send(&socket, &bytes, &borrowed(&fds[at..=at])).is_err() {
                    break;
                }
            }
        }
        siege.end();
    }
}

#[test]
fn messages_that_break_off() {
    let siege = Siege::begin(mode::MAPPED);
    let whole = message(SET_FEATURES, VERSION_1, &[0; 8]);
    let mut waiting = Vec::new();
    for len in 0..whole.len() {
        let socket = connect(&siege);
        send(&socket, &whole[..len], &[]).expect("send");
        waiting.push(socket);
        // The last one stays open, in the middle of its message.
        siege.others_work();
        waiting.clear();
    }
    let held = connect(&siege);
    send(&held, &whole[..5], &[]).expect("send");
    siege.others_work();
    drop(held);
    siege.end();
}

/// Connects, unless that would have to wait for the daemon.
fn connect_at_once(siege: &Siege) -> Option<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(siege.socket()).ok()?).ok()?;
    Some(socket.into())
}

#[test]
fn many_connections_at_once() {
    let siege = Siege::begin(mode::MAPPED);
    let mut driver = siege.intruder();
    let sockets: Vec<_> = (0..300).filter_map(|_| connect_at_once(&siege)).collect();
    assert!(!sockets.is_empty());
    for socket in &sockets {
        let _ = send(socket, &message(GET_FEATURES, VERSION_1, &[]), &[]);
    }
    driver.ping(1).expect("the first connection is served");
    siege.others_work();
    drop(sockets);
    driver.ping(2).expect("and goes on");
    drop(driver);
    siege.end();
}

/// Sends one of the queues' eventfds anew, by hand.
fn replace_call(driver: &mut Driver, queue: u16, call: &OwnedFd) {
    let bytes = message(SET_VRING_CALL, VERSION_1, &u64::from(queue).to_ne_bytes());
    let socket = driver.connection().socket();
    send(socket, &bytes, &[call.as_fd()]).expect("send");
    // Any request with an answer: the daemon has seen the message before it.
    driver.connection().config().expect("config");
}

#[test]
fn an_interrupt_that_blocks_its_writer() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut hostile = siege.intruder();
        let mut victim = siege.victim();
        let dmb = hostile.register(gid(&victim), 0, DMB, mode).expect("register");
        let grant = granted(&mut victim);
        // A full eventfd, whose writers block: the flag belongs to the open file, which is ours.
        let call = eventfd(0, EventfdFlags::NONBLOCK).expect("eventfd");
        replace_call(&mut hostile, QUEUE_EVENT, &call);
        hostile.ping(1).expect("ping");
        rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).expect("fill");
        let flags = fcntl_getfl(&call).expect("flags");
        fcntl_setfl(&call, flags & !OFlags::NONBLOCK).expect("clear");
        for _ in 0..300 {
            victim.signal(grant.token).expect("signal");
        }
        victim.flush_signals().expect("the victim's own queue is served");
        victim.ping(2).expect("ping");
        siege.others_work();
        drop((dmb, hostile, victim));
        siege.end();
    }
}

/// What a front-end might say to SHMEM_MAP instead of «done».
fn answers() -> Vec<Vec<u8>> {
    const SHMEM_MAP: u32 = 9;
    let reply = VERSION_1 | REPLY;
    vec![
        message(SHMEM_MAP, reply, &1u64.to_ne_bytes()),
        message(SHMEM_MAP, reply, &u64::MAX.to_ne_bytes()),
        message(SHMEM_MAP, reply, &[]),
        message(SHMEM_MAP, reply, &[0; 64]),
        message(SHMEM_MAP, VERSION_1, &[0; 8]),
        message(7, reply, &[0; 8]),
        message(u32::MAX, u32::MAX, &[0xff; 8]),
        header(SHMEM_MAP, reply, u32::MAX).to_vec(),
        header(SHMEM_MAP, reply, 8)[..6].to_vec(),
        vec![0xff; 8192],
        Vec::new(),
    ]
}

#[test]
fn a_backend_channel_that_answers_rubbish() {
    let siege = Siege::begin(mode::MAPPED);
    for answer in answers() {
        let mut driver = siege.intruder();
        let (daemons, mut ours) = UnixStream::pair().expect("pair");
        let bytes = message(SET_BACKEND_REQ_FD, VERSION_1, &[]);
        let socket = driver.connection().socket();
        send(socket, &bytes, &[daemons.as_fd()]).expect("send");
        drop(daemons);
        driver.connection().config().expect("the message has been seen");
        let own = gid(&driver);
        let request = register_request(own, 0, DMB, mode::MAPPED);
        driver.start_request(&encode(command::REGISTER, &request.to_bytes()), 64).expect("sent");
        // Either channel may be asked; ours says what it says, and hangs up.
        let close = ours.try_clone().expect("clone");
        let thread = std::thread::spawn(move || {
            let mut asked = [0; 52];
            if ours.read_exact(&mut asked).is_ok() {
                let _ = ours.write_all(&answer);
            }
        });
        let reply = driver.finish_request(soon()).expect("REGISTER is answered");
        ReplyHeader::from_bytes(&reply).expect("with a status");
        // Fails if the daemon has hung up; then the thread's read has ended too.
        let _ = close.shutdown(std::net::Shutdown::Both);
        thread.join().expect("the answering thread");
        siege.others_work();
    }
    siege.end();
}

#[test]
fn a_front_end_that_talks_and_never_listens() {
    let siege = Siege::begin(mode::MAPPED);
    let socket = connect(&siege);
    begin(&socket);
    // Replies pile up in the socket until the daemon's side is full.
    let bytes = message(GET_FEATURES, VERSION_1, &[]);
    let mut sent = 0;
    while sent < 200_000 && send(&socket, &bytes, &[]).is_ok() {
        sent += 1;
    }
    siege.others_work();
    drop(socket);
    siege.end();
}

#[test]
fn sessions_that_end_at_every_step() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        for _ in 0..10 {
            drop(siege.daemon.open(ism_tests::siege::HOSTILE, Options::default()).expect("open"));
            let driver = Driver::connect(&siege.socket(), Options::default()).expect("connect");
            drop(driver);
            let mut driver = siege.intruder();
            let own = gid(&driver);
            let request = register_request(own, 0, DMB, mode);
            let bytes = encode(command::REGISTER, &request.to_bytes());
            driver.start_request(&bytes, 64).expect("sent");
            drop(driver); // While the device may be asking for the mapping.
        }
        siege.end();
    }
}
