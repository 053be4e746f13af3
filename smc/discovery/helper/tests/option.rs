// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The option in SYN and SYN-ACK, and what each end learns by it.
//!
//! Invariant: every test has network namespaces of its own; all share one cgroup, that of this process.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{Cgroup, Namespace, Segment, Sniffer, bound, connected, listening, run, tcp};
use rustix::net::{AddressFamily, SocketType, acceptfrom, connect, connect_unspec, listen, socket};
use smc_discovery::sockopt::{mark, namespace, peer_speaks_smc, state, unmark};
use smc_discovery_helper::Attached;
use smc_wire::tcp_option::{self, is_offered};

const LOCAL4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The programs, attached while any test is served.
struct Fixture {
    attached: Attached,
    /// Made before this process entered the cgroup.
    outside: OwnedFd,
    _cgroup: Cgroup,
}

static FIXTURE: Mutex<Option<Arc<Fixture>>> = Mutex::new(None);

fn shared() -> MutexGuard<'static, Option<Arc<Fixture>>> {
    FIXTURE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test's hold on the fixture; the last one's end is the fixture's, under the lock.
struct Served(Arc<Fixture>);

impl Drop for Served {
    fn drop(&mut self) {
        let mut shared = shared();
        if Arc::strong_count(&self.0) == 2 {
            *shared = None;
        }
    }
}

fn fixture() -> Served {
    let mut shared = shared();
    let fixture = shared.get_or_insert_with(|| {
        let outside = tcp(LOCAL4);
        let cgroup = Cgroup::enter();
        Arc::new(Fixture { attached: cgroup.attach(), outside, _cgroup: cgroup })
    });
    Served(Arc::clone(fixture))
}

const NEAR4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const FAR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

/// Two namespaces with a link between them.
fn two_namespaces() -> [Namespace; 2] {
    let [near, far] = [Namespace::new(), Namespace::new()];
    run(&format!(
        "ip link add veth0 netns {} type veth peer name veth0 netns {}",
        near.name, far.name
    ));
    for (namespace, last) in [(&near, 1), (&far, 2)] {
        let ip = format!("ip -n {}", namespace.name);
        run(&format!("{ip} address add 192.0.2.{last}/24 dev veth0"));
        run(&format!("{ip} address add 2001:db8::{last}/64 dev veth0 nodad"));
        run(&format!("{ip} link set veth0 up"));
    }
    [near, far]
}

/// The two ends of a connection, and the options of its SYN and SYN-ACK.
struct Connection {
    client: OwnedFd,
    server: OwnedFd,
    syn: Vec<u8>,
    syn_ack: Vec<u8>,
}

/// Connects within the calling thread's namespace.
fn connection(ip: IpAddr, client_marked: bool, server_marked: bool) -> Connection {
    let sniffer = Sniffer::new();
    let (client, listener) = (tcp(ip), tcp(ip));
    if client_marked {
        assert!(mark(&client).expect("a socket"));
    }
    if server_marked {
        assert!(mark(&listener).expect("a socket"));
    }
    let to = listening(&listener, ip);
    let server = connected(&client, &listener, to);
    let (syn, syn_ack) = sniffer.handshake(to.port());
    Connection { client, server, syn, syn_ack }
}

fn said(socket: &OwnedFd) -> Option<bool> {
    peer_speaks_smc(socket).expect("a socket")
}

/// The option as TCP aligns it when a program writes it: the NOPs that Linux's own SMC puts in front stand behind.
fn aligned() -> Vec<u8> {
    let (nops, option) = tcp_option::OPTION.split_at(2);
    [option, nops].concat()
}

// rows 1, 2
#[test]
fn both_ends_learn_that_the_other_speaks_smc() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    for ip in [LOCAL4, LOCAL6] {
        let connection = connection(ip, true, true);
        for options in [&connection.syn, &connection.syn_ack] {
            assert!(is_offered(options), "{ip}: {options:02x?}");
            assert!(options.ends_with(&aligned()), "{ip}: {options:02x?}");
        }
        assert_eq!(said(&connection.client), Some(true), "{ip}");
        assert_eq!(said(&connection.server), Some(true), "{ip}");
    }
}

#[test]
fn two_network_namespaces_learn_it_too() {
    let _fixture = fixture();
    let [near, far] = two_namespaces();
    for ip in [FAR4, FAR6] {
        far.enter();
        let listener = tcp(ip);
        assert!(mark(&listener).expect("a socket"));
        let to = listening(&listener, ip);
        near.enter();
        let client = tcp(ip);
        assert!(mark(&client).expect("a socket"));
        let server = connected(&client, &listener, to);
        assert_eq!((said(&client), said(&server)), (Some(true), Some(true)), "{ip}");
    }
}

