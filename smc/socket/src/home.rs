// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a socket is part of: this process's own stack, or its parent's.
//!
//! Invariant: only an own stack makes connections and gives them back.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use smc_proto::Instant;

use crate::core::Core;
use crate::hub::Cradle;
use crate::kin::Kin;
use crate::links::Held;
use crate::shared::{Due, Shared};
use crate::tcp::Standing;

/// What a socket is part of.
#[derive(Clone)]
pub(crate) enum Home {
    /// This process's own stack.
    Own(Arc<Core>),
    /// A parent's.
    Kin(Arc<Kin>),
    /// Nobody's: the socket is TCP's.
    Nobody,
}

impl Home {
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(one), Self::Own(other)) => Arc::ptr_eq(one, other),
            (Self::Kin(one), Self::Kin(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The own stack.
    pub(crate) fn own(&self) -> Option<&Arc<Core>> {
        match self {
            Self::Own(core) => Some(core),
            Self::Kin(_) | Self::Nobody => None,
        }
    }

    /// What follows from an act on a connection.
    #[inline]
    pub(crate) fn follow(&self, due: Due, socket: &Arc<Shared>) {
        if due.is_some() {
            match self {
                Self::Own(core) => core.follow(due, socket),
                Self::Kin(kin) => kin.follow(due, socket),
                Self::Nobody => {}
            }
        }
    }

    /// Has the other processes that have a connection look at it.
    pub(crate) fn tell_others(&self, socket: &Arc<Shared>) {
        if socket.channel().is_some_and(|channel| !channel.seat().is_alone()) {
            match self {
                Self::Own(core) => core.tell_others(socket),
                Self::Kin(kin) => kin.tell(socket),
                Self::Nobody => {}
            }
        }
    }

    pub(crate) fn tcp_stands(&self, socket: &Arc<Shared>, standing: Standing) {
        let due = socket.tcp_stands(standing);
        self.follow(due, socket);
    }

    pub(crate) fn dispatch(&self) {
        match self {
            Self::Own(core) => core.dispatch(),
            Self::Kin(kin) => kin.dispatch(),
            Self::Nobody => {}
        }
    }

    pub(crate) fn take(&self) {
        match self {
            Self::Own(core) => core.take(),
            Self::Kin(kin) => kin.dispatch(),
            Self::Nobody => {}
        }
    }

    pub(crate) fn prepare_sleep(&self) -> bool {
        match self {
            Self::Own(core) => core.prepare_sleep(),
            Self::Kin(kin) => kin.prepare_sleep(),
            Self::Nobody => true,
        }
    }

    pub(crate) fn wake_up(&self) {
        match self {
            Self::Own(core) => core.wake_up(),
            Self::Kin(kin) => kin.wake_up(),
            Self::Nobody => {}
        }
    }

    pub(crate) fn rung(&self) {
        match self {
            Self::Own(core) => core.rung(),
            Self::Kin(kin) => kin.rung(),
            Self::Nobody => {}
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Own(core) => core.next_timeout(),
            Self::Kin(kin) => kin.next_timeout(),
            Self::Nobody => None,
        }
    }

    /// What becomes readable when there is something to take; `None`: nothing does any more.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Own(core) => (!core.is_gone()).then(|| core.device.fd()),
            Self::Kin(kin) => (!kin.is_alone()).then(|| kin.fd()),
            Self::Nobody => None,
        }
    }

    /// What a child that is about to be forked needs.
    pub(crate) fn expect_child(&self, held: &mut Held) -> Option<Cradle> {
        match self {
            Self::Own(core) => core.hub()?.expect_child(held),
            Self::Kin(kin) => kin.expect_child(held),
            Self::Nobody => None,
        }
    }
}
