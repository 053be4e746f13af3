// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Peers that write what no SMC writes: cursors into the victim's DMB, and bytes instead of CLC messages; and that signal
//! without end.
//!
//! Invariant tested: it costs the liar's connection, and no other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{IoSlice, IoSliceMut, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ism_client::{Device, vhost};
use ism_frontend::{Daemon, Fabric};
use ism_tests::fabric::eventually;
use ism_tests::random::Random;
use rustix::io::Errno;
use smc_socket::{Config, Handshake, Ready, RecvFlags, Role, SendFlags, Socket, Stack};

const LONG: Option<Duration> = Some(Duration::from_secs(20));
/// What this file's connections have as their ring.
const BUFFER: u32 = 64 << 10;
const RING: u32 = BUFFER - 32;

fn receive(socket: &Socket, buffer: &mut [u8]) -> Result<usize> {
    let mut buffers = [IoSliceMut::new(buffer)];
    socket.receive(&mut buffers, RecvFlags::default(), false, LONG)
}

fn send(socket: &Socket, bytes: &[u8]) -> Result<usize> {
    socket.transmit(&[IoSlice::new(bytes)], SendFlags::default(), LONG)
}

fn is_reset<T: std::fmt::Debug>(result: &Result<T>) -> bool {
    let number = result.as_ref().err().and_then(std::io::Error::raw_os_error);
    number == Some(Errno::CONNRESET.raw_os_error())
}

/// A victim, a peer that is honest, and one that is not; all members of one daemon.
struct World {
    daemon: Daemon,
    victim: Stack,
    honest: Stack,
    hostile: Stack,
    /// The hostile peer's, to write with.
    device: Device,
    listener: TcpListener,
}

impl World {
    fn new() -> Self {
        let daemon = Fabric::new().processes("apps", "").start().unwrap();
        let join = || vhost::join(&daemon.socket("apps")).unwrap();
        let config = Config { receive_buffer: BUFFER, patience: None, ..Config::default() };
        let stack = |device| Stack::new(device, &config).unwrap();
        let device = join();
        let hostile = stack(device.clone());
        let (victim, honest) = (stack(join()), stack(join()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { daemon, victim, honest, hostile, device, listener }
    }

    /// A connection between the victim, which accepts, and a peer: the victim's end, the peer's.
    fn connect(&self, peer: &Stack) -> [Arc<Socket>; 2] {
        let [tcp, accepted] = self.tcp();
        let client = peer.begin(Box::new(tcp), Role::Client, true);
        let server = self.victim.begin(Box::new(accepted), Role::Server, true);
        eventually("a connection of SMC", || {
            [&client, &server].map(|end| end.advance()) == [Handshake::Smc; 2]
        });
        [server, client]
    }

    fn tcp(&self) -> [TcpStream; 2] {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        [client, self.listener.accept().unwrap().0]
    }
}

/// A transfer between the victim and its honest peer that goes on until it is told to stop.
struct Transfer {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    threads: [thread::JoinHandle<u64>; 2],
}

fn byte(place: u64) -> u8 {
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).to_le_bytes()[0]
}

impl Transfer {
    fn start(world: &World) -> Self {
        let [victim, honest] = world.connect(&world.honest);
        let stop = Arc::new(AtomicBool::new(false));
        let bytes = Arc::new(AtomicU64::new(0));
        let (over, got) = (Arc::clone(&stop), Arc::clone(&bytes));
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let piece: Vec<u8> = (sent..sent + 3001).map(byte).collect();
                assert_eq!(send(&honest, &piece).unwrap(), piece.len());
                sent += 3001;
                // It is to go on all the time, not to be fast.
                thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let receiver = thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let n = receive(&victim, &mut buffer).unwrap();
                let at = got.load(Ordering::Relaxed);
                assert!(buffer[..n].iter().zip(at..).all(|(got, at)| *got == byte(at)));
                got.store(at + n as u64, Ordering::Relaxed);
                if n == 0 {
                    return at;
                }
            }
        });
        Self { stop, bytes, threads: [sender, receiver] }
    }

    /// Waits until it has gone on.
    fn goes_on(&self) {
        let before = self.bytes.load(Ordering::Relaxed);
        eventually("the other connection to go on", || self.bytes.load(Ordering::Relaxed) > before);
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let [sent, got] = self.threads.map(|thread| thread.join().unwrap());
        assert_eq!(sent, got);
    }
}

