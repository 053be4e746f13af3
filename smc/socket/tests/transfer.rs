// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Handshake and data between two stacks of one process, over a real TCP connection.
//!
//! Invariant: nothing waits longer than [`pair::LONG`].

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use smc_socket::{Config, Handshake, How, Ready, Socket};

mod pair;
use pair::{Pair, errno, pattern, receive, recv, send, settle, transmit, wait_readable};

#[test]
fn a_connection_moves_to_smc_and_back_and_forth() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    assert_eq!(send(&client, b"hello").unwrap(), 5);
    assert_eq!(recv(&server, 100).unwrap(), b"hello");
    assert_eq!(send(&server, b"world!").unwrap(), 6);
    assert_eq!(recv(&client, 3).unwrap(), b"wor");
    assert_eq!(recv(&client, 100).unwrap(), b"ld!");
    assert_eq!(errno(recv(&client, 1)), Errno::AGAIN.raw_os_error());
}

// row 4
#[test]
fn without_the_option_nothing_is_proposed() {
    let pair = Pair::new();
    let [mut client, mut server] = pair.tcp();
    let tcp = [&client, &server].map(|it| Box::new(it.try_clone().unwrap()) as _);
    let sockets = pair.begin(tcp, [false, false]);
    assert!(matches!(settle(&sockets), [Handshake::Tcp(_), Handshake::Tcp(_)]));
    client.write_all(b"plain").unwrap();
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"plain");
}

#[test]
fn bytes_behind_a_decline_stay_in_tcp() {
    let pair = Pair::with(&smc_socket::Config { eid: "ONE".into(), ..pair::config() });
    let other = Pair::with(&smc_socket::Config { eid: "OTHER".into(), ..pair::config() });
    let [mut client, mut server] = pair.tcp();
    let tcp = [&client, &server].map(|it| Box::new(it.try_clone().unwrap()) as _);
    let [to_client, to_server]: [Box<dyn smc_socket::Tcp>; 2] = tcp;
    let sockets = [
        pair.stacks[0].begin(to_client, smc_socket::Role::Client, true),
        other.stacks[1].begin(to_server, smc_socket::Role::Server, true),
    ];
    let stand = settle(&sockets);
    assert!(matches!(stand, [Handshake::Tcp(_), Handshake::Late(_)]), "{stand:?}");
    server.write_all(b"behind").unwrap();
    client.write_all(b"before").unwrap();
    wait_readable(&server);
    assert!(matches!(sockets[1].advance(), Handshake::Tcp(_)));
    let mut bytes = [0; 6];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"behind");
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"before");
}

#[test]
fn a_long_stream_passes_the_ring_often_in_both_directions() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    const LEN: usize = 5_000_000;
    let ends = [client, server].map(|socket| {
        let writer = std::sync::Arc::clone(&socket);
        let writes = thread::spawn(move || {
            let mut at = 0;
            while at < LEN {
                let n = (1 + at * 7919 % 100_000).min(LEN - at);
                assert_eq!(transmit(&writer, &pattern(n, at)).unwrap(), n);
                at += n;
            }
            writer.shutdown(How::Write).unwrap();
        });
        let reads = thread::spawn(move || {
            let mut at = 0;
            loop {
                let got = receive(&socket, 1 + at * 104_729 % 80_000, at % 3 == 0).unwrap();
                if got.is_empty() {
                    return at;
                }
                assert!(got == pattern(got.len(), at), "at {at}");
                at += got.len();
            }
        });
        (writes, reads)
    });
    for (writes, reads) in ends {
        writes.join().unwrap();
        assert_eq!(reads.join().unwrap(), LEN);
    }
}

#[test]
fn a_full_ring_blocks_and_room_wakes() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    let mut sent = 0;
    while let Ok(n) = send(&client, &pattern(10_000, sent)) {
        sent += n;
    }
    assert_eq!(sent, (64 << 10) - 32);
    assert!(!client.readiness().contains(Ready::WRITABLE));
    assert_eq!(client.pending_out().unwrap() as usize, sent);
    assert_eq!(server.pending_in().unwrap() as usize, sent);
    assert_eq!(receive(&server, sent, true).unwrap(), pattern(sent, 0));
    assert!(client.readiness().contains(Ready::WRITABLE));
    assert_eq!(client.pending_out().unwrap(), 0);
}

