// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes that close what is not their own, by system calls or without a preload that would keep them from it.
//!
//! Invariant: only processes close such descriptors that were forked for it: other tests have theirs.

use std::io::{Read, Write, pipe};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use smc_socket::{Ready, Stack};

use crate::pair::{Pair, errno, receive, send, transmit};
use crate::{Child, connect, is_readable, receive_now, serve, share, wait_and_serve};

/// As a program does that closes all descriptors but its connections.
pub(crate) fn close_if_not_tcp(fd: RawFd) {
    // SAFETY: a number for a system call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let domain = rustix::net::sockopt::socket_domain(borrowed);
    if domain != Ok(rustix::net::AddressFamily::INET) {
        // SAFETY: what is closed is not used but by who must find that out.
        unsafe { libc::close(fd) };
    }
}

#[test]
fn a_child_that_closes_what_is_not_its_own_has_its_connections_no_more() {
    let pair = Pair::new();
    let (client, server, tcp) = connect(&pair);
    let (mut hear, say) = pipe().unwrap();
    let (go, mut goes) = pipe().unwrap();
    let child = share(&server, &tcp, |given| {
        let kept = [0, 1, 2, say.as_raw_fd(), go.as_raw_fd()];
        (0..1024).filter(|fd| !kept.contains(fd)).for_each(close_if_not_tcp);
        (&say).write_all(b"c").unwrap();
        (&go).read_exact(&mut [0]).unwrap();
        let sent = send(&given.socket, b"into another connection");
        (&say).write_all(&[u8::try_from(errno(sent)).unwrap()]).unwrap();
        assert!(given.socket.readiness().contains(Ready::HANG_UP));
        given.socket.close(None);
        std::mem::forget(given);
    });
    hear.read_exact(&mut [0]).unwrap();
    wait_and_serve(&pair.stacks[1]);
    // Its place is another connection's now.
    transmit(&server, b"bye").unwrap();
    drop((server, tcp));
    assert_eq!(receive(&client, 9, false).unwrap(), b"bye");
    drop(client);
    pair.stacks.iter().for_each(Stack::dispatch);
    let (client, server, _tcp) = connect(&pair);
    goes.write_all(b"g").unwrap();
    let mut errno = [0];
    hear.read_exact(&mut errno).unwrap();
    assert_eq!(i32::from(errno[0]), libc::ECONNRESET);
    assert!(child.wait());
    for (from, to) in [(&client, &server), (&server, &client)] {
        transmit(from, b"its own bytes").unwrap();
        assert_eq!(receive(to, 99, false).unwrap(), b"its own bytes");
    }
}

/// Runs `act` in a process that has nothing of other tests'.
pub(crate) fn apart(act: impl FnOnce()) {
    assert!(Child::fork_apart(act).wait());
}

#[test]
fn a_first_process_that_closes_what_is_not_its_own_has_its_shared_connections_no_more() {
    apart(|| {
        let pair = Pair::new();
        let (client, server, tcp) = connect(&pair);
        let (hear, say) = pipe().unwrap();
        let child = share(&server, &tcp, |given| {
            while given.stack.next_timeout().is_none() {
                assert!(given.stack.prepare_sleep());
                let rung = is_readable(given.stack.wake_fd(), true);
                given.stack.wake_up(rung);
            }
            transmit(&given.socket, b"child").unwrap();
            (&say).write_all(b"c").unwrap();
            given.socket.close(None);
            std::mem::forget(given);
        });
        let kept = [0, 1, 2, hear.as_raw_fd(), say.as_raw_fd()];
        (0..1024).filter(|fd| !kept.contains(fd)).for_each(close_if_not_tcp);
        (&hear).read_exact(&mut [0]).unwrap();
        assert!(child.wait());
        assert_eq!(errno(send(&server, b"into the child's")), libc::ECONNRESET);
        assert!(server.readiness().contains(Ready::HANG_UP));
        assert_eq!(receive_now(&client), 5);
        std::mem::forget((pair, client, server, tcp));
    });
}

#[test]
fn nothing_is_written_into_a_file_that_has_the_number_of_a_link() {
    apart(|| {
        let pair = Pair::new();
        let (client, server, tcp) = connect(&pair);
        let (hear, say) = pipe().unwrap();
        let child = share(&server, &tcp, |given| {
            (&hear).read_exact(&mut [0]).unwrap();
            std::mem::forget(given);
        });
        serve(&pair.stacks[1]);
        let (read, write) = pipe().unwrap();
        for fd in 3..1024 {
            // SAFETY: a number for a system call.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            let kind = rustix::net::sockopt::socket_type(borrowed);
            if kind == Ok(rustix::net::SocketType::SEQPACKET) {
                // SAFETY: what is replaced is not used but by who must find that out.
                assert!(unsafe { libc::dup2(write.as_raw_fd(), fd) } == fd);
            }
        }
        for _ in 0..5 {
            send(&client, b"x").unwrap();
            pair.stacks[1].dispatch();
        }
        assert!(!is_readable(&read, false));
        (&say).write_all(b"e").unwrap();
        assert!(child.wait());
        std::mem::forget((pair, client, server, tcp));
    });
}
