// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that a process shares with its children of fork.
//!
//! Invariant: a child runs one function and ends without returning into the test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "fork")]

mod closed;
mod forked;
mod pair;

use std::io::{PipeReader, Read, Write, pipe};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use closed::{apart, close_if_not_tcp};
use forked::{Child, Given, PAGE_SIZE, connect, in_the_middle, in_the_middle_of_a_thread};
use forked::{is_readable, send_in_parts, serve, share, stranger, wait_and_serve};
use ism_client::loopback::Loopback;
use pair::{LONG, Pair, errno, receive, send, transmit};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use smc_socket::{Birth, Observe, Ready, Socket, Stack};

#[test]
fn a_connection_is_its_parents_and_its_childs() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let child = share(&server, &tcp, |given| {
        assert_eq!(receive(&given.socket, 5, true).unwrap(), b"first");
        transmit(&given.socket, b"second").unwrap();
    });
    send(&client, b"first").unwrap();
    // The child is woken by this process.
    while let Some(stack) = Some(&pair.stacks[1]).filter(|stack| stack.has_children()) {
        stack.dispatch();
        stack.serve_children();
    }
    assert!(child.wait());
    assert_eq!(receive(&client, 6, true).unwrap(), b"second");
    transmit(&server, b"third").unwrap();
    assert_eq!(receive(&client, 5, true).unwrap(), b"third");
}

#[test]
fn the_end_of_a_child_is_heard_once_though_a_child_without_connections_lives() {
    let pair = Pair::new();
    let (_client, server, tcp) = connect(&pair);
    let (reader, writer) = pipe().unwrap();
    let sleeps = |reader: PipeReader| {
        move |given: Given| {
            (&reader).read_exact(&mut [0]).unwrap_err();
            drop(given);
        }
    };
    let short = share(&server, &tcp, sleeps(reader.try_clone().unwrap()));
    let _long = share(&server, &tcp, sleeps(reader.try_clone().unwrap()));
    let _stranger = stranger(reader);
    serve(&pair.stacks[1]);
    drop(short);
    wait_and_serve(&pair.stacks[1]);
    assert!(pair.stacks[1].has_children());
    drop(writer);
}

#[test]
fn a_child_hears_of_its_parents_end_though_a_child_without_connections_lives() {
    let (reader, writer) = pipe().unwrap();
    let (mut said, say) = pipe().unwrap();
    let (mut reader, mut writer, mut say) = (Some(reader), Some(writer), Some(say));
    let parent = Child::fork_apart(|| {
        drop(writer.take());
        let say = say.take().unwrap();
        let pair = Pair::new();
        let (_client, server, tcp) = connect(&pair);
        let child = share(&server, &tcp, |given| {
            // Once to look at what it is told when it is born.
            while !given.stack.prepare_sleep() {}
            while given.stack.next_timeout().is_none() {
                assert!(is_readable(given.stack.wake_fd(), true));
                given.stack.wake_up(true);
                while !given.stack.prepare_sleep() {}
            }
            (&say).write_all(b"e").unwrap();
        });
        let stranger = stranger(reader.take().unwrap());
        std::mem::forget((child, stranger));
    });
    drop((reader, say));
    assert!(parent.wait());
    said.read_exact(&mut [0]).unwrap();
    drop(writer);
}

/// No more descriptors than there are, or as many as before.
fn limit_descriptors(full: bool) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the limit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = if full { 3 } else { limit.rlim_max };
    // SAFETY: a limit that was filled in.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// A child that ends at once and leaves one of its own.
fn leave_grandchild(server: &Socket, tcp: &TcpStream, act: impl FnOnce(Given)) {
    let child = share(server, tcp, |given| {
        std::mem::forget((share(&given.socket, tcp, act), given));
    });
    assert!(child.wait());
}

/// Waits for the end of all children.
fn outlive(stack: &Stack) {
    while stack.has_children() {
        wait_and_serve(stack);
    }
}

/// Whether a connection that everybody has closed is over.
fn is_over(pair: &Pair) -> bool {
    pair.stacks.iter().for_each(Stack::dispatch);
    pair.stacks.iter().all(|stack| stack.sockets() == 0)
}