#[test]
fn a_close_gives_the_rest_and_then_the_end() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    send(&client, b"last words").unwrap();
    client.close(None);
    assert_eq!(receive(&server, 4, true).unwrap(), b"last");
    assert_eq!(receive(&server, 100, false).unwrap(), b" words");
    assert_eq!(receive(&server, 100, false).unwrap(), b"");
    assert!(server.readiness().contains(Ready::READABLE | Ready::READ_CLOSED));
    assert_eq!(errno(send(&server, b"x")), Errno::PIPE.raw_os_error());
    server.close(None);
    pair.stacks.iter().for_each(|stack| stack.dispatch());
    assert_eq!(pair.stacks.each_ref().map(|stack| stack.sockets()), [0, 0]);
}

#[test]
fn a_close_with_unread_bytes_resets() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    send(&client, b"never read").unwrap();
    server.close(None);
    assert_eq!(errno(receive(&client, 1, false)), Errno::CONNRESET.raw_os_error());
    assert_eq!(receive(&client, 1, false).unwrap(), b"");
}

#[test]
fn lingering_for_no_time_resets() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    client.close(Some(std::time::Duration::ZERO));
    assert_eq!(errno(receive(&server, 1, false)), Errno::CONNRESET.raw_os_error());
}

#[test]
fn many_connections_one_after_another_leave_nothing() {
    let pair = Pair::new();
    for n in 0..200 {
        let [client, server] = pair.connect();
        transmit(&client, &pattern(20_000, n)).unwrap();
        assert_eq!(receive(&server, 20_000, true).unwrap(), pattern(20_000, n));
    }
    pair.stacks.iter().for_each(|stack| stack.dispatch());
    assert_eq!(pair.stacks.each_ref().map(|stack| stack.sockets()), [0, 0]);
    let (_, _, dmbs) = pair.fabric.totals();
    assert!(dmbs <= 4, "{dmbs} DMBs for one connection at a time");
}

#[test]
fn a_process_may_connect_to_itself() {
    let pair = Pair::new();
    let [stack, _] = &pair.stacks;
    for n in 0..20 {
        let [client, server] = pair.tcp();
        let sockets = [
            stack.begin(Box::new(client), smc_socket::Role::Client, true),
            stack.begin(Box::new(server), smc_socket::Role::Server, true),
        ];
        assert_eq!(settle(&sockets), [Handshake::Smc, Handshake::Smc]);
        let [client, server] = sockets;
        transmit(&client, &pattern(50_000, n)).unwrap();
        assert!(receive(&server, 50_000, true).unwrap() == pattern(50_000, n));
        let asleep = thread::spawn(move || receive(&client, 5, true).unwrap());
        thread::sleep(std::time::Duration::from_millis(2));
        transmit(&server, b"woken").unwrap();
        assert_eq!(asleep.join().unwrap(), b"woken");
    }
    stack.dispatch();
    assert_eq!(stack.sockets(), 0);
}

#[test]
fn many_handshakes_at_a_time() {
    let pair = Pair::new();
    let begun: Vec<_> = (0..100)
        .map(|_| pair.begin(pair.tcp().map(|it| Box::new(it) as _), [true, true]))
        .collect();
    for sockets in &begun {
        assert_eq!(settle(sockets), [Handshake::Smc, Handshake::Smc]);
    }
    for (n, [client, server]) in begun.iter().enumerate() {
        send(client, &pattern(100, n)).unwrap();
        assert!(recv(server, 1000).unwrap() == pattern(100, n));
    }
    drop(begun);
    pair.stacks.iter().for_each(|stack| stack.dispatch());
    assert_eq!(pair.stacks.each_ref().map(|stack| stack.sockets()), [0, 0]);
}