/// A CDC area: both cursors, wrap and count.
fn area(prod: (u16, u32), cons: (u16, u32)) -> [u8; 32] {
    let mut area = [0; 32];
    area[0] = 0xfe;
    for (at, (wrap, count)) in [(8, prod), (16, cons)] {
        area[at..at + 2].copy_from_slice(&wrap.to_ne_bytes());
        area[at + 2..at + 6].copy_from_slice(&count.to_ne_bytes());
    }
    area
}

/// Writes into the DMB that the victim gave to this connection, as only its peer can.
fn strike(world: &World, hostile: &Socket, bytes: &[u8]) {
    let token = hostile.info().smc.unwrap().peer_token;
    let remote = world.device.remote(token.0).unwrap();
    remote.memory().write(0, bytes).unwrap();
    remote.signal().unwrap();
}

#[test]
fn cursors_that_no_smc_writes_reset_their_connection() {
    let world = World::new();
    let transfer = Transfer::start(&world);
    let none = (0, 0);
    let lies = [
        area((0, RING), none),
        area((0, u32::MAX), none),
        area((1, 1), none),
        area((2, 0), none),
        area((u16::MAX, RING - 1), none),
        // The victim has sent five bytes.
        area(none, (0, 6)),
        area(none, (0, RING)),
        area(none, (1, 0)),
        area(none, (u16::MAX, u32::MAX)),
        area((7, 7), (7, 7)),
    ];
    for (n, lie) in lies.iter().enumerate() {
        let [victim, hostile] = world.connect(&world.hostile);
        send(&victim, b"hello").unwrap();
        strike(&world, &hostile, lie);
        let received = receive(&victim, &mut [0; 100]);
        assert!(is_reset(&received), "lie {n}: {received:?}");
        assert!(send(&victim, b"more").is_err(), "lie {n}");
        transfer.goes_on();
    }
    // One that goes back, after bytes that were right.
    let [victim, hostile] = world.connect(&world.hostile);
    send(&hostile, b"twelve bytes").unwrap();
    assert_eq!(receive(&victim, &mut [0; 100]).unwrap(), 12);
    strike(&world, &hostile, &area((0, 3), none));
    assert!(is_reset(&receive(&victim, &mut [0; 100])));
    transfer.end();
}

#[test]
fn random_areas_end_at_most_their_connection() {
    let world = World::new();
    let transfer = Transfer::start(&world);
    let mut random = Random::announced("hostile areas");
    for _ in 0..100 {
        let [victim, hostile] = world.connect(&world.hostile);
        let mut area: [u8; 32] = area((0, 0), (0, 0));
        for _ in 0..20 {
            let at = 8 + random.index(24);
            let any = random.word().to_le_bytes()[0];
            area[at] = random.pick(&[0, 1, 0x7f, 0xff, 0x80, any]);
            strike(&world, &hostile, &area);
            // Whatever it reads: it must come to an end in bounded time.
            victim.readiness();
            let mut buffer = [0; 4096];
            let flags = RecvFlags::default();
            for _ in 0..32 {
                match victim.recv(&mut [IoSliceMut::new(&mut buffer)], flags) {
                    Ok(0) | Err(_) => break,
                    Ok(n) => assert!(n <= buffer.len()),
                }
            }
        }
        // It has the right to say that it has closed; then this is an end as any other.
        drop(hostile);
        victim.close(None);
    }
    transfer.goes_on();
    transfer.end();
    assert!(!world.victim.is_gone());
    let output = world.daemon.ctl(&["stats"]).unwrap();
    assert!(output.status.success());
}

