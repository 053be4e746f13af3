// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the fabric knows of one member.
//!
//! Invariant: without `ready` the member owns nothing, may write nothing and is in no pair.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ism_abi::Gid;

use crate::board::Circle;
use crate::config::{Abilities, MemberConfig};
use crate::control::Reply;
use crate::dmb::{Block, Dmb, Grant};
use crate::events::EventQueue;
use crate::gate::Gate;
use crate::pair::Instance;
use crate::quota::Bucket;
use crate::signals::SignalSet;
use crate::stats::Counters;
use crate::window::Window;
use crate::wish::Tag;

/// VLAN that every member is in (ISM_RESERVED_VLANID, net/smc/smc_ism.h).
pub(crate) const RESERVED_VLAN: u16 = 0x1fff;
/// The largest VLAN id of IEEE 802.1Q.
pub(crate) const MAX_VLAN: u16 = 4094;

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) config: MemberConfig,
    /// Whose entries on the board it sees.
    pub(crate) circle: Circle,
    /// What the front-end can do; `None`: there is none.
    pub(crate) abilities: Option<Abilities>,
    /// HELLO was answered.
    pub(crate) ready: bool,
    pub(crate) window: Window,
    pub(crate) signals: Arc<SignalSet>,
    pub(crate) counters: Arc<Counters>,
    /// DMBs by index.
    pub(crate) own: BTreeMap<u32, Dmb>,
    /// Index of each own token.
    pub(crate) own_tokens: HashMap<u64, u32>,
    /// Peers' DMBs that this member may write, by token. Tokens are random and chosen by the
    /// fabric, so nobody can make them collide.
    pub(crate) grants: HashMap<u64, Grant>,
    /// Attached DMBs that are unregistered: their memory is held until the DETACH.
    pub(crate) orphans: HashMap<u64, (Instance, Block)>,
    /// Pairs it is in and has not forgotten.
    pub(crate) pairs: BTreeSet<Instance>,
    pub(crate) vlans: BTreeSet<u16>,
    /// Bytes charged to the quota.
    pub(crate) bytes: u64,
    pub(crate) signal_rate: Bucket,
    pub(crate) control_rate: Bucket,
    pub(crate) events: EventQueue,
    /// Tokens to signal when the rate allows it, and when that is.
    pub(crate) deferred: BTreeSet<u64>,
    pub(crate) deferred_at: Option<Duration>,
    /// Views of extents that its front-end did not answer for in time.
    pub(crate) late_maps: u32,
    /// A grant was not taken in time, and no event buffer was seen since.
    pub(crate) late_events: bool,
    /// Closed gates of DMBs it had, while a copy is inside.
    pub(crate) draining: Vec<Arc<Gate>>,
    /// Answers that wait for `draining`, in order; `None` is a HELLO's.
    pub(crate) hello: Vec<(Tag, Option<Reply>)>,
}

impl Member {
    pub(crate) fn new(config: MemberConfig, circle: Circle) -> Self {
        Self {
            circle,
            signal_rate: Bucket::new(config.quota.signals_per_s),
            control_rate: Bucket::new(config.quota.control_per_s),
            config,
            abilities: None,
            ready: false,
            window: Window::default(),
            signals: Arc::default(),
            counters: Arc::default(),
            own: BTreeMap::new(),
            own_tokens: HashMap::new(),
            grants: HashMap::new(),
            orphans: HashMap::new(),
            pairs: BTreeSet::new(),
            vlans: BTreeSet::new(),
            bytes: 0,
            events: EventQueue::default(),
            deferred: BTreeSet::new(),
            deferred_at: None,
            late_maps: 0,
            late_events: false,
            draining: Vec::new(),
            hello: Vec::new(),
        }
    }

    pub(crate) fn gid(&self) -> Gid {
        self.config.gid
    }

    /// The groups' names, which the configuration made sure exist.
    pub(crate) fn groups(&self) -> &[String] {
        &self.config.groups
    }

    pub(crate) fn in_vlan(&self, vlan: Option<u16>) -> bool {
        vlan.is_none_or(|id| id == RESERVED_VLAN || self.vlans.contains(&id))
    }

    /// No copy is inside a DMB that it lost.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.draining.retain(|gate| !gate.quiet());
        self.draining.is_empty()
    }
}
