// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that a process shares with its children of fork.
//!
//! Invariant: a child runs one function and ends without returning into the test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "fork")]

mod pair;

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use pair::{LONG, Pair, receive, send, settle, transmit};
use rustix::event::{PollFd, PollFlags, poll};
use smc_socket::{Birth, Handshake, Heir, Inheritance, Socket, Stack};

/// A child; killed when dropped.
struct Child(libc::pid_t);

impl Child {
    /// Forks. What `act` does not end with a panic is a success.
    fn fork(act: impl FnOnce()) -> Self {
        // SAFETY: the child calls what other threads of this process do not lock, and ends by itself.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let failed = catch_unwind(AssertUnwindSafe(act)).is_err();
            // SAFETY: it takes any number.
            unsafe { libc::_exit(failed.into()) };
        }
        Self(pid)
    }

    fn kill(&self, signal: libc::c_int) {
        // SAFETY: a child that was not waited for.
        assert_eq!(unsafe { libc::kill(self.0, signal) }, 0);
    }

    /// Waits for its end; whether it was a success.
    fn wait(self) -> bool {
        let mut status = 0;
        // SAFETY: a child that was not waited for, and room for its status.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        std::mem::forget(self);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill(libc::SIGKILL);
        // SAFETY: as in `wait`.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

/// A connection whose server's end can be given away: client, server, the server's TCP connection again.
fn connect(pair: &Pair) -> (Arc<Socket>, Arc<Socket>, TcpStream) {
    let [client, server] = pair.tcp();
    let again = server.try_clone().unwrap();
    let [client, server] = pair.begin([Box::new(client), Box::new(server)], [true, true]);
    let sockets = [client, server];
    assert_eq!(settle(&sockets), [Handshake::Smc, Handshake::Smc]);
    let [client, server] = sockets;
    (client, server, again)
}

/// What a child has of the one connection that was shared with it.
struct Given {
    stack: Stack,
    socket: Arc<Socket>,
    _all: Inheritance,
}

fn given(birth: Birth, heir: Heir, tcp: TcpStream) -> Given {
    let all = birth.in_child();
    let (stack, socket) = (all.stack().unwrap(), all.socket(heir, Box::new(tcp)).unwrap());
    Given { stack, socket, _all: all }
}

/// A child that has a connection.
fn share(socket: &Socket, tcp: &TcpStream, act: impl FnOnce(Given)) -> Child {
    let tcp = tcp.try_clone().unwrap();
    let mut birth = Birth::begin();
    let heir = birth.share(socket).unwrap();
    let mut all = Some((birth, heir, tcp));
    let child = Child::fork(|| {
        let (birth, heir, tcp) = all.take().unwrap();
        act(given(birth, heir, tcp));
    });
    drop(all);
    child
}

/// A child that has nothing, and waits until the other end of the pipe is closed.
fn stranger(mut until: PipeReader) -> Child {
    let mut birth = Some(Birth::begin());
    let child = Child::fork(|| {
        drop(birth.take().unwrap().in_child());
        until.read_exact(&mut [0]).unwrap_err();
    });
    drop(birth);
    child
}

fn is_readable(fd: impl AsFd, wait: bool) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let time = if wait { LONG } else { std::time::Duration::ZERO };
    poll(&mut fds, Some(&time.try_into().unwrap())).unwrap() > 0
}

/// Serves children until there is nothing to do.
fn serve(stack: &Stack) {
    let start = Instant::now();
    while let Some(fd) = stack.children_fd()
        && is_readable(fd, false)
    {
        stack.serve_children();
        assert!(start.elapsed() < LONG, "it is readable for ever");
    }
}

/// Waits for children to say something, and serves them.
fn wait_and_serve(stack: &Stack) {
    assert!(is_readable(stack.children_fd().unwrap(), true));
    serve(stack);
}

/// A pipe, the write end of which a child must not inherit by accident: it ends with the test.
fn gate() -> (PipeReader, PipeWriter) {
    pipe().unwrap()
}

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
    let (reader, writer) = gate();
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
    let (reader, writer) = gate();
    let (mut said, say) = pipe().unwrap();
    let (mut reader, mut writer, mut say) = (Some(reader), Some(writer), Some(say));
    let parent = Child::fork(|| {
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