/// Bytes that may begin as a CLC message does.
fn blob(random: &mut Random) -> Vec<u8> {
    let len = 1 + random.index(700);
    let mut bytes = random.bytes(len);
    if random.below(4) > 0 && len >= 8 {
        let brand = random.pick(&[0xd9, 0xc4]);
        let kind = 1 + random.below(4).to_le_bytes()[0];
        bytes[..5].copy_from_slice(&[0xe2, 0xd4, 0xc3, brand, kind]);
        let said = random.pick(&[len, len / 2, len + 100, 0, 65535, 52, 44]);
        let said = u16::try_from(said).unwrap_or(u16::MAX);
        bytes[5..7].copy_from_slice(&said.to_be_bytes());
        bytes[7] = random.pick(&[0x10, 0x20, 0x21, 0x28, 0x3f, 0xff]);
    }
    bytes
}

#[test]
fn bytes_that_are_no_handshake_end_their_connection() {
    let world = World::new();
    let transfer = Transfer::start(&world);
    let mut random = Random::announced("hostile CLC");
    for round in 0..200 {
        let [mut client, server] = world.tcp();
        let (role, victim, hostile) = match round % 2 {
            0 => (Role::Server, server, &mut client),
            _ => (Role::Client, client.try_clone().unwrap(), &mut { server }),
        };
        let victim = world.victim.begin(Box::new(victim), role, true);
        hostile.write_all(&blob(&mut random)).unwrap();
        hostile.shutdown(Shutdown::Write).unwrap();
        // To a server it may have been a Decline, and then this is TCP.
        eventually("the end of the handshake", || victim.advance() != Handshake::Pending);
        assert_ne!(victim.handshake(), Handshake::Smc);
        drop(victim);
    }
    transfer.goes_on();
    transfer.end();
    eventually("nothing to be left", || {
        world.victim.dispatch();
        world.victim.sockets() == 0
    });
}

/// A peer's way to signal a DMB of the victim's that it may write, without having written.
fn signal_of(world: &World, hostile: &Socket) -> impl Fn() + Send + use<> {
    let token = hostile.info().smc.unwrap().peer_token;
    let remote = world.device.remote(token.0).unwrap();
    move || remote.signal().unwrap()
}

#[test]
fn a_signal_that_says_nothing_keeps_nobody_awake() {
    let world = World::new();
    let [_victim, hostile] = world.connect(&world.hostile);
    let [other, honest] = world.connect(&world.honest);
    world.victim.dispatch();
    signal_of(&world, &hostile)();
    assert!(world.victim.prepare_sleep(), "kept awake for nothing");
    world.victim.wake_up(false);
    send(&honest, b"news").unwrap();
    signal_of(&world, &hostile)();
    assert!(!world.victim.prepare_sleep() || other.readiness().contains(Ready::READABLE));
    assert_eq!(receive(&other, &mut [0; 100]).unwrap(), 4);
}

#[test]
fn signals_without_end_keep_nobody_from_anything() {
    let world = World::new();
    let transfer = Transfer::start(&world);
    let [victim, hostile] = world.connect(&world.hostile);
    let [asleep, honest] = world.connect(&world.honest);
    let sleeper = thread::spawn(move || receive(&asleep, &mut [0; 100]).unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let hostile: Vec<_> = (0..2)
        .map(|_| {
            let (signal, stop) = (signal_of(&world, &hostile), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    signal();
                }
            })
        })
        .collect();
    for _ in 0..1000 {
        world.victim.dispatch();
    }
    transfer.goes_on();
    // On the connection of the hostile one, too, time goes by.
    let mut buffer = [0; 100];
    let mut buffers = [IoSliceMut::new(&mut buffer)];
    let soon = Some(Duration::from_millis(20));
    let received = victim.receive(&mut buffers, RecvFlags::default(), false, soon);
    assert_eq!(received.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    send(&honest, b"wake up").unwrap();
    assert_eq!(sleeper.join().unwrap(), 7);
    stop.store(true, Ordering::Relaxed);
    hostile.into_iter().for_each(|thread| thread.join().unwrap());
    transfer.end();
}