#[test]
fn a_grandchild_whose_parent_ends_at_once_is_heard_of() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let (reader, writer) = pipe().unwrap();
    leave_grandchild(&server, &tcp, |given| {
        // It ends with a test that fails, too.
        is_readable(&reader, true);
        std::mem::forget(given);
    });
    serve(&pair.stacks[1]);
    assert!(pair.stacks[1].has_children());
    drop((server, tcp));
    (&writer).write_all(b"e").unwrap();
    outlive(&pair.stacks[1]);
    drop(client);
    assert!(is_over(&pair));
}

#[test]
fn a_grandchild_for_whose_link_there_is_no_descriptor_leaves_nothing() {
    apart(|| {
        let pair = Pair::new();
        let (client, server, tcp) = connect(&pair);
        leave_grandchild(&server, &tcp, std::mem::forget);
        limit_descriptors(true);
        outlive(&pair.stacks[1]);
        limit_descriptors(false);
        drop((server, tcp, client));
        assert!(is_over(&pair));
    });
}

#[test]
fn a_child_that_was_taken_for_dead_in_the_middle_writes_into_no_other_connection() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let (mut hear, say) = pipe().unwrap();
    let child = share(&server, &tcp, |given| {
        let kept = [0, 1, 2, say.as_raw_fd()];
        (0..1024).filter(|fd| !kept.contains(fd)).for_each(close_if_not_tcp);
        send_in_parts(&given.socket, &say, in_the_middle);
        std::mem::forget(given);
    });
    hear.read_exact(&mut [0]).unwrap();
    wait_and_serve(&pair.stacks[1]);
    assert_eq!(errno(send(&server, b"more")), libc::ECONNRESET);
    drop((server, tcp, client));
    pair.stacks.iter().for_each(Stack::dispatch);
    let (client, server, _tcp) = connect(&pair);
    child.go_on();
    // Whatever it sees: it has not been told yet.
    child.wait();
    transmit(&server, b"after").unwrap();
    assert_eq!(receive(&client, 9999, false).unwrap(), b"after");
}

#[test]
fn a_child_killed_in_the_middle_resets_the_connection_and_stops_nobody() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let (mut hear, say) = pipe().unwrap();
    let child = share(&server, &tcp, |given| send_in_parts(&given.socket, &say, in_the_middle));
    hear.read_exact(&mut [0]).unwrap();
    drop(child);
    wait_and_serve(&pair.stacks[1]);
    // Its number is another child's now.
    let (other, _server, tcp) = connect(&pair);
    let _child = share(&_server, &tcp, |given| {
        receive(&given.socket, 1, true).unwrap();
    });
    assert_eq!(errno(send(&server, b"more")), libc::ECONNRESET);
    assert_eq!(errno(receive(&client, 9, false)), libc::ECONNRESET);
    send(&other, b"g").unwrap();
}

#[test]
fn a_thread_that_exec_ends_in_the_middle_stops_nobody() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let (mut hear, say) = pipe().unwrap();
    let child = share(&server, &tcp, |given| {
        let (mut hear, say_here) = pipe().unwrap();
        let socket = Arc::clone(&given.socket);
        std::thread::spawn(move || send_in_parts(&socket, &say_here, in_the_middle_of_a_thread));
        hear.read_exact(&mut [0]).unwrap();
        let mut sleep = std::process::Command::new("sleep");
        assert!(sleep.arg("600").exec().to_string().is_empty(), "it comes back");
    });
    drop(say);
    // Its descriptors are closed by then.
    assert_eq!(hear.read(&mut [0]).unwrap(), 0);
    assert_eq!(errno(send(&server, b"more")), libc::ECONNRESET);
    assert_eq!(errno(receive(&client, 9, false)), libc::ECONNRESET);
    drop(child);
}

