// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A fork: what the child is going to have is made before, and taken over after.
//!
//! Invariant: nothing that another thread may have half changed is looked at in the child.
#![expect(unsafe_code, reason = "descriptors that a child must not keep are known by number")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use smc_proto::id::ConnId;

use crate::channel::{Channel, Share};
use crate::home::Home;
use crate::hub::Cradle;
use crate::kin::Kin;
use crate::shared::{Outcome, Shared};
use crate::socket::Socket;
use crate::stack::Stack;
use crate::types::{Role, Tcp};

/// A child that is about to be forked. Dropped in the parent, after the fork or without one.
#[derive(Default)]
pub struct Birth(Vec<(Home, Cradle)>);

/// A connection that it is going to have.
pub struct Heir {
    /// Its place in [`Birth`].
    at: usize,
    share: Share,
    id: ConnId,
    role: Role,
}

/// What a child has.
#[derive(Debug)]
pub struct Inheritance(Vec<Option<Arc<Kin>>>);

impl std::fmt::Debug for Birth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Birth({})", self.0.len())
    }
}

impl std::fmt::Debug for Heir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heir").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Birth {
    /// Before the fork: the child is going to have this connection too; `None`: it cannot. From here on the
    /// child counts as one that has it open.
    pub fn share(&mut self, socket: &Socket) -> Option<Heir> {
        let channel = socket.shared.channel()?;
        let at = match self.0.iter().position(|(home, _)| home.is(&socket.home)) {
            Some(at) => at,
            None => {
                self.0.push((socket.home.clone(), socket.home.expect_child()?));
                self.0.len() - 1
            }
        };
        let (_, cradle) = self.0.get(at)?;
        let share = channel.share(cradle.process)?;
        Some(Heir { at, share, id: socket.shared.id, role: socket.shared.role })
    }

    /// In the child, before anything else.
    #[must_use]
    pub fn in_child(self) -> Inheritance {
        let kin = |(home, cradle): (Home, Cradle)| {
            // The parent's: it is never given back here.
            std::mem::forget(home);
            cradle.not_its_own.iter().copied().for_each(close);
            Kin::new(cradle).map(Arc::new)
        };
        Inheritance(self.0.into_iter().map(kin).collect())
    }
}

/// Closes a descriptor that this child has from its parent.
fn close(fd: RawFd) {
    // SAFETY: the parent owned this number when it forked, in a value that is never used nor dropped in the
    // child; so it is this child's copy, and nobody's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

impl Inheritance {
    /// The child's stack, without a device yet.
    ///
    /// # Errors
    /// No descriptors.
    pub fn stack(&self) -> std::io::Result<Stack> {
        Stack::of_kin(self.0.iter().flatten().cloned().collect())
    }

    /// An inherited connection.
    pub fn socket(&self, heir: Heir, tcp: Box<dyn Tcp>) -> Option<Arc<Socket>> {
        let kin = self.0.get(heir.at)?.as_ref()?;
        let channel = Channel::inherit(heir.share, kin.family(), kin.process());
        let shared = Arc::new(Shared::new(heir.id, heir.role, Arc::from(tcp)));
        shared.settle(Outcome::Smc(Box::new(channel)));
        kin.add(&shared);
        Some(Arc::new(Socket::new(Home::Kin(Arc::clone(kin)), shared)))
    }
}
