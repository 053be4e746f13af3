// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Children of fork that have connections, and are stopped in the middle of a call.
//!
//! Invariant: a child runs one function and ends without returning into the test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "fork")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::io::{PipeReader, PipeWriter, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use smc_socket::{Birth, Handshake, Heir, Inheritance, Socket, Stack};

use crate::pair::{LONG, Pair, send, settle};

/// A child; killed when dropped.
pub(crate) struct Child(pub(crate) libc::pid_t);

impl Child {
    /// Forks. What `act` does not end with a panic is a success.
    pub(crate) fn fork(act: impl FnOnce()) -> Self {
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

    /// As [`Child::fork`], with nothing of this process: no lock that one of its threads has just then.
    pub(crate) fn fork_apart(act: impl FnOnce()) -> Self {
        let mut birth = Some(Birth::begin());
        let child = Self::fork(|| {
            drop(birth.take().unwrap().in_child());
            act();
        });
        drop(birth);
        child
    }

    pub(crate) fn kill(&self, signal: libc::c_int) {
        // SAFETY: a child that was not waited for.
        assert_eq!(unsafe { libc::kill(self.0, signal) }, 0);
    }

    /// It goes on after it has stopped itself, which it says before it does.
    pub(crate) fn go_on(&self) {
        let mut status = 0;
        // SAFETY: a child that was not waited for, and room for its status.
        let stopped = unsafe { libc::waitpid(self.0, &raw mut status, libc::WUNTRACED) };
        assert!(stopped == self.0 && libc::WIFSTOPPED(status));
        self.kill(libc::SIGCONT);
    }

    /// Waits for its end; whether it was a success.
    pub(crate) fn wait(self) -> bool {
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
pub(crate) fn connect(pair: &Pair) -> (Arc<Socket>, Arc<Socket>, TcpStream) {
    let [client, server] = pair.tcp();
    let again = server.try_clone().unwrap();
    let [client, server] = pair.begin([Box::new(client), Box::new(server)], [true, true]);
    let sockets = [client, server];
    assert_eq!(settle(&sockets), [Handshake::Smc, Handshake::Smc]);
    let [client, server] = sockets;
    (client, server, again)
}

/// What a child has of the one connection that was shared with it.
pub(crate) struct Given {
    pub(crate) stack: Stack,
    pub(crate) socket: Arc<Socket>,
    _all: Inheritance,
}

pub(crate) fn given(birth: Birth, heir: Heir, tcp: TcpStream) -> Given {
    let all = birth.in_child();
    let (stack, socket) = (all.stack().unwrap(), all.socket(heir, Box::new(tcp)).unwrap());
    Given { stack, socket, _all: all }
}

/// A child that has a connection.
pub(crate) fn share(socket: &Socket, tcp: &TcpStream, act: impl FnOnce(Given)) -> Child {
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
pub(crate) fn stranger(mut until: PipeReader) -> Child {
    Child::fork_apart(|| drop(until.read_exact(&mut [0]).unwrap_err()))
}

pub(crate) fn is_readable(fd: impl AsFd, wait: bool) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let time = if wait { LONG } else { std::time::Duration::ZERO };
    poll(&mut fds, Some(&time.try_into().unwrap())).unwrap() > 0
}

/// Serves children until there is nothing to do.
pub(crate) fn serve(stack: &Stack) {
    let start = Instant::now();
    while let Some(fd) = stack.children_fd()
        && is_readable(fd, false)
    {
        stack.serve_children();
        assert!(start.elapsed() < LONG, "it is readable for ever");
    }
}

/// Waits for children to say something, and serves them.
pub(crate) fn wait_and_serve(stack: &Stack) {
    assert!(is_readable(stack.children_fd().unwrap(), true));
    serve(stack);
}

/// A page that a thread cannot read: who sends it is stopped in the middle, with the connection's lock.
pub(crate) static PAGE: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Where that is said.
pub(crate) static SAY: AtomicI32 = AtomicI32::new(-1);
pub(crate) const PAGE_SIZE: usize = 4096;

/// What a signal handler may do: says that this thread has the lock, and sleeps for ever or until this process goes on.
pub(crate) extern "C" fn in_the_middle(_: libc::c_int) {
    // SAFETY: one byte, and a descriptor that is open.
    unsafe { libc::write(SAY.load(Ordering::Relaxed), (&raw const SAY).cast(), 1) };
    // SAFETY: it stops this process, and takes no pointer.
    unsafe { libc::raise(libc::SIGSTOP) };
    // SAFETY: the page was mapped by `send_forever`.
    unsafe { libc::mprotect(PAGE.load(Ordering::Relaxed), PAGE_SIZE, libc::PROT_READ) };
}

/// As above, but only this thread is.
pub(crate) extern "C" fn in_the_middle_of_a_thread(_: libc::c_int) {
    // SAFETY: as above.
    unsafe { libc::write(SAY.load(Ordering::Relaxed), (&raw const SAY).cast(), 1) };
    loop {
        // SAFETY: it takes nothing.
        unsafe { libc::pause() };
    }
}

/// In a child: sends, and is kept from it in the middle.
pub(crate) fn send_in_parts(
    socket: &Socket,
    say: &PipeWriter,
    handler: extern "C" fn(libc::c_int),
) {
    SAY.store(say.as_raw_fd(), Ordering::Relaxed);
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel chooses the place.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_SIZE, libc::PROT_NONE, kind, -1, 0) };
    PAGE.store(page, Ordering::Relaxed);
    // SAFETY: a handler that does what is allowed in one.
    unsafe { libc::signal(libc::SIGSEGV, handler as *const () as libc::sighandler_t) };
    // SAFETY: the bytes are mapped, and readable when they are read.
    let bytes = unsafe { std::slice::from_raw_parts(page.cast(), PAGE_SIZE) };
    assert_eq!(send(socket, bytes).unwrap(), PAGE_SIZE);
}