#[test]
fn a_socket_tells_of_itself() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    send(&client, b"abc").unwrap();
    let there = client.info().smc.unwrap();
    let here = server.info().smc.unwrap();
    assert_eq!((here.token, here.peer_token), (there.peer_token, there.token));
    assert_eq!((there.unfinished, there.cursors.tx_prod.count, here.cursors.ring), (3, 3, 65_504));
    let connections = |stack: &smc_socket::Stack| {
        stack
            .with_endpoint(|it| it.groups().infos().map(|it| it.connections).sum::<usize>())
            .unwrap()
    };
    assert_eq!(pair.stacks.each_ref().map(connections), [1, 1]);
}

/// SO_SNDBUF. The ring has room for more.
#[test]
fn a_send_buffer_bounds_what_the_peer_has_not_read() {
    let [client, server] = Pair::new().connect();
    client.set_send_buffer(20_000).unwrap();
    assert_eq!(send(&client, &pattern(60_000, 0)).unwrap(), 20_000);
    assert_eq!(errno(send(&client, &[1])), Errno::AGAIN.raw_os_error());
    assert!(!client.readiness().contains(Ready::WRITABLE));
    assert_eq!(recv(&server, 15_000).unwrap(), pattern(15_000, 0));
    assert!(client.readiness().contains(Ready::WRITABLE));
    assert_eq!(send(&client, &pattern(40_000, 20_000)).unwrap(), 15_000);
    client.set_send_buffer(1 << 20).unwrap();
    assert_eq!(send(&client, &pattern(10_000, 35_000)).unwrap(), 10_000);
    assert_eq!(recv(&server, 60_000).unwrap(), pattern(30_000, 15_000));
}

/// The reader's end learns that the writer waits, whatever room its ring has.
#[test]
fn a_small_send_buffer_stops_nobody_for_good() {
    let [client, server] = Pair::new().connect();
    client.set_send_buffer(1).unwrap();
    let all = pattern(1 << 20, 0);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(transmit(&client, &all).unwrap(), all.len()));
        assert_eq!(receive(&server, all.len(), true).unwrap(), all);
    });
}

/// Who reads all there is and then waits in poll or epoll never sees EAGAIN.
#[test]
fn a_small_send_buffer_stops_nobody_whose_peer_only_polls() {
    let pair = Pair::with(&Config { receive_buffer: 512 << 10, ..pair::config() });
    let [client, server] = pair.connect();
    client.set_send_buffer(20_000).unwrap();
    let all = pattern(200_000, 0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| transmit(&client, &all).unwrap());
        let mut got = Vec::new();
        while got.len() < all.len() && !writer.is_finished() {
            if server.readiness().contains(Ready::READABLE) {
                got.extend(recv(&server, all.len()).unwrap());
            }
            thread::yield_now();
        }
        assert_eq!(writer.join().unwrap(), all.len());
        while got.len() < all.len() {
            got.extend(recv(&server, all.len()).unwrap());
        }
        assert_eq!(got, all);
    });
}

/// A kernel that was blocked when it closed goes on with what has waited.
#[test]
fn a_ring_whose_writer_closed_while_it_was_full_serves_no_other_connection() {
    let pair = Pair::new();
    let of_server = |fills: bool| {
        let [client, server] = pair.connect();
        while fills && send(&client, &[0; 60_000]).is_ok() {}
        client.close(None);
        while recv(&server, 60_000).is_ok_and(|bytes| !bytes.is_empty()) {}
        server.close(None);
        pair.stacks.iter().for_each(smc_socket::Stack::dispatch);
        server.info().smc.unwrap().token
    };
    let first = of_server(false);
    assert_eq!(of_server(true), first);
    assert_ne!(of_server(false), first);
}

/// All that two processes share has to fit in what the fabric gives a pair.
#[test]
fn further_connections_have_smaller_rings() {
    let crowds = [(2, 64 << 10), (3, 32 << 10), (4, 16 << 10)];
    let pair = Pair::with(&Config { receive_buffer: 128 << 10, crowds, ..pair::config() });
    let ring = |sockets: &[Arc<Socket>; 2]| {
        sockets[1].info().smc.unwrap().cursors.peer_ring.next_power_of_two() >> 10
    };
    let sockets: Vec<_> = (0..5).map(|_| pair.connect()).collect();
    assert_eq!(sockets.iter().map(ring).collect::<Vec<_>>(), [128, 128, 64, 32, 16]);
}
