// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One handshake, driven by several threads.
//!
//! Invariant: each test makes its threads meet where they could miss one another.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use smc_proto::handshake::reason::Failure;
use smc_socket::{Config, Handshake, Role, Socket, Stack};

mod pair;
use pair::{LONG, Pair};

/// The name of the thread that waits.
const WAITER: &str = "waiter";

/// A TCP connection that holds the waiting thread up where it is about to sleep: it has looked at the
/// stream, and asks for the descriptor the second time.
struct Gate {
    tcp: TcpStream,
    asked: AtomicUsize,
    arrives: Mutex<Sender<()>>,
    goes_on: Mutex<Receiver<()>>,
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let waits = thread::current().name() == Some(WAITER);
        if waits && self.asked.fetch_add(1, Ordering::Relaxed) == 1 {
            self.arrives.lock().unwrap().send(()).unwrap();
            self.goes_on.lock().unwrap().recv_timeout(LONG).unwrap();
        }
        self.tcp.as_fd()
    }
}

/// The last message of the handshake is taken out of TCP by another thread than the one that waits for it.
// row 75: without a kernel
#[test]
fn a_thread_that_waits_is_woken_when_another_one_ends_the_handshake() {
    let pair = Pair::with(&Config { spin: Duration::ZERO, ..pair::config() });
    let [client, server] = pair.tcp();
    let (arrives, arrived) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let (arrives, goes_on) = (Mutex::new(arrives), Mutex::new(goes_on));
    let client = Gate { tcp: client, asked: AtomicUsize::new(0), arrives, goes_on };
    let sockets = pair.begin([Box::new(client), Box::new(server)], [true, true]);

    let (end, ended) = mpsc::channel();
    let waiter = Arc::clone(&sockets[0]);
    let waits = move || end.send(waiter.finish_handshake(None).unwrap()).unwrap();
    let thread = thread::Builder::new().name(WAITER.to_owned()).spawn(waits).unwrap();
    arrived.recv_timeout(LONG).unwrap();
    assert_eq!(pair::settle(&sockets), [Handshake::Smc, Handshake::Smc]);
    go_on.send(()).unwrap();
    assert_eq!(ended.recv_timeout(LONG).unwrap(), Handshake::Smc);
    thread.join().unwrap();
}

/// A TCP connection that counts how often it is asked for its descriptor.
struct Counted(TcpStream, Arc<AtomicUsize>);

impl AsFd for Counted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.as_fd()
    }
}

/// What is there of a message ends no sleep, and no spinning: who waits for the rest looks now and then.
#[test]
fn a_peer_that_sends_a_part_of_a_message_does_not_keep_a_waiting_thread_busy() {
    let pair = Pair::new();
    let [mut client, server] = pair.tcp();
    let looks = Arc::new(AtomicUsize::new(0));
    let server = Counted(server, Arc::clone(&looks));
    let server = pair.stacks[1].begin(Box::new(server), Role::Server, true);
    client.write_all(&[0xe2]).unwrap();
    let handshake = server.finish_handshake(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(handshake, Handshake::Pending);
    // A look is a few questions, and there is one each 5 ms. Who is busy asks a hundred thousand times.
    let looks = looks.load(Ordering::Relaxed);
    assert!(looks < 500, "{looks} looks");
}

/// A TCP connection that is cut from its socket when that ends, as by the end of a process, which closes nothing by itself.
struct Cut {
    tcp: TcpStream,
    is_cut: Arc<AtomicBool>,
    nothing: File,
}

impl AsFd for Cut {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let is_cut = self.is_cut.load(Ordering::Relaxed);
        if is_cut { self.nothing.as_fd() } else { self.tcp.as_fd() }
    }
}

/// A client of whom the fabric's part and TCP's end at the test's word.
struct Client {
    stack: Stack,
    socket: Arc<Socket>,
    tcp: TcpStream,
    is_cut: Arc<AtomicBool>,
}

