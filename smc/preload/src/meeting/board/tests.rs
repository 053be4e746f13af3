// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of what a process has on the board.
//!
//! Invariant: each has a fabric of its own, and its sockets are the kernel's.

use super::*;
use ism_client::loopback::Loopback;
use rustix::net::{self, AddressFamily, SocketType};
use smc_socket::Config;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A server's, its child's, and a client's.
fn members() -> [Arc<Meetings>; 3] {
    let fabric = Loopback::new(0xfff0).unwrap();
    [1, 2, 3].map(|n| {
        let stack = Stack::new(fabric.join([n; 16]).unwrap(), &Config::default());
        Meetings::new(&stack.unwrap())
    })
}

fn listener(at: SocketAddr, v6only: bool) -> TcpListener {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket(family, SocketType::STREAM, None).unwrap();
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, v6only).unwrap();
    }
    net::bind(&socket, &at).unwrap();
    net::listen(&socket, 9).unwrap();
    socket.into()
}

fn own(socket: impl AsFd) -> SocketAddr {
    place::local(socket.as_fd()).unwrap()
}

/// A listener, where who connects meets it, and where not.
type Row = (&'static str, bool, &'static [&'static str], &'static [&'static str]);
const ROWS: [Row; 7] = [
    ("127.0.0.2", false, &["127.0.0.2"], &["127.0.0.1", "0.0.0.0", "::1"]),
    ("127.0.0.1", false, &["127.0.0.1", "0.0.0.0"], &["127.0.0.2", "::1"]),
    ("::ffff:127.0.0.1", false, &["127.0.0.1", "0.0.0.0"], &["127.0.0.2", "::1"]),
    ("0.0.0.0", false, &["127.0.0.1", "127.0.0.2", "0.0.0.0"], &["::1"]),
    ("::1", true, &["::1", "::"], &["127.0.0.1"]),
    ("::", false, &["::1", "::", "127.0.0.1", "0.0.0.0"], &[]),
    ("::", true, &["::1", "::"], &["127.0.0.1"]),
];

#[test]
fn who_connects_to_a_listener_calls_it_and_who_connects_elsewhere_does_not() {
    for (at, v6only, met, others) in ROWS {
        let listener = listener((at.parse::<std::net::IpAddr>().unwrap(), 0).into(), v6only);
        let (fd, local) = (listener.as_raw_fd(), own(&listener));
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), local.port());
        for ip in met {
            let [server, child, client] = members();
            assert!(server.listen(fd, local));
            let _tcp = TcpStream::connect(address(ip)).unwrap();
            let accepted = own(listener.accept().unwrap().0);
            assert!(!server.is_called(fd, accepted), "{at}, {ip}: nobody calls");
            let _call = client.call(listener.as_fd(), address(ip)).unwrap();
            assert!(server.is_called(fd, accepted), "{at}, {ip}");
            assert!(child.is_called(fd, accepted), "{at}, {ip}: a child of fork");
        }
        for ip in others {
            let [server, _, client] = members();
            assert!(server.listen(fd, local));
            let call = client.call(listener.as_fd(), address(ip));
            assert!(matches!(call, Err(true)), "{at}, {ip}");
        }
    }
}

#[test]
fn what_is_accepted_at_one_address_does_not_wait_for_who_calls_at_another() {
    let v4 = listener(([0, 0, 0, 0], 0).into(), false);
    let v6 = listener((std::net::Ipv6Addr::UNSPECIFIED, own(&v4).port()).into(), true);
    let [server, _, client] = members();
    for listener in [&v4, &v6] {
        assert!(server.listen(listener.as_raw_fd(), own(listener)));
    }
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), own(&v4).port());
    let _call = client.call(v4.as_fd(), at("127.0.0.1")).unwrap();
    assert!(server.is_called(v4.as_raw_fd(), at("127.0.0.1")));
    assert!(!server.is_called(v6.as_raw_fd(), at("::1")));
}

#[test]
fn a_server_is_called_beside_a_false_one_at_the_very_address() {
    let [server, other, client] = members();
    let any = listener(([0, 0, 0, 0], 0).into(), false);
    let at = SocketAddr::from(([127, 0, 0, 1], own(&any).port()));
    assert!(server.listen(any.as_raw_fd(), own(&any)));
    assert!(other.listen(any.as_raw_fd(), at));
    for _ in 0..2 {
        let _calls = [(); 2].map(|()| client.call(any.as_fd(), at).unwrap());
        assert!(server.is_called(any.as_raw_fd(), at));
    }
}

#[test]
fn where_nobody_listens_is_asked_again_later_and_not_soon() {
    let [server, _, client] = members();
    let listener = listener(([127, 0, 0, 1], 0).into(), false);
    let local = own(&listener);
    let call = || client.call(listener.as_fd(), local).map(drop);
    assert_eq!([call(), call()], [Err(true); 2], "nobody was connected");
    client.is_stranger(local);
    assert!(server.listen(listener.as_raw_fd(), local));
    assert_eq!(call(), Err(false));
    lock(&client.strangers).insert(local, Instant::now());
    assert_eq!(call(), Ok(()));
}

