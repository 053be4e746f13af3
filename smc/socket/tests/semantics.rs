// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Flags, options, shutdown, waiting: as TCP has them.
//!
//! Invariant: each expectation is what a TCP socket on Linux does, or says where it differs.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use smc_socket::{Config, How, Observe, Ready, RecvFlags, SendFlags, Socket};

mod pair;
use pair::{Pair, errno, pattern, receive, recv, recv_with, send, transmit};

const SOON: Option<Duration> = Some(Duration::from_millis(30));
const PEEK: RecvFlags = RecvFlags { peek: true, oob: false, discard: false };
const OOB: RecvFlags = RecvFlags { peek: false, oob: true, discard: false };

fn send_urgent(socket: &Socket, bytes: &[u8]) {
    let flags = SendFlags { oob: true, more: false };
    assert_eq!(socket.send(&[IoSlice::new(bytes)], flags).unwrap(), bytes.len());
}

/// A connection whose waits never spin.
fn sleepy() -> Pair {
    Pair::with(&Config { spin: Duration::ZERO, ..pair::config() })
}

// row 79: without a kernel
#[test]
fn peeked_bytes_stay() {
    let [client, server] = Pair::new().connect();
    send(&client, b"twice").unwrap();
    assert_eq!(recv_with(&server, 3, PEEK).unwrap(), b"twi");
    assert_eq!(recv_with(&server, 100, PEEK).unwrap(), b"twice");
    assert_eq!(recv(&server, 100).unwrap(), b"twice");
    assert_eq!(errno(recv_with(&server, 100, PEEK)), Errno::AGAIN.raw_os_error());
}

// row 79: without a kernel
#[test]
fn peeking_sees_past_the_rings_end() {
    let [client, server] = Pair::new().connect();
    transmit(&client, &pattern(60_000, 0)).unwrap();
    assert!(receive(&server, 60_000, true).unwrap() == pattern(60_000, 0));
    transmit(&client, &pattern(30_000, 7)).unwrap();
    assert!(recv_with(&server, 30_000, PEEK).unwrap() == pattern(30_000, 7));
    assert!(receive(&server, 30_000, true).unwrap() == pattern(30_000, 7));
}

// row 79: without a kernel
#[test]
fn a_peek_for_all_waits_for_all() {
    let [client, server] = Pair::new().connect();
    send(&client, b"some").unwrap();
    let mut buffer = [0; 8];
    let mut peek = |timeout| {
        let got = server.receive(&mut [IoSliceMut::new(&mut buffer)], PEEK, true, timeout);
        got.map(|n| buffer[..n].to_vec())
    };
    assert_eq!(peek(SOON).unwrap(), b"some");
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        send(&client, b"more").unwrap();
        client
    });
    assert_eq!(peek(Some(pair::LONG)).unwrap(), b"somemore");
    drop(later.join().unwrap());
}

#[test]
fn buffers_are_filled_one_after_another() {
    let [client, server] = Pair::new().connect();
    let parts = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cdefg")];
    assert_eq!(client.send(&parts, SendFlags::default()).unwrap(), 7);
    let (mut one, mut two, mut three) = ([0; 3], [0; 0], [0; 10]);
    let mut buffers =
        [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two), IoSliceMut::new(&mut three)];
    assert_eq!(server.recv(&mut buffers, RecvFlags::default()).unwrap(), 7);
    assert_eq!((&one, &three[..4]), (b"abc", &b"defg"[..]));
}

#[test]
fn discarded_bytes_are_gone() {
    let [client, server] = Pair::new().connect();
    send(&client, b"drop keep").unwrap();
    let discard = RecvFlags { discard: true, ..RecvFlags::default() };
    assert_eq!(recv_with(&server, 5, discard).unwrap(), [0; 5]);
    assert_eq!(recv(&server, 100).unwrap(), b"keep");
}

#[test]
fn a_receive_for_all_gives_what_there_is_at_the_end() {
    let [client, server] = Pair::new().connect();
    send(&client, b"less").unwrap();
    let mut buffer = [0; 10];
    let mut get = |timeout| {
        let mut buffers = [IoSliceMut::new(&mut buffer)];
        server.receive(&mut buffers, RecvFlags::default(), true, timeout)
    };
    assert_eq!(get(SOON).unwrap(), 4);
    assert_eq!(errno(get(SOON)), Errno::AGAIN.raw_os_error());
    send(&client, b"rest").unwrap();
    client.shutdown(How::Write).unwrap();
    assert_eq!(get(None).unwrap(), 4);
    assert_eq!(get(None).unwrap(), 0);
}