// row 2
#[test]
fn a_syn_without_the_option_is_answered_without() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    for ip in [LOCAL4, LOCAL6] {
        let connection = connection(ip, false, true);
        assert!(!is_offered(&connection.syn), "{ip}: {:02x?}", connection.syn);
        assert!(!is_offered(&connection.syn_ack), "{ip}: {:02x?}", connection.syn_ack);
        assert_eq!(said(&connection.server), Some(false), "{ip}");
    }
}

#[test]
fn a_plain_server_does_not_answer_the_option() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    for ip in [LOCAL4, LOCAL6] {
        let connection = connection(ip, true, false);
        assert!(is_offered(&connection.syn), "{ip}: {:02x?}", connection.syn);
        assert!(!is_offered(&connection.syn_ack), "{ip}: {:02x?}", connection.syn_ack);
        assert_eq!(said(&connection.client), Some(false), "{ip}");
        assert_eq!(said(&connection.server), Some(false), "{ip}");
    }
}

#[test]
fn unmarked_sockets_are_as_ever() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    let connection = connection(LOCAL4, false, false);
    // Maximum segment size, SACK permitted, timestamps, NOP and window scale: what Linux has always sent.
    assert_eq!((connection.syn.len(), connection.syn_ack.len()), (20, 20));
    assert_eq!((said(&connection.client), said(&connection.server)), (Some(false), Some(false)));
}

// row 3
#[test]
fn a_syn_cookie_answers_without_the_option() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.tcp_syncookies=2");
    namespace.enter();
    for ip in [LOCAL4, LOCAL6] {
        let connection = connection(ip, true, true);
        assert!(is_offered(&connection.syn), "{ip}: {:02x?}", connection.syn);
        assert!(!is_offered(&connection.syn_ack), "{ip}: {:02x?}", connection.syn_ack);
        assert_eq!(said(&connection.client), Some(false), "{ip}");
        assert_eq!(said(&connection.server), Some(false), "{ip}");
    }
}

/// The first SYN-ACK is made from the SYN at hand, the second from the saved one.
#[test]
fn a_syn_ack_that_is_sent_again_has_the_option_again() {
    let _fixture = fixture();
    let [near, far] = two_namespaces();
    let client = {
        near.enter();
        tcp(LOCAL4)
    };
    far.enter();
    let (sniffer, listener) = (Sniffer::new(), tcp(LOCAL4));
    assert!(mark(&client).expect("a socket") && mark(&listener).expect("a socket"));
    let to = listening(&listener, FAR4);
    // The server sends to a station that is not there, until its first SYN-ACK is lost.
    let neighbour = |change: &str| run(&format!("ip -n {} neighbour {change} dev veth0", far.name));
    neighbour(&format!("replace {NEAR4} lladdr 02:00:00:00:00:99 nud permanent"));
    let mut segments = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| connect(&client, &to).expect("connect"));
        while !segments.iter().any(|segment: &Segment| segment.ack) {
            segments.extend(sniffer.synchronizing(to.port()));
            std::thread::yield_now();
        }
        neighbour(&format!("del {NEAR4}"));
    });
    segments.extend(sniffer.synchronizing(to.port()));
    assert!(segments.iter().filter(|segment| segment.ack).count() >= 2);
    assert!(segments.iter().all(|segment| is_offered(&segment.options)));
    let server = acceptfrom(&listener).expect("accept").0;
    assert_eq!((said(&client), said(&server)), (Some(true), Some(true)));
}

#[test]
fn an_ipv6_listener_serves_ipv4_too() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    let listener = tcp(LOCAL6);
    assert!(mark(&listener).expect("a socket"));
    let port = listening(&listener, Ipv6Addr::UNSPECIFIED.into()).port();
    for ip in [LOCAL4, LOCAL6] {
        let client = tcp(ip);
        assert!(mark(&client).expect("a socket"));
        let server = connected(&client, &listener, SocketAddr::new(ip, port));
        assert_eq!((said(&client), said(&server)), (Some(true), Some(true)), "{ip}");
    }
}

#[test]
fn a_socket_learns_anew_each_time_that_it_connects() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    let (client, smc, plain) = (tcp(LOCAL4), tcp(LOCAL4), tcp(LOCAL4));
    assert!(mark(&client).expect("a socket") && mark(&smc).expect("a socket"));
    assert_eq!(said(&client), Some(false), "before it connects");
    for (listener, speaks) in [(&smc, true), (&plain, false), (&smc, true)] {
        let to =
            if bound(listener).port() == 0 { listening(listener, LOCAL4) } else { bound(listener) };
        let _server = connected(&client, listener, to);
        assert_eq!(said(&client), Some(speaks));
        connect_unspec(&client).expect("disconnect");
    }
}