impl Client {
    /// Has connected and proposed; and its server's end.
    fn connect(pair: &Pair) -> (Self, TcpStream) {
        let stack = Stack::new(pair.fabric.join([3; 16]).unwrap(), &pair::config()).unwrap();
        let [tcp, server] = pair.tcp();
        let (is_cut, nothing) = (Arc::default(), File::open("/dev/null").unwrap());
        let cut = Cut { tcp: tcp.try_clone().unwrap(), is_cut: Arc::clone(&is_cut), nothing };
        let socket = stack.begin(Box::new(cut), Role::Client, true);
        (Self { stack, socket, tcp, is_cut }, server)
    }

    /// Is no member any more.
    fn leave(self) -> TcpStream {
        let Self { stack, socket, tcp, is_cut } = self;
        is_cut.store(true, Ordering::Relaxed);
        drop((socket, stack));
        tcp
    }
}

fn serve(pair: &Pair, tcp: TcpStream) -> Arc<Socket> {
    pair.stacks[1].begin(Box::new(tcp), Role::Server, true)
}

/// What becomes of it, looked at again and again.
fn settled(pair: &Pair, socket: &Socket) -> Handshake {
    let start = std::time::Instant::now();
    loop {
        pair.stacks[1].dispatch();
        match socket.advance() {
            Handshake::Pending => assert!(start.elapsed() < LONG),
            handshake => return handshake,
        }
    }
}

/// As a process's descriptors close: the fabric's first.
#[test]
fn a_peer_that_ends_before_it_is_answered_has_ended_its_tcp_connection_and_nothing_else() {
    let pair = Pair::new();
    let (client, server) = Client::connect(&pair);
    let tcp = client.leave();
    let server = serve(&pair, server);
    assert_eq!(server.advance(), Handshake::Pending);
    drop(tcp);
    assert_eq!(settled(&pair, &server), Handshake::Failed(Failure::Reset));
}

#[test]
fn a_peer_that_ends_before_it_confirms_has_ended_its_tcp_connection_and_nothing_else() {
    let pair = Pair::new();
    let (client, server) = Client::connect(&pair);
    let server = serve(&pair, server);
    assert_eq!(server.advance(), Handshake::Pending);
    let tcp = client.leave();
    pair.stacks[1].dispatch();
    assert_eq!(server.advance(), Handshake::Pending);
    drop(tcp);
    assert_eq!(settled(&pair, &server), Handshake::Failed(Failure::Reset));
}

#[test]
fn what_a_peer_has_sent_that_ends_behind_its_confirm_is_read_when_tcp_has_ended_too() {
    let pair = Pair::new();
    let (client, server) = Client::connect(&pair);
    let server = serve(&pair, server);
    assert_eq!(server.advance(), Handshake::Pending);
    assert_eq!(client.socket.advance(), Handshake::Smc);
    assert_eq!(pair::send(&client.socket, b"last words").unwrap(), 10);
    let tcp = client.leave();
    pair.stacks[1].dispatch();
    assert_eq!(server.advance(), Handshake::Pending);
    drop(tcp);
    assert_eq!(settled(&pair, &server), Handshake::Smc);
    assert_eq!(pair::recv(&server, 99).unwrap(), b"last words");
}

#[test]
fn a_peer_that_is_not_on_the_fabric_and_whose_tcp_connection_lives_is_declined() {
    let pair = Pair::new();
    let (client, server) = Client::connect(&pair);
    let _tcp = client.leave();
    let server = serve(&pair, server);
    let handshake = settled(&pair, &server);
    let is_declined = matches!(handshake, Handshake::Late(reason) if reason.peer.is_none());
    assert!(is_declined, "{handshake:?}");
}

#[test]
fn a_peer_that_leaves_the_fabric_in_a_handshake_and_keeps_tcp_ends_the_handshake() {
    let pair = Pair::new();
    let (client, server) = Client::connect(&pair);
    let server = serve(&pair, server);
    assert_eq!(server.advance(), Handshake::Pending);
    let _tcp = client.leave();
    assert_eq!(settled(&pair, &server), Handshake::Failed(Failure::GroupGone));
}