#[test]
fn a_low_water_mark_hides_few_bytes() {
    let [client, server] = Pair::new().connect();
    server.set_low_water(5).unwrap();
    send(&client, b"four").unwrap();
    assert!(!server.readiness().contains(Ready::READABLE));
    assert_eq!(server.wait(Ready::READABLE, SOON).unwrap(), Ready::NOTHING);
    send(&client, b"!").unwrap();
    assert!(server.readiness().contains(Ready::READABLE));
    assert_eq!(receive(&server, 100, false).unwrap(), b"four!");
    send(&client, b"end").unwrap();
    client.shutdown(How::Write).unwrap();
    assert_eq!(receive(&server, 100, false).unwrap(), b"end");
}

/// Who waits for more bytes than the writer's SO_SNDBUF lets come.
#[test]
fn a_low_water_mark_hides_nothing_from_a_peer_that_sends_no_more() {
    let [client, server] = Pair::new().connect();
    client.set_send_buffer(20_000).unwrap();
    server.set_low_water(30_000).unwrap();
    assert_eq!(send(&client, &pattern(40_000, 0)).unwrap(), 20_000);
    assert!(server.readiness().contains(Ready::READABLE));
    let mut buffer = [0; 30_000];
    let peeked = server.receive(&mut [IoSliceMut::new(&mut buffer)], PEEK, true, None);
    assert_eq!(peeked.unwrap(), 20_000);
    assert_eq!(recv(&server, 15_000).unwrap(), pattern(15_000, 0));
    assert!(!server.readiness().contains(Ready::READABLE));
}

#[test]
fn who_is_below_the_low_water_mark_hears_that_the_peer_sends_no_more() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    let log = Arc::new(Log::default());
    server.observe(Some(Arc::clone(&log) as _));
    server.set_low_water(30_000).unwrap();
    assert_eq!(send(&client, &pattern(20_000, 0)).unwrap(), 20_000);
    pair.stacks[1].dispatch();
    assert!(log.has(Ready::READABLE) && !server.readiness().contains(Ready::READABLE));
    client.set_send_buffer(20_000).unwrap();
    pair.stacks[1].dispatch();
    assert!(log.has(Ready::READABLE) && server.readiness().contains(Ready::READABLE));
}

#[test]
fn an_urgent_byte_is_kept_aside() {
    let [client, server] = Pair::new().connect();
    assert_eq!(errno(recv_with(&server, 1, OOB)), Errno::INVAL.raw_os_error());
    send_urgent(&client, b"ab!");
    assert!(server.readiness().contains(Ready::URGENT));
    assert_eq!(recv(&server, 100).unwrap(), b"ab");
    assert!(server.at_mark().unwrap());
    assert_eq!(recv_with(&server, 1, OOB).unwrap(), b"!");
    assert_eq!(errno(recv_with(&server, 1, OOB)), Errno::INVAL.raw_os_error());
    send(&client, b"cd").unwrap();
    assert_eq!(recv(&server, 100).unwrap(), b"cd");
    assert!(!server.at_mark().unwrap());
}

#[test]
fn an_urgent_byte_may_stay_in_the_stream() {
    let [client, server] = Pair::new().connect();
    server.set_oob_inline(true).unwrap();
    send_urgent(&client, b"ab!");
    assert_eq!(recv(&server, 100).unwrap(), b"ab");
    assert!(server.at_mark().unwrap());
    assert_eq!(recv(&server, 100).unwrap(), b"!");
    assert_eq!(errno(recv_with(&server, 1, OOB)), Errno::INVAL.raw_os_error());
}

#[test]
fn a_half_close_leaves_the_other_direction() {
    let [client, server] = sleepy().connect();
    client.shutdown(How::Write).unwrap();
    assert_eq!(errno(send(&client, b"x")), Errno::PIPE.raw_os_error());
    assert_eq!(receive(&server, 1, false).unwrap(), b"");
    assert!(server.readiness().contains(Ready::READ_CLOSED | Ready::WRITABLE));
    let answer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        transmit(&server, &pattern(100_000, 3)).unwrap();
        server.shutdown(How::Write).unwrap();
        server
    });
    assert!(receive(&client, 100_000, true).unwrap() == pattern(100_000, 3));
    assert_eq!(receive(&client, 1, false).unwrap(), b"");
    assert!(client.readiness().contains(Ready::HANG_UP));
    assert!(answer.join().unwrap().readiness().contains(Ready::HANG_UP));
}

