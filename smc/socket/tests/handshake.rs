// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One handshake, driven by several threads.
//!
//! Invariant: each test makes its threads meet where they could miss one another.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use smc_socket::{Config, Handshake, Role};

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
