// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A cgroup and network namespaces of the tests' own, and TCP sockets in them.
//!
//! Invariant: what is missing on this machine fails a test and says what it is; nothing is skipped.

#![allow(dead_code, reason = "each test binary takes what it needs")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, acceptfrom, bind, connect, eth, getsockname,
    ipproto, listen, recv, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use smc_discovery::sockopt::mark;

pub(crate) fn run(command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| {
        panic!("`{command}` cannot be run ({error}): install the package of {}", words[0])
    });
    assert!(
        output.status.success(),
        "`{command}` failed; these tests need root (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF): {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A cgroup with this process in it; the sockets that it makes from now on belong to it.
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
}

impl Cgroup {
    pub(crate) fn enter() -> Self {
        let root = smc_discovery_helper::cgroup::root().unwrap_or_else(|error| panic!("{error}"));
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("smc-discovery-test-{}-{next}", std::process::id()));
        std::fs::create_dir(&path).unwrap_or_else(|error| {
            panic!(
                "{} cannot be made, which takes root and a writable cgroup file system: {error}",
                path.display()
            )
        });
        let new = Self { path };
        std::fs::write(new.path.join("cgroup.procs"), std::process::id().to_string())
            .unwrap_or_else(|error| panic!("{} cannot be entered: {error}", new.path.display()));
        assert!(
            !mark(tcp(Ipv4Addr::LOCALHOST.into())).expect("a socket"),
            "another smc-discovery serves a cgroup above: end it for these tests"
        );
        new
    }

    /// Attaches the programs, or says why that cannot be.
    pub(crate) fn attach(&self) -> smc_discovery_helper::Attached {
        smc_discovery_helper::Attached::attach(&self.path).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Leaves the cgroup and removes it. Sockets keep it alive, invisibly, while they live.
impl Drop for Cgroup {
    fn drop(&mut self) {
        let root = self.path.parent().expect("it was made in one");
        // Other tests' child processes are in it as well, and some are just ending.
        while let Err(error) = std::fs::remove_dir(&self.path) {
            assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy, "{}", self.path.display());
            for process in std::fs::read_to_string(self.path.join("cgroup.procs"))
                .expect("its processes")
                .lines()
            {
                let _ = std::fs::write(root.join("cgroup.procs"), process);
            }
            std::thread::yield_now();
        }
    }
}

/// A network namespace with its loopback up, for as long as this lives.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("smcd{}-{next}", std::process::id());
        run(&format!("ip netns add {name}"));
        let new = Self { name };
        run(&format!("ip -n {} link set lo up", new.name));
        new
    }

    /// Moves the calling thread into it. Sockets stay in the namespace in which they were made.
    pub(crate) fn enter(&self) {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("ip made it");
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(LinkNameSpaceType::Network),
        )
        .unwrap_or_else(|error| {
            panic!("a network namespace cannot be entered, which takes root: {error}")
        });
    }

    pub(crate) fn sysctl(&self, setting: &str) {
        run(&format!("ip netns exec {} sysctl -qw {setting}", self.name));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub(crate) fn tcp(ip: IpAddr) -> OwnedFd {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))
        .expect("a TCP socket")
}

pub(crate) fn bound(socket: &OwnedFd) -> SocketAddr {
    getsockname(socket).expect("its name").try_into().expect("an IP address")
}

/// Listens on a port of the kernel's choice.
pub(crate) fn listening(socket: &OwnedFd, ip: IpAddr) -> SocketAddr {
    bind(socket, &SocketAddr::new(ip, 0)).expect("bind");
    listen(socket, 8).expect("listen");
    bound(socket)
}

/// Connects, and returns what the listener accepts.
pub(crate) fn connected(client: &OwnedFd, listener: &OwnedFd, to: SocketAddr) -> OwnedFd {
    connect(client, &to).expect("connect");
    acceptfrom(listener).expect("accept").0
}

pub(crate) struct Segment {
    pub(crate) ack: bool,
    /// What follows the 20 bytes of TCP's header.
    pub(crate) options: Vec<u8>,
}

/// Sees every packet of the namespace in which it was made.
pub(crate) struct Sniffer(OwnedFd);

impl Sniffer {
    pub(crate) fn new() -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(eth::ALL))
            .unwrap_or_else(|error| {
                panic!("a packet socket cannot be had, which takes root: {error}")
            });
        Self(socket)
    }

    /// The SYN and SYN-ACK segments of the connections to `port` so far. The kernel hands a segment over before it
    /// handles it, so those of an established connection are here.
    pub(crate) fn synchronizing(&self, port: u16) -> Vec<Segment> {
        let mut found = Vec::new();
        let mut packet = [0; 2048];
        while let Ok((_, len)) = recv(&self.0, &mut packet, RecvFlags::empty()) {
            found.extend(segment(&packet[..len], port));
        }
        found
    }

    /// The options of the first SYN, and of the first SYN-ACK, to and from `port`.
    pub(crate) fn handshake(&self, port: u16) -> (Vec<u8>, Vec<u8>) {
        let segments = self.synchronizing(port);
        let first = |ack| {
            let found = segments.iter().find(|segment| segment.ack == ack);
            found
                .unwrap_or_else(|| panic!("no segment with SYN and ACK = {ack} was seen"))
                .options
                .clone()
        };
        (first(false), first(true))
    }
}

fn segment(packet: &[u8], port: u16) -> Option<Segment> {
    let header = match packet.first()? >> 4 {
        4 => usize::from(packet[0] & 0xf) * 4,
        _ => 40,
    };
    let tcp = packet.get(header..)?;
    let at = |offset: usize| u16::from_be_bytes([tcp[offset], tcp[offset + 1]]);
    (tcp.len() >= 20 && tcp[13] & 0x02 != 0).then_some(())?;
    let ack = tcp[13] & 0x10 != 0;
    let server = if ack { at(0) } else { at(2) };
    (server == port)
        .then(|| Segment { ack, options: tcp[20..usize::from(tcp[12] >> 4) * 4].to_vec() })
}