#[test]
fn a_mark_that_is_taken_off_is_off_for_new_connections() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    let listener = tcp(LOCAL4);
    assert!(mark(&listener).expect("a socket"));
    let to = listening(&listener, LOCAL4);
    let connect_marked = || {
        let client = tcp(LOCAL4);
        assert!(mark(&client).expect("a socket"));
        let server = connected(&client, &listener, to);
        (client, server)
    };
    let (before, accepted) = connect_marked();
    assert!(unmark(&listener).expect("a socket"));
    let (after, plain) = connect_marked();
    assert_eq!((said(&after), said(&plain)), (Some(false), Some(false)));
    assert_eq!((said(&before), said(&accepted)), (Some(true), Some(true)), "what stood before");
}

#[test]
fn a_client_whose_mark_is_taken_off_offers_nothing() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    let sniffer = Sniffer::new();
    let (client, listener) = (tcp(LOCAL4), tcp(LOCAL4));
    assert!(mark(&client).expect("a socket") && mark(&listener).expect("a socket"));
    assert!(unmark(&client).expect("a socket"));
    let to = listening(&listener, LOCAL4);
    let server = connected(&client, &listener, to);
    let (syn, syn_ack) = sniffer.handshake(to.port());
    assert_eq!((is_offered(&syn), is_offered(&syn_ack)), (false, false));
    assert_eq!((said(&client), said(&server)), (Some(false), Some(false)));
}

#[test]
fn a_listener_is_known_only_while_it_listens() {
    let fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    let places = || fixture.0.attached.listeners().expect("the map");
    // Other tests listen meanwhile, at a few places.
    let before = places();
    let mut listeners: Vec<_> = (0..200).map(|_| tcp(LOCAL4)).collect();
    for listener in &listeners {
        assert!(mark(listener).expect("a socket"));
        listening(listener, LOCAL4);
    }
    assert!(places() >= 200, "{} places", places());
    for listener in &listeners {
        rustix::net::shutdown(listener, rustix::net::Shutdown::Both).expect("shutdown");
    }
    assert!(places() < before + 100, "{} places after the shutdown", places());
    for listener in &listeners {
        listen(listener, 8).expect("listen again");
        assert!(state(listener).expect("a socket").expect("served").is_listening());
    }
    listeners.clear();
    // A process that another test is just starting may still hold them.
    let until = Instant::now() + Duration::from_secs(10);
    while places() >= before + 100 {
        assert!(Instant::now() < until, "{} places after the close", places());
        std::thread::yield_now();
    }
}

#[test]
fn sockets_from_outside_the_cgroup_are_not_served() {
    let fixture = fixture();
    assert!(!mark(&fixture.0.outside).expect("a socket"));
    assert_eq!(said(&fixture.0.outside), None);
}

/// By this the rendezvous tells 127.0.0.1 in one container from 127.0.0.1 in another.
#[test]
fn network_namespaces_are_told_apart() {
    let of_a_socket_in = |place: &Namespace| {
        place.enter();
        namespace(tcp(LOCAL4)).expect("SO_NETNS_COOKIE, of Linux 5.14 and newer")
    };
    let (one, other) = (Namespace::new(), Namespace::new());
    assert_eq!(of_a_socket_in(&one), of_a_socket_in(&one));
    assert_ne!(of_a_socket_in(&one).cookie, of_a_socket_in(&other).cookie);
    assert_eq!(of_a_socket_in(&one).kernel, of_a_socket_in(&other).kernel);
}

#[test]
fn what_is_not_tcp_is_not_served() {
    let _fixture = fixture();
    for (family, kind) in [
        (AddressFamily::INET, SocketType::DGRAM),
        (AddressFamily::INET6, SocketType::DGRAM),
        (AddressFamily::UNIX, SocketType::STREAM),
    ] {
        let socket = socket(family, kind, None).expect("a socket");
        assert!(!mark(&socket).expect("a socket"));
        assert_eq!(said(&socket), None);
    }
}

#[test]
fn no_privileges_are_needed_to_mark_and_to_ask() {
    let _fixture = fixture();
    let namespace = Namespace::new();
    namespace.enter();
    // Of a thread of its own, which thereby loses its capabilities.
    let unprivileged = std::thread::spawn(|| {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("setresuid");
        assert!(rustix::thread::capabilities(None).expect("capget").effective.is_empty());
        let (client, listener) = (tcp(LOCAL4), tcp(LOCAL4));
        assert!(mark(&client).expect("a socket") && mark(&listener).expect("a socket"));
        let to = listening(&listener, LOCAL4);
        let server = connected(&client, &listener, to);
        assert_eq!((said(&client), said(&server)), (Some(true), Some(true)));
    });
    unprivileged.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause));
}