#[test]
fn a_child_stopped_in_the_middle_stops_no_other_connection() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let (others_client, others_server, _tcp) = connect(&pair);
    let (mut hear, say) = pipe().unwrap();
    let child = share(&server, &tcp, |given| send_in_parts(&given.socket, &say, in_the_middle));
    hear.read_exact(&mut [0]).unwrap();
    // Who dispatches is told to look at both.
    send(&client, b"for the child").unwrap();
    send(&others_client, b"for another").unwrap();
    pair.stacks[1].dispatch();
    assert_eq!(receive(&others_server, 99, false).unwrap(), b"for another");
    child.go_on();
    assert!(child.wait());
    wait_and_serve(&pair.stacks[1]);
    assert_eq!(receive(&client, PAGE_SIZE, true).unwrap(), [0; PAGE_SIZE]);
    assert_eq!(receive(&server, 99, false).unwrap(), b"for the child");
}

/// What is left of a connection after a child was killed that used it: it goes on, or is reset.
fn goes_on_or_is_reset(from: &Socket, to: &Socket) -> bool {
    let sent = transmit(from, b"x");
    let came = sent.is_ok() && receive(to, 1, true).is_ok();
    for result in [sent.map(drop), transmit(to, b"y").map(drop)] {
        let is_reset = |error: &std::io::Error| {
            matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE))
        };
        assert!(result.as_ref().err().is_none_or(is_reset), "{result:?}");
    }
    came
}

#[test]
fn children_that_are_killed_while_they_work_hang_nobody() {
    let pair = Pair::new();
    let mut connection = connect(&pair);
    for n in 0..60 {
        let (client, server, tcp) = &connection;
        let (mut hear, say) = pipe().unwrap();
        let child = share(server, tcp, |given| {
            (&say).write_all(b"b").unwrap();
            loop {
                // Both directions, each in the middle of a copy mostly.
                let sent = send(&given.socket, &[0; 60_000]);
                receive_now(&given.socket);
                if errno_of(&sent) == Some(libc::ECONNRESET) {
                    return;
                }
            }
        });
        hear.read_exact(&mut [0]).unwrap();
        for _ in 0..n {
            let _ = send(client, &[1; 1000]);
            while receive_now(client) > 0 {}
            pair.stacks.iter().for_each(Stack::dispatch);
        }
        drop(child);
        wait_and_serve(&pair.stacks[1]);
        while receive_now(client) > 0 {}
        while receive_now(server) > 0 {}
        if !goes_on_or_is_reset(client, server) {
            connection = connect(&pair);
        }
    }
}

/// Bytes that are there.
fn receive_now(socket: &Socket) -> usize {
    pair::recv(socket, 60_000).map_or(0, |bytes| bytes.len())
}

fn errno_of<T>(result: &std::io::Result<T>) -> Option<i32> {
    result.as_ref().err()?.raw_os_error()
}

/// Sleeps until there is something to do for children, and does it; until there are none.
fn mind(stack: &Stack) {
    while let Some(children) = stack.children_fd() {
        let left = stack.next_timeout().unwrap_or(LONG).try_into().unwrap();
        if stack.prepare_sleep() {
            let device = stack.wake_fd();
            let mut fds = [device, children].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            poll(&mut fds, Some(&left)).unwrap();
            stack.wake_up(fds.first().is_some_and(|device| !device.revents().is_empty()));
        }
        stack.serve_children();
        stack.dispatch();
    }
}

#[test]
fn a_child_without_connections_for_want_of_descriptors_keeps_no_later_one_from_them() {
    // The limit is all threads'.
    let process = Child::fork_apart(|| {
        let pair = Pair::new();
        let (client, server, tcp) = connect(&pair);
        let mut birth = Birth::begin();
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
        assert!(birth.share(&server).is_none());
        setrlimit(Resource::Nofile, limit).unwrap();
        drop(birth);
        let child = share(&server, &tcp, |given| {
            transmit(&given.socket, b"x").unwrap();
        });
        assert!(child.wait());
        assert_eq!(receive(&client, 1, true).unwrap(), b"x");
    });
    assert!(process.wait());
}

/// Counts what it is told.
struct Counter(AtomicUsize);

