// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The bell between two processes of a pair: one socket pair, an end each (spec/decisions/0004).
//!
//! Invariant: nothing here ever blocks, whatever the peer does with its end; and nothing is rung on a bell
//! whose other end nobody has said to hear.
//!
//! An end is readable when the peer has rung. Both send [`HERE`] when they get their end; who has received
//! it may ring directly, and rings through the fabric before.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use crate::error::{Error, Result};
use crate::own::Own;

/// Says "I hear this bell".
const HERE: u8 = b'h';
/// A ring.
const RING: u8 = b'r';

/// Makes the two ends of a bell.
///
/// # Errors
/// No descriptors.
pub fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// What a look at a bell found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was rung.
    Ring,
    /// It is quiet.
    Nothing,
    /// The peer's end is closed.
    Closed,
}

/// This side's end.
#[derive(Debug)]
pub(crate) struct Bell {
    /// Rings are sent here, and come here unless there is `own`.
    end: Own,
    /// The other end, in the bell of a member with itself.
    own: Option<Own>,
    /// The peer hears.
    heard: AtomicBool,
}

impl Bell {
    /// The end that the fabric gave. The peer does not ring it before [`Bell::announce`].
    pub(crate) fn new(end: OwnedFd) -> Self {
        // It is so from its maker; if not, and if this fails, ringing a peer that does not look would wait.
        let _ = rustix::io::ioctl_fionbio(&end, true);
        Self { end: Own::new(end), own: None, heard: AtomicBool::new(false) }
    }

    /// Says that this side hears: to be called when it does.
    pub(crate) fn announce(&self) {
        if self.own.is_none() {
            self.send(HERE);
        }
    }

    /// The bell of a member with itself.
    pub(crate) fn own() -> Result<Self> {
        let (end, own) = pair().map_err(Error::io("making a bell"))?;
        let (end, own) = (Own::new(end), Own::new(own));
        Ok(Self { end, own: Some(own), heard: AtomicBool::new(true) })
    }

    /// Rings; false if the peer cannot be rung this way.
    pub(crate) fn ring(&self) -> bool {
        if !self.heard.load(Ordering::Relaxed) {
            self.look_for_peer();
        }
        self.heard.load(Ordering::Relaxed) && self.send(RING)
    }

    /// Rings for a child of this process, which does not see what the parent has heard; false if the peer's end is
    /// closed.
    pub(crate) fn ring_unheard(&self) -> bool {
        self.send(RING)
    }

    /// Looks whether the peer's first message is there, and leaves it: what is taken away here could be
    /// what another thread is about to wake for.
    fn look_for_peer(&self) {
        let mut byte = [MaybeUninit::uninit()];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        if recv(self.fd(), &mut byte, flags).is_ok_and(|((bytes, _), _)| *bytes == [HERE]) {
            self.heard.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the peer was woken, or is being.
    fn send(&self, what: u8) -> bool {
        // Not send(2), which sandboxes of programs forbid in their children. Ends do not block, and a socket of
        // this kind raises no SIGPIPE.
        match rustix::io::write(&self.end, &[what]) {
            Ok(_) => true,
            // Full of rings that it has not looked at: it is readable.
            Err(Errno::AGAIN) => true,
            // Its end is closed, or this process may not make it hear.
            Err(_) => false,
        }
    }

    /// What is readable when the peer has rung.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.own.as_ref().unwrap_or(&self.end).as_fd()
    }

    /// Takes one ring, and there is seldom more than one: who finds this side asleep rings, and says in the
    /// signal page that it did. Another one wakes again.
    pub(crate) fn take(&self) -> Taken {
        // Without room for descriptors: what the peer attaches is dropped by the kernel.
        let mut byte = [MaybeUninit::uninit()];
        match recv(self.fd(), &mut byte, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Taken::Closed,
            Ok(((bytes, _), _)) => {
                if *bytes == [HERE] {
                    self.heard.store(true, Ordering::Relaxed);
                }
                Taken::Ring
            }
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            Err(_) => Taken::Closed,
        }
    }

    /// The peer is gone: it hears no more.
    pub(crate) fn close(&self) {
        self.heard.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    fn is_readable(bell: &Bell) -> bool {
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(bell.fd(), PollFlags::IN)], Some(&now)).unwrap() > 0
    }

    fn announced(end: OwnedFd) -> Bell {
        let bell = Bell::new(end);
        bell.announce();
        bell
    }

    fn bells() -> (Bell, Bell) {
        let (one, other) = pair().unwrap();
        (announced(one), announced(other))
    }

    #[test]
    fn a_ring_makes_the_other_end_readable_until_it_is_drained() {
        let (one, other) = bells();
        assert_eq!(other.take(), Taken::Ring, "the announcement");
        assert!(!is_readable(&other));
        assert!(one.ring());
        assert!(is_readable(&other));
        assert_eq!(other.take(), Taken::Ring);
        assert_eq!(other.take(), Taken::Nothing);
        assert!(!is_readable(&other));
    }

    #[test]
    fn nobody_rings_a_bell_that_nobody_has_said_to_hear() {
        let (one, other) = pair().unwrap();
        let one = announced(one);
        assert!(!one.ring());
        let other = Bell::new(other);
        assert!(!one.ring());
        other.announce();
        assert!(one.ring());
    }

    /// What another thread is about to wake for stays there.
    #[test]
    fn ringing_takes_no_ring_away() {
        let (one, other) = pair().unwrap();
        let (one, other) = (announced(one), announced(other));
        assert!(other.ring());
        assert!(one.ring());
        assert!(is_readable(&one), "the ring of the other side is gone");
        assert!(is_readable(&other));
    }

    #[test]
    fn a_bell_that_is_not_heard_does_not_block() {
        let (one, other) = bells();
        for _ in 0..100_000 {
            assert!(one.ring());
        }
        assert!(is_readable(&other));
    }

    #[test]
    fn a_flood_costs_a_bounded_look_and_strange_messages_nothing() {
        let (one, other) = pair().unwrap();
        let one = Bell::new(one);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let fds = [other.as_fd()];
        for message in [&b""[..], b"h", b"xyz", &[0; 4096]] {
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let parts = [std::io::IoSlice::new(message)];
            // An empty one looks like the end, and is taken for it.
            sendmsg(&other, &parts, &mut control, SendFlags::DONTWAIT).unwrap();
        }
        while is_readable(&one) {
            one.take();
        }
        assert!(one.heard.load(Ordering::Relaxed));
    }

    #[test]
    fn a_closed_end_is_seen() {
        let (one, other) = bells();
        drop(other);
        // What it announced may come first.
        assert!([one.take(), one.take()].contains(&Taken::Closed));
        assert!(!one.ring());
    }

    #[test]
    fn a_member_hears_itself() {
        let bell = Bell::own().unwrap();
        assert!(!is_readable(&bell));
        assert!(bell.ring());
        assert!(is_readable(&bell));
        assert_eq!(bell.take(), Taken::Ring);
        assert!(!is_readable(&bell));
    }
}
