// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens to sockets when `smc-discovery` ends, starts again, or runs twice.
//!
//! Invariant: one test alone in this process, since programs that are attached serve all of it.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use common::{Cgroup, Namespace, Sniffer, connected, listening, tcp};
use smc_discovery::sockopt::{mark, peer_speaks_smc, state};
use smc_wire::tcp_option::is_offered;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What client and server are told of a new connection of a client that is marked, and whether the SYN and the
/// SYN-ACK carried the option.
fn outcome(listener: &OwnedFd, to: SocketAddr) -> ([Option<bool>; 2], [bool; 2]) {
    let sniffer = Sniffer::new();
    let client = tcp(LOCAL);
    mark(&client).expect("a socket");
    let server = connected(&client, listener, to);
    let (syn, syn_ack) = sniffer.handshake(to.port());
    let told = [&client, &server].map(|socket| peer_speaks_smc(socket).expect("a socket"));
    (told, [is_offered(&syn), is_offered(&syn_ack)])
}

/// A listener keeps its TCP's callback flags when the program that set them is gone. So to the next program it looks
/// like a listener on which another tool set them: it must not answer for it.
#[test]
fn a_listener_of_an_earlier_run_stays_with_tcp_until_it_is_marked_again() {
    let cgroup = Cgroup::enter();
    let namespace = Namespace::new();
    namespace.enter();
    let listener = tcp(LOCAL);
    assert!(!mark(&listener).expect("a socket"), "nobody is there yet");

    let first = cgroup.attach();
    assert!(mark(&listener).expect("a socket"));
    let to = listening(&listener, LOCAL);
    assert_eq!(outcome(&listener, to), ([Some(true); 2], [true; 2]));

    drop(first);
    assert_eq!(outcome(&listener, to), ([None; 2], [false; 2]), "it has ended, and nothing stays");

    let second = cgroup.attach();
    assert_eq!(
        outcome(&listener, to),
        ([Some(false); 2], [true, false]),
        "it does not know the listener"
    );

    assert!(mark(&listener).expect("a socket"));
    if state(&listener).expect("a socket").is_some_and(|state| state.is_listening()) {
        assert_eq!(outcome(&listener, to), ([Some(true); 2], [true; 2]), "Linux 6.12 and newer");
    } else {
        assert_eq!(
            outcome(&listener, to),
            ([Some(false); 2], [true, false]),
            "older than Linux 6.12"
        );
    }

    let third = cgroup.attach();
    let listener = tcp(LOCAL);
    mark(&listener).expect("a socket");
    let to = listening(&listener, LOCAL);
    assert_eq!(outcome(&listener, to), ([Some(true); 2], [true; 2]), "two at once");
    drop(second);
    assert_eq!(outcome(&listener, to), ([Some(true); 2], [true; 2]), "the other one is left");
    drop(third);
}
