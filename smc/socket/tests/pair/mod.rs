// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two stacks on an in-process fabric, and connections between them over TCP on 127.0.0.1.
//!
//! Invariant: nothing here knows what a test is about.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::io::{IoSlice, IoSliceMut, Result};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ism_client::loopback::Loopback;
use rustix::event::{PollFd, PollFlags, poll};
use smc_socket::{Config, Handshake, RecvFlags, Role, SendFlags, Socket, Stack, Tcp};

/// Longer than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Pair {
    pub(crate) fabric: Loopback,
    pub(crate) stacks: [Stack; 2],
    listener: TcpListener,
}

pub(crate) fn config() -> Config {
    // A machine that is busy elsewhere is no server that does not accept.
    let patience = None;
    Config { hostname: "test".into(), receive_buffer: 64 << 10, patience, ..Config::default() }
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(&config())
    }

    pub(crate) fn with(config: &Config) -> Self {
        let fabric = Loopback::new(0xFF01).unwrap();
        let stack = |n: u8| Stack::new(fabric.join([n; 16]).unwrap(), config).unwrap();
        let stacks = [stack(1), stack(2)];
        Self::of(fabric, stacks)
    }

    /// Of stacks on that fabric.
    pub(crate) fn of(fabric: Loopback, stacks: [Stack; 2]) -> Self {
        Self { fabric, stacks, listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// A TCP connection: the client's end, the server's.
    pub(crate) fn tcp(&self) -> [TcpStream; 2] {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        [client, self.listener.accept().unwrap().0]
    }

    /// Begins a handshake over it.
    pub(crate) fn begin(
        &self,
        [client, server]: [Box<dyn Tcp>; 2],
        speak: [bool; 2],
    ) -> [Arc<Socket>; 2] {
        [
            self.stacks[0].begin(client, Role::Client, speak[0]),
            self.stacks[1].begin(server, Role::Server, speak[1]),
        ]
    }

    /// A connection of SMC.
    pub(crate) fn connect(&self) -> [Arc<Socket>; 2] {
        let sockets = self.begin(self.tcp().map(|it| Box::new(it) as _), [true, true]);
        assert_eq!(settle(&sockets), [Handshake::Smc, Handshake::Smc]);
        sockets
    }
}

/// Waits until something can be read.
pub(crate) fn wait_readable(tcp: &TcpStream) {
    let mut fds = [PollFd::from_borrowed_fd(tcp.as_fd(), PollFlags::IN)];
    let long = LONG.try_into().unwrap();
    assert_eq!(poll(&mut fds, Some(&long)).unwrap(), 1);
}

/// Drives both handshakes to their end.
pub(crate) fn settle(sockets: &[Arc<Socket>; 2]) -> [Handshake; 2] {
    let start = Instant::now();
    loop {
        let stand = sockets.each_ref().map(|it| it.advance());
        if stand.iter().all(|it| *it != Handshake::Pending) {
            return stand;
        }
        assert!(start.elapsed() < LONG, "{stand:?}");
    }
}

pub(crate) fn send(socket: &Socket, bytes: &[u8]) -> Result<usize> {
    socket.send(&[IoSlice::new(bytes)], SendFlags::default())
}

pub(crate) fn recv(socket: &Socket, most: usize) -> Result<Vec<u8>> {
    recv_with(socket, most, RecvFlags::default())
}

pub(crate) fn recv_with(socket: &Socket, most: usize, flags: RecvFlags) -> Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    let n = socket.recv(&mut [IoSliceMut::new(&mut buffer)], flags)?;
    buffer.truncate(n);
    Ok(buffer)
}

/// Blocking.
pub(crate) fn transmit(socket: &Socket, bytes: &[u8]) -> Result<usize> {
    socket.transmit(&[IoSlice::new(bytes)], SendFlags::default(), Some(LONG))
}

/// Blocking.
pub(crate) fn receive(socket: &Socket, most: usize, all: bool) -> Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    let mut buffers = [IoSliceMut::new(&mut buffer)];
    let n = socket.receive(&mut buffers, RecvFlags::default(), all, Some(LONG))?;
    buffer.truncate(n);
    Ok(buffer)
}

pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// Bytes that tell their place.
pub(crate) fn pattern(len: usize, from: usize) -> Vec<u8> {
    (from..from + len).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect()
}