impl Observe for Counter {
    fn ready(&self, _: Ready) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_a_child_finds_that_has_not_heard_of_what_was_before_is_heard_by_all() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let counter = Arc::new(Counter(AtomicUsize::new(0)));
    server.observe(Some(Arc::clone(&counter) as _));
    let told = || {
        pair.stacks[1].dispatch();
        counter.0.swap(0, Ordering::Relaxed)
    };
    let (mut goes, mut go) = pipe().unwrap();
    let (mut looked, mut say) = pipe().unwrap();
    let child = share(&server, &tcp, |given| {
        goes.read_exact(&mut [0]).unwrap();
        assert!(given.socket.readiness().contains(Ready::READABLE));
        say.write_all(b"l").unwrap();
    });
    told();
    send(&client, b"one").unwrap();
    assert_eq!(told(), 1);
    assert_eq!(receive(&server, 3, true).unwrap(), b"one");
    send(&client, b"two").unwrap();
    go.write_all(b"g").unwrap();
    looked.read_exact(&mut [0]).unwrap();
    assert_eq!(told(), 1, "the child has swallowed it");
    assert!(child.wait());
}

#[test]
fn children_that_have_all_connections_are_each_woken_for_their_own() {
    let pair = Pair::new();
    let all: Vec<_> = (0..8).map(|_| connect(&pair)).collect();
    let children: Vec<_> = (0..all.len())
        .map(|own| {
            let mut birth = Birth::begin();
            let heirs: Vec<_> = all
                .iter()
                .map(|(_, server, tcp)| (birth.share(server).unwrap(), tcp.try_clone().unwrap()))
                .collect();
            let mut given = Some((birth, heirs));
            let child = Child::fork(|| {
                let (birth, heirs) = given.take().unwrap();
                let inheritance = birth.in_child();
                let _stack = inheritance.stack().unwrap();
                let sockets: Vec<_> = heirs
                    .into_iter()
                    .map(|(heir, tcp)| inheritance.socket(heir, Box::new(tcp)).unwrap())
                    .collect();
                let socket = sockets.get(own).unwrap();
                for _ in 0..100 {
                    let bytes = receive(socket, 1000, true).unwrap();
                    transmit(socket, &bytes).unwrap();
                }
            });
            drop(given);
            child
        })
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| mind(&pair.stacks[1]));
        for (n, (client, _, _)) in all.iter().enumerate() {
            scope.spawn(move || {
                let bytes = pair::pattern(1000, n);
                for _ in 0..100 {
                    transmit(client, &bytes).unwrap();
                    assert_eq!(receive(client, 1000, true).unwrap(), bytes);
                }
            });
        }
    });
    children.into_iter().for_each(|child| assert!(child.wait()));
}

/// Lets peers be silent, and is rung by each byte that comes nevertheless.
fn be_rung_unseen(stack: &Stack, socket: &Socket, said: impl Fn()) {
    if stack.prepare_sleep() {
        stack.wake_up(false);
    }
    for n in 0..3 {
        stack.dispatch();
        said();
        assert!(is_readable(stack.wake_fd(), true), "{n} was not rung");
        stack.rung();
        assert_eq!(receive(socket, 1, true).unwrap(), b"x");
    }
}

#[test]
fn who_sleeps_unseen_in_a_child_is_woken() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let (mut hear, say) = pipe().unwrap();
    let child = share(&server, &tcp, |given| {
        given.stack.never_silence();
        be_rung_unseen(&given.stack, &given.socket, || (&say).write_all(b"a").unwrap());
        given.stack.may_silence();
    });
    drop(say);
    for _ in 0..3 {
        hear.read_exact(&mut [0]).unwrap();
        send(&client, b"x").unwrap();
        pair.stacks[1].dispatch();
    }
    assert!(child.wait());
}

#[test]
fn who_sleeps_unseen_before_a_child_has_a_device_is_woken() {
    let pair = Pair::new();
    let (_client, server, tcp) = connect(&pair);
    let child = share(&server, &tcp, |given| {
        let stack = given.stack.clone();
        stack.never_silence();
        let fabric = Loopback::new(0xFF02).unwrap();
        stack.connect(fabric.join([3; 16]).unwrap(), &pair::config()).unwrap();
        let other = Stack::new(fabric.join([4; 16]).unwrap(), &pair::config()).unwrap();
        let [client, server] = Pair::of(fabric, [other, stack.clone()]).connect();
        be_rung_unseen(&stack, &server, || assert_eq!(send(&client, b"x").unwrap(), 1));
    });
    assert!(child.wait());
}
