// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Servers that accept late: the client does not wait for them, as with TCP.
//!
//! Invariant: what both applications read from TCP is what the other one wrote, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pair;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pair::{LONG, Pair, config, wait_readable};
use rustix::io::Errno;
use smc_socket::{Config, Handshake, Role, Socket};

/// Short, as nothing here is to be accepted in time.
fn impatient() -> Pair {
    Pair::with(&Config { patience: Some(Duration::from_millis(20)), ..config() })
}

fn begin(pair: &Pair, role: Role, tcp: &TcpStream) -> Arc<Socket> {
    let [client, server] = &pair.stacks;
    let stack = if role == Role::Client { client } else { server };
    stack.begin(Box::new(tcp.try_clone().unwrap()), role, true)
}

fn is_late(handshake: Handshake) -> bool {
    matches!(handshake, Handshake::Late(_))
}

fn is_tcp(handshake: Handshake) -> bool {
    matches!(handshake, Handshake::Tcp(_))
}

/// It was told that its peer proposes, and the peer, which was told otherwise, has sent bytes of its own: all at once, or
/// so few that a proposal could begin so.
#[test]
fn a_server_to_which_nothing_is_proposed_has_plain_bytes() {
    let pair = impatient();
    for (first, rest) in [(&b""[..], &b"hello"[..]), (&b"\xe2\xd4\xc3"[..], &b"\x00 plain"[..])] {
        let [mut client, mut server] = pair.tcp();
        let accepted = begin(&pair, Role::Server, &server);
        if !first.is_empty() {
            client.write_all(first).unwrap();
            wait_readable(&server);
            assert_eq!(accepted.advance(), Handshake::Pending);
        }
        client.write_all(rest).unwrap();
        assert!(is_tcp(accepted.finish_handshake(Some(LONG)).unwrap()));
        let mut bytes = vec![0; first.len() + rest.len()];
        server.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [first, rest].concat());
        // Nothing was said of SMC.
        server.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }
}

#[test]
fn what_was_sent_before_the_accept_is_there_after_it() {
    let pair = impatient();
    let [mut client, mut server] = pair.tcp();
    let socket = begin(&pair, Role::Client, &client);
    assert!(is_late(socket.finish_handshake(Some(LONG)).unwrap()));
    client.write_all(b"early").unwrap();
    let accepted = begin(&pair, Role::Server, &server);
    assert!(is_tcp(accepted.finish_handshake(Some(LONG)).unwrap()));
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"early");
    // The first that comes back is the application's.
    assert!(is_late(socket.advance()));
    server.write_all(b"answer").unwrap();
    wait_readable(&client);
    assert!(is_tcp(socket.advance()));
    let mut bytes = [0; 6];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"answer");
}

#[test]
fn an_accept_on_its_way_to_a_client_that_has_withdrawn_is_taken_out() {
    let pair = impatient();
    let [mut client, mut server] = pair.tcp();
    let socket = begin(&pair, Role::Client, &client);
    let accepted = begin(&pair, Role::Server, &server);
    // The server has answered, and the client does not look before it withdraws.
    wait_readable(&server);
    assert_eq!(accepted.advance(), Handshake::Pending);
    wait_readable(&client);
    assert!(is_late(socket.withdraw()));
    client.write_all(b"data").unwrap();
    assert!(is_tcp(accepted.finish_handshake(Some(LONG)).unwrap()));
    server.write_all(b"back").unwrap();
    assert!(is_tcp(socket.advance()));
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"data");
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"back");
    assert!(pair.stacks.iter().all(|stack| stack.sockets() == 0));
}

#[test]
fn an_accept_that_came_in_time_counts_though_nobody_has_looked() {
    let pair = impatient();
    let [client, server] = pair.tcp();
    let socket = begin(&pair, Role::Client, &client);
    let accepted = begin(&pair, Role::Server, &server);
    wait_readable(&server);
    accepted.advance();
    wait_readable(&client);
    // The client's time is over before it looks again.
    let [stack, _] = &pair.stacks;
    while stack.next_timeout().is_some_and(|left| !left.is_zero()) {
        std::thread::yield_now();
    }
    stack.dispatch();
    assert_eq!(socket.handshake(), Handshake::Smc);
    assert_eq!(accepted.finish_handshake(Some(LONG)).unwrap(), Handshake::Smc);
}

#[test]
fn a_client_that_has_closed_leaves_its_bytes_and_an_end() {
    let pair = impatient();
    let [mut client, mut server] = pair.tcp();
    let socket = begin(&pair, Role::Client, &client);
    assert!(is_late(socket.finish_handshake(Some(LONG)).unwrap()));
    client.write_all(b"last").unwrap();
    drop(socket);
    drop(client);
    let accepted = begin(&pair, Role::Server, &server);
    assert!(is_tcp(accepted.finish_handshake(Some(LONG)).unwrap()));
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"last");
}

#[test]
fn the_begin_of_a_word_is_data_when_no_more_of_it_comes() {
    let pair = impatient();
    let [mut client, mut server] = pair.tcp();
    let socket = begin(&pair, Role::Client, &client);
    assert!(is_late(socket.withdraw()));
    // As the word would begin, and the end of all that the server says.
    server.write_all(&[0xE2, 0xD4]).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    wait_readable(&client);
    assert!(is_late(socket.advance()));
    let word = Arc::clone(socket.late_word().unwrap());
    assert!(word.is_partial());
    while !is_tcp(socket.advance()) {
        std::thread::yield_now();
    }
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [0xE2, 0xD4]);
}

#[test]
fn a_reset_is_left_to_the_application() {
    let pair = impatient();
    let [mut client, server] = pair.tcp();
    let socket = begin(&pair, Role::Client, &client);
    assert!(is_late(socket.withdraw()));
    rustix::net::connect_unspec(&server).unwrap();
    wait_readable(&client);
    assert!(is_tcp(socket.advance()));
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::CONNRESET.raw_os_error()));
}

#[test]
fn without_patience_the_end_is_that_of_linux() {
    let pair = Pair::with(&Config { patience: None, ..config() });
    let [client, _server] = pair.tcp();
    let socket = begin(&pair, Role::Client, &client);
    let [stack, _] = &pair.stacks;
    let timeout = stack.next_timeout().unwrap();
    assert!(timeout > Duration::from_secs(3), "{timeout:?}");
    assert_eq!(socket.advance(), Handshake::Pending);
}