#[test]
fn listeners_that_are_closed_leave_the_board() {
    let [server, ..] = members();
    let kept = listener(([127, 0, 0, 1], 0).into(), false);
    assert!(server.listen(kept.as_raw_fd(), own(&kept)));
    // Two places each, so that their number is never even.
    for n in 0..MOST {
        let dual = listener((std::net::Ipv6Addr::UNSPECIFIED, 0).into(), false);
        assert!(server.listen(dual.as_raw_fd(), own(&dual)), "{n}");
        assert!(lock(&server.listeners).len() <= 2 * LISTENERS, "{n}");
    }
}

/// As with TPROXY: what is accepted has another's address.
#[test]
fn a_listener_is_posted_once_wherever_its_connections_are() {
    let [_, child, _] = members();
    let listener = listener(([127, 0, 0, 1], 0).into(), false);
    let is_called = || child.is_called(listener.as_raw_fd(), ([192, 0, 2, 1], 80).into());
    assert_eq!([is_called(), is_called()], [false; 2]);
    assert_eq!(lock(&child.listeners).len(), 1);
}

#[test]
fn a_socket_that_listens_again_is_posted_once() {
    let [server, _, client] = members();
    let dual = listener((std::net::Ipv6Addr::UNSPECIFIED, 0).into(), false);
    let listen = || server.listen(dual.as_raw_fd(), own(&dual));
    assert_eq!([listen(), listen()], [true; 2]);
    assert_eq!(lock(&server.listeners).len(), 2, "one at each family's any address");
    let at = SocketAddr::from(([127, 0, 0, 1], own(&dual).port()));
    let _call = client.call(dual.as_fd(), at).unwrap();
    assert!(server.is_called(dual.as_raw_fd(), at));
    // A socket of the same number is another one.
    let other = listener(([127, 0, 0, 1], 0).into(), false);
    let mut replaced = OwnedFd::from(dual);
    rustix::io::dup2(&other, &mut replaced).unwrap();
    assert!(server.listen(replaced.as_raw_fd(), own(&other)));
    assert_eq!(lock(&server.listeners).len(), 3);
}

fn post_another(of: &Meetings, id: u64, note: Note) -> bool {
    let mut key = [0xff; 60];
    key[..8].copy_from_slice(&id.to_ne_bytes());
    of.post(&Post { key, id, note }).is_ok()
}

/// Takes all of a process's places on the board: those of 1, 2 and so on.
fn fill(of: &Meetings) {
    assert!((1..).find(|id| !post_another(of, *id, Note::Listen)).is_some_and(|id| id > 2));
}

#[test]
fn what_could_not_be_posted_is_when_it_listens_again_and_not_at_each_connection() {
    for begin in [Meetings::listen, Meetings::is_called] {
        let [process, _, client] = members();
        let listener = listener(([127, 0, 0, 1], 0).into(), false);
        let (fd, local) = (listener.as_raw_fd(), own(&listener));
        let ids = || lock(&process.listeners).keys().copied().collect::<Vec<_>>();
        fill(&process);
        assert_eq!([begin(&process, fd, local), process.listen(fd, local)], [false; 2]);
        let before = ids();
        assert!(post_another(&process, 1, Note::Leave));
        assert!(!process.is_called(fd, local));
        assert!(client.call(listener.as_fd(), local).is_err(), "a connection had it tried again");
        assert!(process.listen(fd, local));
        assert_eq!(ids(), before);
        let _call = client.call(listener.as_fd(), local).unwrap();
        assert!(process.is_called(fd, local));
    }
}

#[test]
fn of_a_listener_at_two_places_each_is_posted_when_there_is_room() {
    let [server, ..] = members();
    let dual = listener((std::net::Ipv6Addr::UNSPECIFIED, 0).into(), false);
    let posted = || lock(&server.listeners).values().filter(|it| it.is_heard == Some(true)).count();
    fill(&server);
    for n in 0..3 {
        assert_eq!(server.listen(dual.as_raw_fd(), own(&dual)), n > 0);
        assert_eq!((posted(), lock(&server.listeners).len()), (n, 2));
        assert!(post_another(&server, 1 + n as u64, Note::Leave));
    }
}

#[test]
fn a_process_with_as_many_listeners_as_it_may_have_still_knows_them() {
    let [server, ..] = members();
    let [kept, other] = [(); 2].map(|()| listener(([127, 0, 0, 1], 0).into(), false));
    assert!(server.listen(kept.as_raw_fd(), own(&kept)));
    let (fd, cookie) = (kept.as_raw_fd(), sockopt::socket_cookie(&kept).ok());
    for id in 1..MOST as u64 {
        let (callers, is_heard) = (HashSet::new(), Some(true));
        let listener = Listener { at: own(&kept), key: [0; 60], fd, cookie, callers, is_heard };
        lock(&server.listeners).insert(id, listener);
    }
    assert_eq!(lock(&server.listeners).len(), MOST);
    assert!(server.listen(fd, own(&kept)));
    assert!(!server.listen(other.as_raw_fd(), own(&other)));
}

#[test]
fn threads_that_listen_on_one_socket_at_once_post_it_once() {
    for _ in 0..200 {
        let [server, ..] = members();
        let listener = listener(([127, 0, 0, 1], 0).into(), false);
        let start = std::sync::Barrier::new(4);
        let listen = || {
            start.wait();
            server.listen(listener.as_raw_fd(), own(&listener))
        };
        std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(listen));
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        });
        assert_eq!(lock(&server.listeners).len(), 1);
    }
}
