// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Measures the engine: ping-pongs, streams and connections between two threads or two processes.
//!
//! Invariant: each figure is of whole `transmit` and `receive` calls, as a program makes them.
//!
//! ```text
//! exchange                              both ends in this process, on a fabric of its own
//! exchange DOOR                         this process and a child, through the daemon's door
//! exchange DOOR PORT                    (the child)
//! EXCHANGE_SPIN=0                       every wait sleeps
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed measurement ends by panicking"
)]

use std::io::{IoSlice, IoSliceMut};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ism_client::loopback::Loopback;
use ism_client::vhost;
use smc_socket::{Config, Handshake, RecvFlags, Role, SendFlags, Socket, Stack};

const PING_PONGS: u32 = 200_000;
const STREAM: usize = 4 << 30;
const CONNECTIONS: u32 = 500;

fn send(socket: &Socket, bytes: &[u8]) {
    let sent = socket.transmit(&[IoSlice::new(bytes)], SendFlags::default(), None);
    assert_eq!(sent.unwrap(), bytes.len());
}

fn recv(socket: &Socket, buffer: &mut [u8], all: bool) -> usize {
    socket.receive(&mut [IoSliceMut::new(buffer)], RecvFlags::default(), all, None).unwrap()
}

fn begin(stack: &Stack, tcp: TcpStream, role: Role) -> Arc<Socket> {
    tcp.set_nodelay(true).unwrap();
    let socket = stack.begin(Box::new(tcp), role, true);
    assert_eq!(socket.finish_handshake(None).unwrap(), Handshake::Smc);
    socket
}

fn serve(stack: &Stack, listener: &TcpListener) {
    let accept = || begin(stack, listener.accept().unwrap().0, Role::Server);
    let socket = accept();
    let mut buffer = vec![0; 64_000];
    for len in [14, 100, 1000, 64_000] {
        for _ in 0..rounds(len) {
            recv(&socket, &mut buffer[..len], true);
            send(&socket, &buffer[..len]);
        }
    }
    for len in [100, 4096, 64_000] {
        let mut left = stream(len);
        while left > 0 {
            left -= recv(&socket, &mut buffer, false);
        }
        send(&socket, b"!");
    }
    drop(socket);
    for _ in 0..CONNECTIONS {
        let socket = accept();
        assert_eq!(recv(&socket, &mut buffer, false), 1);
        send(&socket, b"!");
    }
}

fn rounds(len: usize) -> u32 {
    let spins = config().spin != Duration::ZERO;
    PING_PONGS / u32::try_from(len / 1000 + 1).unwrap() / if spins { 1 } else { 10 }
}

fn stream(len: usize) -> usize {
    STREAM.min(len * 10_000_000) / len * len
}

fn measure(stack: &Stack, port: u16) {
    let connect = || begin(stack, TcpStream::connect(("127.0.0.1", port)).unwrap(), Role::Client);
    let socket = connect();
    let mut buffer = vec![7; 64_000];
    for len in [14, 100, 1000, 64_000] {
        let mut times: Vec<_> = (0..rounds(len))
            .map(|_| {
                let start = Instant::now();
                send(&socket, &buffer[..len]);
                recv(&socket, &mut buffer[..len], true);
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        let half = |part: usize| times[times.len() * part / 100].as_secs_f64() * 5e5;
        println!("ping-pong {len:6} B: half round trip {:.3} µs, p99 {:.3} µs", half(50), half(99));
    }
    for len in [100, 4096, 64_000] {
        let start = Instant::now();
        for _ in 0..stream(len) / len {
            send(&socket, &buffer[..len]);
        }
        recv(&socket, &mut buffer, false);
        let seconds = start.elapsed().as_secs_f64();
        let messages = (stream(len) / len) as f64 / seconds / 1e6;
        let bytes = stream(len) as f64 / seconds / 1e9;
        println!("stream {len:6} B: {bytes:.2} GB/s, {messages:.2} M/s");
    }
    drop(socket);
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let socket = connect();
        send(&socket, b"?");
        assert_eq!(recv(&socket, &mut buffer, false), 1);
    }
    println!("connections: {:.0}/s", f64::from(CONNECTIONS) / start.elapsed().as_secs_f64());
}

fn config() -> Config {
    let spin = std::env::var("EXCHANGE_SPIN").ok();
    let spin = spin.map_or(Config::default().spin, |us| Duration::from_micros(us.parse().unwrap()));
    let buffer = std::env::var("EXCHANGE_BUFFER").ok();
    let receive_buffer = buffer.map_or(Config::default().receive_buffer, |it| it.parse().unwrap());
    Config { spin, receive_buffer, ..Config::default() }
}

fn child(door: &str, port: u16) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(door).arg(port.to_string()).spawn().unwrap()
}

/// Keeps this thread on one CPU, so that the two ends have one each.
fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let stack = |device| Stack::new(device, &config()).unwrap();
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let port_of = |listener: &TcpListener| listener.local_addr().unwrap().port();
    match &arguments[..] {
        [] => {
            let fabric = Loopback::new(0xFF01).unwrap();
            let stacks = [1, 2].map(|n| stack(fabric.join([n; 16]).unwrap()));
            let listener = listen();
            let port = port_of(&listener);
            let [one, two] = stacks;
            let server = thread::spawn(move || {
                pin(0);
                serve(&one, &listener);
            });
            pin(1);
            measure(&two, port);
            server.join().unwrap();
        }
        [door] => {
            let stack = stack(vhost::join(Path::new(door)).unwrap());
            let listener = listen();
            let mut child = child(door, port_of(&listener));
            pin(0);
            serve(&stack, &listener);
            assert!(child.wait().unwrap().success());
        }
        [door, port] => {
            let stack = stack(vhost::join(Path::new(door)).unwrap());
            pin(1);
            measure(&stack, port.parse().unwrap());
        }
        _ => eprintln!("usage: exchange [DOOR]"),
    }
}
