// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A signal handler that uses the connection in the middle of which it has interrupted its own thread.
//!
//! Invariant tested: it never waits for itself; what it cannot do is refused, and what it interrupted is not disturbed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "signal handlers")]

mod forked;
mod pair;

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex};

use forked::{Child, PAGE, PAGE_SIZE, send_in_parts};
use pair::{Pair, receive, recv, send, transmit};
use smc_socket::{Ready, Socket, Stack};

/// What the handler works with.
struct World {
    stack: Stack,
    /// The one that is interrupted; `None`: the handler has closed it.
    interrupted: Mutex<Option<Arc<Socket>>>,
    other: Arc<Socket>,
    closes: bool,
    said: Mutex<Vec<String>>,
}

static WORLD: AtomicPtr<World> = AtomicPtr::new(std::ptr::null_mut());

/// It was interrupted in the middle of a send: the page cannot be read.
extern "C" fn uses_the_connection(_: libc::c_int) {
    // SAFETY: it is set before, and never dropped.
    let world = unsafe { &*WORLD.load(Ordering::Relaxed) };
    let mut interrupted = world.interrupted.lock().unwrap();
    let socket = interrupted.as_ref().unwrap();
    let errno = |error: std::io::Error| error.raw_os_error().unwrap();
    let mut said = world.said.lock().unwrap();
    said.push(format!("{:?}", send(socket, b"from the handler").map_err(errno)));
    said.push(format!("{:?}", transmit(socket, b"from the handler").map_err(errno)));
    said.push(format!("{:?}", receive(socket, 99, false).map_err(errno)));
    said.push(format!("{}", socket.readiness() == Ready::NOTHING));
    said.push(format!("{:?}", send(&world.other, b"from the handler").map_err(errno)));
    world.stack.dispatch();
    if world.closes {
        socket.close(None);
        *interrupted = None;
    }
    // SAFETY: the page was mapped by who sends it.
    unsafe { libc::mprotect(PAGE.load(Ordering::Relaxed), PAGE_SIZE, libc::PROT_READ) };
}

/// What the handler was told.
fn interrupt(closes: bool) -> Vec<String> {
    let pair = Pair::new();
    let ([client, server], [other, others_peer]) = (pair.connect(), pair.connect());
    send(&server, b"for the one that is interrupted").unwrap();
    let interrupted = Mutex::new(Some(Arc::clone(&client)));
    let (stack, said) = (pair.stacks[0].clone(), Mutex::default());
    let world = Box::leak(Box::new(World { stack, interrupted, other, closes, said }));
    WORLD.store(std::ptr::from_mut(world), Ordering::Relaxed);
    let (_hear, say) = std::io::pipe().unwrap();
    send_in_parts(&client, &say, uses_the_connection);
    drop(client);
    assert_eq!(receive(&server, PAGE_SIZE, true).unwrap(), [0; PAGE_SIZE]);
    assert_eq!(receive(&others_peer, 99, false).unwrap(), b"from the handler");
    // SAFETY: as in the handler, which does not run any more.
    let world = unsafe { &*WORLD.load(Ordering::Relaxed) };
    match &*world.interrupted.lock().unwrap() {
        Some(client) => {
            assert_eq!(recv(client, 99).unwrap(), b"for the one that is interrupted");
        }
        // Bytes were unread.
        None => assert!(receive(&server, 1, false).is_err(), "it was not closed"),
    }
    std::mem::take(&mut world.said.lock().unwrap())
}

#[test]
fn a_handler_in_the_middle_of_a_call_is_refused_and_does_not_wait() {
    for closes in [false, true] {
        let child = Child::fork(|| {
            let again = format!("Err({})", libc::EAGAIN);
            let all = [again.as_str(), &again, &again, "true", "Ok(16)"];
            assert_eq!(interrupt(closes), all);
        });
        assert!(child.wait());
    }
}
