// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes that are stopped in the middle of a call on a connection that others have too.
//!
//! Invariant tested: calls on other connections go on.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(unsafe_code, reason = "_exit")]

mod forked;
mod pair;

use std::io::{Read, Write, pipe};
use std::sync::Arc;

use forked::{Child, connect, given, in_the_middle, is_readable, send_in_parts, share};
use pair::{Pair, errno, receive, send, transmit};
use smc_socket::{Birth, Socket, Stack, few};

/// Processes that are killed at last, if they have not ended by then.
struct Orphans([libc::pid_t; 2]);

impl Drop for Orphans {
    fn drop(&mut self) {
        for pid in self.0 {
            // SAFETY: it takes any number.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

/// A process that has ended, and left two that have a connection: one has another besides, the other is stopped in the
/// middle of a call on the first. `act` is what the one does, as soon as it knows that it is alone. With `kills` the other
/// is killed, and the one may not ask about that.
fn leave_behind(kills: bool, act: impl FnOnce(&Stack, &[Arc<Socket>])) {
    let (mut hear, mut say) = pipe().unwrap();
    let parent = Child::fork_apart(|| {
        let pair = Pair::new();
        let (_one, server, tcp) = connect(&pair);
        let (client, other, other_tcp) = connect(&pair);
        let mut birth = Birth::begin();
        let heirs = [birth.share(&server).unwrap(), birth.share(&other).unwrap()];
        let mut all = Some((birth, heirs, [tcp.try_clone().unwrap(), other_tcp]));
        let orphan = Child::fork(|| {
            let (birth, heirs, tcps) = all.take().unwrap();
            let all = birth.in_child();
            let stack = all.stack().unwrap();
            few::confine(kills);
            let sockets = heirs.into_iter().zip(tcps);
            let sockets: Vec<_> =
                sockets.map(|(heir, tcp)| all.socket(heir, Box::new(tcp)).unwrap()).collect();
            // Until it has heard that it is alone, and looks by itself.
            while stack.next_timeout().is_none() {
                assert!(is_readable(stack.wake_fd(), true));
                stack.rung();
            }
            act(&stack, &sockets);
            say.write_all(b"!").unwrap();
            std::mem::forget(sockets);
        });
        drop(all);
        let (mut stopped, says) = pipe().unwrap();
        let sibling = share(&server, &tcp, |given| {
            send_in_parts(&given.socket, &says, in_the_middle);
        });
        stopped.read_exact(&mut [0]).unwrap();
        transmit(&client, b"from its peer").unwrap();
        if kills {
            sibling.kill(libc::SIGKILL);
        }
        say.write_all(&[orphan.0, sibling.0].map(i32::to_ne_bytes).concat()).unwrap();
        // They outlive this process, which ends without closing anything.
        std::mem::forget((orphan, sibling));
        // SAFETY: it takes any number.
        unsafe { libc::_exit(0) };
    });
    drop(say);
    let mut pids = [[0; 4]; 2];
    hear.read_exact(pids.as_flattened_mut()).unwrap();
    let _orphans = Orphans(pids.map(i32::from_ne_bytes));
    assert!(parent.wait());
    assert!(is_readable(&hear, true), "it waits for its sibling");
    assert_eq!(hear.read(&mut [0]).unwrap(), 1);
}

#[test]
fn a_child_is_born_while_its_sibling_is_stopped_in_the_middle() {
    let pair = Pair::new();
    let (_client, server, tcp) = connect(&pair);
    let (mut goes, mut go) = pipe().unwrap();
    let mut birth = Birth::begin();
    let heir = birth.share(&server).unwrap();
    let mut all = Some((birth, heir, tcp.try_clone().unwrap()));
    let (born, mut say) = pipe().unwrap();
    let _child = Child::fork(|| {
        let (birth, heir, tcp) = all.take().unwrap();
        goes.read_exact(&mut [0]).unwrap();
        let given = given(birth, heir, tcp);
        say.write_all(b"b").unwrap();
        std::mem::forget(given);
    });
    drop(all);
    let (mut stopped, says) = pipe().unwrap();
    let _sibling = share(&server, &tcp, |given| send_in_parts(&given.socket, &says, in_the_middle));
    stopped.read_exact(&mut [0]).unwrap();
    go.write_all(b"g").unwrap();
    assert!(is_readable(&born, true), "it waits for its sibling");
}

#[test]
fn a_stopped_sibling_keeps_an_orphan_from_no_other_connection() {
    leave_behind(false, |stack, sockets| {
        stack.dispatch();
        assert_eq!(receive(&sockets[1], 99, false).unwrap(), b"from its peer");
    });
}

#[test]
fn an_orphan_that_may_not_ask_goes_on_after_its_sibling_was_killed_in_the_middle() {
    leave_behind(true, |_, sockets| {
        assert_eq!(errno(send(&sockets[0], b"more")), libc::ECONNRESET);
    });
}