#[test]
fn shut_for_reading_gives_the_end() {
    let [client, server] = Pair::new().connect();
    client.shutdown(How::Read).unwrap();
    assert_eq!(receive(&client, 1, false).unwrap(), b"");
    send(&client, b"still").unwrap();
    assert_eq!(receive(&server, 5, true).unwrap(), b"still");
}

// row 77: without a kernel
#[test]
fn a_cork_holds_back() {
    let [client, server] = Pair::new().connect();
    client.set_cork(true).unwrap();
    send(&client, b"held").unwrap();
    assert_eq!(client.held_back().unwrap(), 4);
    assert_eq!(errno(recv(&server, 1)), Errno::AGAIN.raw_os_error());
    client.set_cork(false).unwrap();
    assert_eq!(recv(&server, 100).unwrap(), b"held");
    let more = SendFlags { more: true, oob: false };
    client.send(&[IoSlice::new(b"one ")], more).unwrap();
    assert_eq!(errno(recv(&server, 1)), Errno::AGAIN.raw_os_error());
    send(&client, b"two").unwrap();
    assert_eq!(recv(&server, 100).unwrap(), b"one two");
}

#[test]
fn timeouts_are_kept_and_partial_results_given() {
    for pair in [Pair::new(), sleepy()] {
        let [client, server] = pair.connect();
        let start = Instant::now();
        let mut buffer = [0; 4];
        let got = server.receive(&mut [IoSliceMut::new(&mut buffer)], <_>::default(), false, SOON);
        assert_eq!(errno(got), Errno::AGAIN.raw_os_error());
        assert!(start.elapsed() >= SOON.unwrap());
        let much = pattern(100_000, 0);
        let sent = client.transmit(&[IoSlice::new(&much)], SendFlags::default(), SOON).unwrap();
        assert_eq!(sent, 65_504);
        let none = client.transmit(&[IoSlice::new(&much)], SendFlags::default(), SOON);
        assert_eq!(errno(none), Errno::AGAIN.raw_os_error());
    }
}

#[test]
fn sleepers_wake_for_bytes_room_and_ends() {
    let pair = sleepy();
    for _ in 0..50 {
        let [client, server] = pair.connect();
        let echo = thread::spawn(move || {
            let got = receive(&server, 200_000, true).unwrap();
            transmit(&server, &got).unwrap();
            assert_eq!(receive(&server, 1, false).unwrap(), b"");
        });
        transmit(&client, &pattern(200_000, 1)).unwrap();
        assert!(receive(&client, 200_000, true).unwrap() == pattern(200_000, 1));
        drop(client);
        echo.join().unwrap();
    }
}

#[test]
fn many_threads_sleep_at_many_sockets_of_one_stack() {
    let pair = sleepy();
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let [client, server] = pair.connect();
            let serve = thread::spawn(move || {
                loop {
                    let got = receive(&server, 100, false).unwrap();
                    if got.is_empty() {
                        return;
                    }
                    transmit(&server, &got).unwrap();
                }
            });
            let ask = thread::spawn(move || {
                for round in 0..500 {
                    let ask = pattern(1 + round % 100, n * round);
                    transmit(&client, &ask).unwrap();
                    assert_eq!(receive(&client, ask.len(), true).unwrap(), ask);
                }
            });
            (ask, serve)
        })
        .collect();
    for (ask, serve) in threads {
        ask.join().unwrap();
        serve.join().unwrap();
    }
}

#[test]
fn two_threads_may_wait_for_one_socket() {
    for pair in [Pair::new(), sleepy()] {
        let [client, server] = pair.connect();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let server = Arc::clone(&server);
                thread::spawn(move || receive(&server, 1, false).unwrap())
            })
            .collect();
        thread::sleep(Duration::from_millis(20));
        send(&client, b"a").unwrap();
        thread::sleep(Duration::from_millis(20));
        send(&client, b"b").unwrap();
        let mut got: Vec<_> = waiting.into_iter().map(|it| it.join().unwrap()).collect();
        got.sort();
        assert_eq!(got, [b"a", b"b"]);
    }
}

#[derive(Default)]
struct Log {
    news: Mutex<Vec<Ready>>,
    count: AtomicUsize,
}

