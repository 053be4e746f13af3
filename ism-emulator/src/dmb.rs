// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A DMB as its owner has it, and the grant of it as its writer has it.
//!
//! Invariant: a `Grant` is in its writer's table exactly while the DMB's state is `Granting` or
//! `Registered` and the pair is whole; the table is the only thing a writer's token is looked up in.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Mode;
use crate::gate::Gate;
use crate::pair::Instance;
use crate::signals::SignalSet;
use crate::wish::{ExtentId, MemberId, Tag};

/// A place in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    pub(crate) extent: ExtentId,
    pub(crate) offset: u64,
    /// Bytes, a power of two.
    pub(crate) len: u64,
}

/// What REGISTER said, to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) writer: MemberId,
    pub(crate) index: u32,
    pub(crate) len: u32,
    pub(crate) ram_addr: u64,
    /// VLAN id, if any.
    pub(crate) vlan: Option<u16>,
    pub(crate) mode: Mode,
}

/// How far a DMB is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// REGISTER waits until both windows have the extent; no grant yet.
    Mapping { tags: Vec<Tag>, deadline: Duration },
    /// REGISTER waits until the writer has the grant in its event ring.
    Granting { tags: Vec<Tag>, deadline: Duration },
    /// Answered.
    Registered,
    /// UNREGISTER waits until a copy has left; no grant any more.
    Closing { tags: Vec<Tag> },
}

impl State {
    /// The control buffers that wait.
    pub(crate) fn into_tags(self) -> Vec<Tag> {
        match self {
            Self::Mapping { tags, .. } | Self::Granting { tags, .. } | Self::Closing { tags } => {
                tags
            }
            Self::Registered => Vec::new(),
        }
    }

    /// When it is no longer waited for.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Mapping { deadline, .. } | Self::Granting { deadline, .. } => Some(*deadline),
            Self::Registered | Self::Closing { .. } => None,
        }
    }
}

/// In the owner's table, by index.
#[derive(Debug)]
pub(crate) struct Dmb {
    pub(crate) token: u64,
    pub(crate) params: Params,
    pub(crate) instance: Instance,
    /// In mapped mode, its memory.
    pub(crate) block: Option<Block>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) state: State,
}

impl Dmb {
    /// REGISTER waits for its writer.
    pub(crate) fn granting(&self) -> bool {
        matches!(self.state, State::Granting { .. })
    }

    /// Bytes of quota.
    pub(crate) fn charge(&self) -> u64 {
        self.block.map_or(u64::from(self.params.len), |block| block.len)
    }
}

/// In the writer's table, by token: all that a signal or a move needs, in one look-up.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) owner: MemberId,
    pub(crate) instance: Instance,
    pub(crate) index: u32,
    pub(crate) len: u32,
    pub(crate) mode: Mode,
    pub(crate) ram_addr: u64,
    pub(crate) check_cdc: bool,
    pub(crate) gate: Arc<Gate>,
    /// The owner's pending signals.
    pub(crate) signals: Arc<SignalSet>,
    /// In mapped mode, where it is: in the arena and in the writer's window.
    pub(crate) block: Option<(Block, u64)>,
    /// Number of the DMB_GRANTED event.
    pub(crate) event: u64,
    pub(crate) attached: bool,
}
