// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Marked sockets and the kernel's own SMC sockets, which write and read the same option.
//!
//! Invariant: needs a kernel with SMC, so it is run in a VM, by `tests/in-guest`.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use common::{Cgroup, Namespace, Sniffer, connected, listening, tcp};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, acceptfrom, bind, connect,
    listen, recv, send, socket_with,
};
use smc_discovery::sockopt::{mark, peer_speaks_smc};
use smc_wire::tcp_option::is_offered;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An SMC socket of the kernel's.
fn smc() -> OwnedFd {
    const AF_SMC: AddressFamily = AddressFamily::from_raw(43);
    socket_with(AF_SMC, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect(
        "AF_SMC: this test needs a kernel with CONFIG_SMC; run smc/discovery/helper/tests/in-guest",
    )
}

/// Sends a word one way.
fn passes(from: &OwnedFd, to: &OwnedFd) {
    let mut bytes = [0; 16];
    send(from, b"hello", SendFlags::empty()).expect("send");
    let (_, len) = recv(to, &mut bytes[..], RecvFlags::empty()).expect("receive");
    assert_eq!(&bytes[..len], b"hello");
}

#[test]
#[ignore = "needs AF_SMC in the kernel: run smc/discovery/helper/tests/in-guest"]
fn marked_sockets_and_the_kernels_find_each_other() {
    let cgroup = Cgroup::enter();
    let _attached = cgroup.attach();
    let namespace = Namespace::new();
    namespace.enter();
    let sniffer = Sniffer::new();

    // The kernel's server answers the option of a marked client, and would wait for its proposal.
    let (client, listener) = (tcp(LOCAL), smc());
    assert!(mark(&client).expect("a socket"));
    let to = SocketAddr::new(LOCAL, 7001);
    bind(&listener, &to).expect("bind");
    listen(&listener, 8).expect("listen");
    connect(&client, &to).expect("connect");
    let (syn, syn_ack) = sniffer.handshake(to.port());
    assert!(is_offered(&syn) && is_offered(&syn_ack), "{syn:02x?} {syn_ack:02x?}");
    assert_eq!(peer_speaks_smc(&client).expect("a socket"), Some(true));

    // The kernel's client proposes to a marked server: "SMCR" in EBCDIC, and the type of a proposal.
    let listener = tcp(LOCAL);
    assert!(mark(&listener).expect("a socket"));
    let to = listening(&listener, LOCAL);
    std::thread::scope(|scope| {
        scope.spawn(|| connect(smc(), &to));
        let server = acceptfrom(&listener).expect("accept").0;
        assert_eq!(peer_speaks_smc(&server).expect("a socket"), Some(true));
        let mut bytes = [0; 5];
        recv(&server, &mut bytes[..], RecvFlags::WAITALL).expect("receive");
        assert_eq!(bytes, [0xe2, 0xd4, 0xc3, 0xd9, 1]);
    });

    // The kernel's client takes an unmarked server for what it is.
    let (client, listener) = (smc(), tcp(LOCAL));
    let to = listening(&listener, LOCAL);
    let server = connected(&client, &listener, to);
    passes(&client, &server);

    // Two sockets of the kernel's are not disturbed.
    let (client, listener) = (smc(), smc());
    let to = SocketAddr::new(LOCAL, 7002);
    bind(&listener, &to).expect("bind");
    listen(&listener, 8).expect("listen");
    let server = connected(&client, &listener, to);
    passes(&client, &server);
    passes(&server, &client);
}
