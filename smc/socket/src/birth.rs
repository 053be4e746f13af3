// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A fork: what the child is going to have is made before, and taken over after.
//!
//! Invariant: nothing that another thread may have half changed is looked at in the child.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smc_proto::id::ConnId;

use crate::channel::{Channel, Share};
use crate::home::Home;
use crate::hub::Cradle;
use crate::kin::Kin;
use crate::links::{self, Held};
use crate::shared::{Outcome, Shared};
use crate::socket::Socket;
use crate::stack::Stack;
use crate::types::{Role, Tcp};

/// How long connections are waited for, altogether, that another thread or process has just then.
const PATIENCE: Duration = Duration::from_millis(250);

/// A child that is about to be forked. Dropped in the parent, after the fork or without one.
///
/// No other child of this process is born as long as this lives, so it is begun after whatever takes time.
#[derive(Default)]
pub struct Birth {
    /// Given back first: what is dropped after it takes it for itself.
    held: Option<Held>,
    homes: Vec<(Home, Cradle)>,
    /// Until when connections are waited for.
    end: Option<Instant>,
}

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
        write!(f, "Birth({})", self.homes.len())
    }
}

impl std::fmt::Debug for Heir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heir").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Birth {
    /// Before each fork, whatever the child is going to have: it must not keep its siblings' links open.
    #[must_use]
    pub fn begin() -> Self {
        Self { held: links::hold(), homes: Vec::new(), end: None }
    }

    /// Before the fork: the child is going to have this connection too; `None`: it cannot. From here on the
    /// child counts as one that has it open.
    pub fn share(&mut self, socket: &Socket) -> Option<Heir> {
        let channel = socket.shared.channel()?;
        let at = match self.homes.iter().position(|(home, _)| home.is(&socket.home)) {
            Some(at) => at,
            None => {
                let cradle = socket.home.expect_child(self.held.as_mut()?)?;
                self.homes.push((socket.home.clone(), cradle));
                self.homes.len() - 1
            }
        };
        let (home, cradle) = self.homes.get(at)?;
        let end = *self.end.get_or_insert_with(|| Instant::now() + PATIENCE);
        let left = end.saturating_duration_since(Instant::now());
        let (share, effects) = channel.share(cradle.member, left)?;
        home.follow(socket.shared.acted(effects), &socket.shared);
        Some(Heir { at, share, id: socket.shared.id, role: socket.shared.role })
    }

    /// In the child, before anything else.
    #[must_use]
    pub fn in_child(self) -> Inheritance {
        let Self { held, homes, .. } = self;
        if let Some(mut held) = held {
            held.keep(&homes.iter().map(|(_, cradle)| &cradle.link).collect::<Vec<_>>());
        }
        let kin = |(home, cradle): (Home, Cradle)| {
            // The parent's: it is never given back here.
            std::mem::forget(home);
            Kin::new(cradle).map(Arc::new)
        };
        Inheritance(homes.into_iter().map(kin).collect())
    }
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
        let channel = Channel::inherit(heir.share, kin.family(), kin.member());
        let shared = Arc::new(Shared::new(heir.id, heir.role, Arc::from(tcp)));
        shared.settle(Outcome::Smc(Box::new(channel)));
        kin.add(&shared);
        Some(Arc::new(Socket::new(Home::Kin(Arc::clone(kin)), shared)))
    }
}