impl Observe for Log {
    fn ready(&self, news: Ready) {
        self.news.lock().unwrap().push(news);
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Log {
    fn has(&self, wanted: Ready) -> bool {
        self.news.lock().unwrap().drain(..).any(|it| it.contains(wanted))
    }
}

#[test]
fn an_observer_is_told_by_whoever_dispatches() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    let log = Arc::new(Log::default());
    server.observe(Some(Arc::clone(&log) as _));
    send(&client, b"1").unwrap();
    assert!(!log.has(Ready::READABLE));
    pair.stacks[1].dispatch();
    assert!(log.has(Ready::READABLE));
    send(&client, b"2").unwrap();
    pair.stacks[1].dispatch();
    assert!(log.has(Ready::READABLE), "edge-triggered epoll reports each arrival");
    pair.stacks[1].dispatch();
    assert_eq!(log.news.lock().unwrap().len(), 0);
    drop(client);
    pair.stacks[1].dispatch();
    assert!(log.has(Ready::READ_CLOSED));
}

#[test]
fn who_waits_for_a_socket_that_is_over_keeps_no_later_one_s_peer_from_signalling() {
    let pair = Pair::new();
    let over = pair.connect();
    over.iter().for_each(|socket| socket.close(None));
    pair.stacks.iter().for_each(smc_socket::Stack::dispatch);
    let [client, server] = pair.connect();
    let log = Arc::new(Log::default());
    server.observe(Some(Arc::clone(&log) as _));
    for socket in over {
        socket.wait(Ready::READABLE, Some(Duration::ZERO)).unwrap();
    }
    send(&client, b"1").unwrap();
    pair.stacks[1].dispatch();
    assert!(log.has(Ready::READABLE));
}

#[test]
fn a_stack_sleeps_on_its_descriptor() {
    let pair = Pair::new();
    let [client, server] = pair.connect();
    let log = Arc::new(Log::default());
    server.observe(Some(Arc::clone(&log) as _));
    let stack = pair.stacks[1].clone();
    let sleeps = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&sleeps);
    let poller = thread::spawn(move || {
        while !log.has(Ready::READ_CLOSED) {
            if stack.prepare_sleep() {
                begun.fetch_add(1, Ordering::SeqCst);
                let fd = stack.wake_fd();
                let mut fds =
                    [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
                let ready = rustix::event::poll(&mut fds, None).unwrap();
                stack.wake_up(ready > 0);
            }
        }
        log.count.load(Ordering::SeqCst)
    });
    let sleeps = || sleeps.load(Ordering::SeqCst);
    let asleep_since = |before| {
        let start = Instant::now();
        while sleeps() == before {
            assert!(start.elapsed() < pair::LONG);
            thread::yield_now();
        }
    };
    asleep_since(0);
    for _ in 0..20 {
        let before = sleeps();
        send(&client, b"x").unwrap();
        asleep_since(before);
    }
    drop(client);
    let news = poller.join().unwrap();
    assert!(sleeps() <= 60, "{} sleeps for 21 events", sleeps());
    assert!(news >= 2);
    assert_eq!(recv(&server, 100).unwrap(), [b'x'; 20]);
}

#[test]
fn a_handshake_may_be_given_up() {
    let pair = Pair::new();
    let [client, server] = pair.tcp();
    let [client, server] = pair.begin([Box::new(client), Box::new(server)], [true, true]);
    client.close(None);
    let start = Instant::now();
    while server.advance() == smc_socket::Handshake::Pending {
        assert!(start.elapsed() < pair::LONG);
    }
    assert!(matches!(server.handshake(), smc_socket::Handshake::Failed(_)));
    assert_eq!(pair.stacks.each_ref().map(|it| it.sockets()), [0, 0]);
}

#[test]
fn a_close_ends_tcp_though_somebody_else_has_its_descriptor() {
    let pair = Pair::new();
    let [client, server] = pair.tcp();
    // As a program that was executed has it.
    let other = server.try_clone().unwrap();
    let tcp: [Box<dyn smc_socket::Tcp>; 2] = [Box::new(client), Box::new(server)];
    let sockets = pair.begin(tcp, [true, true]);
    assert_eq!(pair::settle(&sockets), [smc_socket::Handshake::Smc; 2]);
    sockets[1].close(None);
    let sent = rustix::net::send(&other, b"x", rustix::net::SendFlags::NOSIGNAL);
    assert_eq!(sent, Err(Errno::PIPE));
}
