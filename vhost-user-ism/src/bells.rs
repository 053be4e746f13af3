// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bells: one socket pair for each pair of processes, an end handed to each (spec/decisions/0004).
//!
//! Invariant: an end is given once, to the one it is for; when both were given the daemon has none, so
//! each process sees the other's end close when that process ends.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use ism_emulator::MemberId;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// The bells of living instances.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    /// By instance and by whom an end is for: the end, until it is given.
    ends: HashMap<(u64, MemberId), Option<OwnedFd>>,
}

impl Bells {
    /// Forgets the instances that are over.
    pub(crate) fn retain(&mut self, lives: impl Fn(u64) -> bool) {
        self.ends.retain(|(instance, _), _| lives(*instance));
    }

    /// The end that is for `member`; the first of the two to ask has the bell made.
    ///
    /// # Errors
    /// It was given already, or no descriptors are left.
    pub(crate) fn take(
        &mut self,
        instance: u64,
        member: MemberId,
        peer: MemberId,
    ) -> io::Result<OwnedFd> {
        if member == peer {
            return Err(io::Error::other("a process has its own bell for itself"));
        }
        if let Some(end) = self.ends.get_mut(&(instance, member)) {
            return end.take().ok_or_else(|| io::Error::other("it was given already"));
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        self.ends.insert((instance, member), None);
        self.ends.insert((instance, peer), Some(theirs));
        Ok(ours)
    }
}
