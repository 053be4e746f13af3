// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fabric: its members' comings and goings, and the way of a signal or an event.
//!
//! Invariant: `live` holds exactly the pairs that are whole; every pair is in `pairs` as long as
//! one of its members has not forgotten it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ism_abi::{Config, EVENT_SIZE, Gid, MAGIC, SignalRequest, StatsReply, VERSION, WINDOW_ALIGN};

use crate::board::{Board, Circle};
use crate::config::{Abilities, ConfigError, FabricConfig, MemberConfig, Mode};
use crate::dmb::Grant;
use crate::events::Kind;
use crate::member::{MAX_VLAN, Member};
use crate::pair::{Instance, Pair};
use crate::part::Parting;
use crate::refusal::Refusal;
use crate::signals::SignalSet;
use crate::stats::{FabricStats, MemberStats, MemberSummary, count, read};
use crate::time::{Deadline, Deadlines};
use crate::token::{TOKEN_KEY_SIZE, Tokens};
use crate::window::Window;
use crate::wish::{ExtentId, MemberId, Wish};

/// All members, and what they share.
#[derive(Debug)]
pub struct Fabric {
    pub(crate) config: FabricConfig,
    pub(crate) tokens: Tokens,
    pub(crate) members: BTreeMap<MemberId, Member>,
    pub(crate) gids: HashMap<Gid, MemberId>,
    pub(crate) pairs: BTreeMap<Instance, Pair>,
    /// Whole pairs by their members, the lower id first.
    pub(crate) live: BTreeMap<(MemberId, MemberId), Instance>,
    pub(crate) extents: BTreeMap<ExtentId, Instance>,
    pub(crate) wishes: VecDeque<Wish>,
    pub(crate) deadlines: Deadlines,
    /// DMBs (owner, index) whose UNREGISTER waits for a copy to leave.
    pub(crate) closing: BTreeSet<(MemberId, u32)>,
    pub(crate) settle_at: Option<Duration>,
    pub(crate) board: Board,
    /// Sets of groups that members have; as many as the operator wrote.
    circles: Vec<BTreeSet<String>>,
    next_member: u64,
    pub(crate) next_instance: u64,
    pub(crate) next_extent: u64,
}

/// A peer that a member may talk to, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) peer: MemberId,
    pub(crate) mode: Mode,
    pub(crate) check_cdc: bool,
}

/// The key of a pair in `live`.
pub(crate) fn key(a: MemberId, b: MemberId) -> (MemberId, MemberId) {
    (a.min(b), a.max(b))
}

/// The token of a doorbell, and the grant it names.
fn find_grant<'a>(
    grants: &'a HashMap<u64, Grant>,
    request: &[u8],
) -> Result<(u64, &'a Grant), Refusal> {
    if request.len() != SignalRequest::SIZE {
        return Err(Refusal::Invalid);
    }
    let token = SignalRequest::from_bytes(request).ok_or(Refusal::Invalid)?.token;
    Ok((token, grants.get(&token).ok_or(Refusal::NoToken)?))
}

impl Fabric {
    /// A fabric without members. `token_key`: random bytes of the operating system, this fabric's
    /// alone; nobody may learn them.
    ///
    /// # Errors
    /// The configuration is out of its limits.
    pub fn new(
        config: FabricConfig,
        token_key: &[u8; TOKEN_KEY_SIZE],
    ) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            tokens: Tokens::new(token_key),
            members: BTreeMap::new(),
            gids: HashMap::new(),
            pairs: BTreeMap::new(),
            live: BTreeMap::new(),
            extents: BTreeMap::new(),
            wishes: VecDeque::new(),
            deadlines: Deadlines::new(),
            closing: BTreeSet::new(),
            settle_at: None,
            board: Board::default(),
            circles: Vec::new(),
            next_member: 1,
            next_instance: 1,
            next_extent: 1,
        })
    }

    /// Adds a member, without a front-end yet.
    ///
    /// # Errors
    /// A group or VLAN that does not exist, or a GID with a half that is zero, or whose bytes
    /// 8–15 are another's.
    pub fn add_member(&mut self, mut config: MemberConfig) -> Result<MemberId, ConfigError> {
        if config.groups.is_empty() {
            config.groups.push(self.config.default_group.clone());
        }
        if let Some(name) = config.groups.iter().find(|g| !self.config.groups.contains_key(*g)) {
            return Err(ConfigError::UnknownGroup(name.clone()));
        }
        let mut vlans = config.vlans.iter().flatten();
        if let Some(&id) = vlans.find(|id| !(1..=MAX_VLAN).contains(*id)) {
            return Err(ConfigError::Vlan(id));
        }
        let gid = config.gid;
        let halves = (gid.first_chunk::<8>(), gid.last_chunk::<8>());
        if halves.0 == Some(&[0; 8]) || halves.1 == Some(&[0; 8]) {
            return Err(ConfigError::Gid { gid, taken_by: None });
        }
        let taken = |m: &&Member| m.config.gid.last_chunk::<8>() == halves.1;
        if let Some(other) = self.members.values().find(taken) {
            let taken_by = Some(other.config.name.clone());
            return Err(ConfigError::Gid { gid, taken_by });
        }
        let id = MemberId(self.next_member);
        self.next_member += 1;
        self.gids.insert(gid, id);
        let circle = self.circle(&config.groups);
        self.members.insert(id, Member::new(config, circle));
        Ok(id)
    }

    /// The number of a set of groups.
    fn circle(&mut self, groups: &[String]) -> Circle {
        let groups = groups.iter().cloned().collect();
        let known = self.circles.iter().position(|circle| *circle == groups);
        known.unwrap_or_else(|| {
            self.circles.push(groups);
            self.circles.len() - 1
        })
    }

    /// Removes a member with all it had; its peers are told. Unknown ids are ignored.
    pub fn remove_member(&mut self, id: MemberId) {
        self.disconnect(id);
        if let Some(member) = self.members.remove(&id) {
            self.gids.remove(&member.gid());
        }
    }

    /// A front-end is there, with an empty window. Called again (with new abilities, say), it is
    /// a new front-end.
    ///
    /// # Errors
    /// No such member.
    pub fn connect(&mut self, id: MemberId, abilities: Abilities) -> Result<(), ConfigError> {
        self.disconnect(id);
        let member = self.members.get_mut(&id).ok_or(ConfigError::NoMember(id))?;
        let chunk = self.config.chunk_size;
        // A window without room for an extent and its gap is none.
        let window = abilities.window.filter(|&size| size >= chunk.saturating_add(WINDOW_ALIGN));
        member.abilities = Some(Abilities { window, ..abilities });
        member.window = Window::new(window.unwrap_or(0), chunk);
        Ok(())
    }

    /// The front-end is gone, and its window with it: peers are told, tokens die. The wishes that
    /// were for it are withdrawn.
    pub fn disconnect(&mut self, id: MemberId) {
        self.part(id, Parting::Disconnect);
        if let Some(member) = self.members.get_mut(&id) {
            member.abilities = None;
        }
    }

    /// The device was reset or its rings were stopped: as [`Fabric::disconnect`], but the
    /// front-end is still there, and its mappings are to be removed. Copies may still be inside its
    /// RAM: see [`Fabric::is_quiet`].
    pub fn reset(&mut self, id: MemberId) {
        self.part(id, Parting::Reset);
    }

    /// No copy is inside RAM that this member had registered before its last reset, disconnect or
    /// HELLO. (A reset device must not write to RAM: a stopped ring is acknowledged after this.)
    pub fn is_quiet(&mut self, id: MemberId) -> bool {
        self.members.get_mut(&id).is_none_or(Member::is_quiet)
    }

    /// The device configuration space of a member; zeros for an unknown one.
    pub fn config(&self, id: MemberId) -> [u8; Config::SIZE] {
        let Some(member) = self.members.get(&id) else {
            return [0; Config::SIZE];
        };
        let window = member.abilities.and_then(|a| a.window);
        let config = Config {
            gid: member.gid(),
            chunk_size: window.map_or(0, |_| self.config.chunk_size),
            notify_size: 0,
            magic: MAGIC,
            version: VERSION,
            fabric_id: self.config.fabric_id,
            max_dmbs: self.config.max_dmbs,
            max_dmb_len: self.config.max_dmb_len,
            window_size: window.unwrap_or(0),
            max_move_len: self.config.max_move_len,
            ping_interval_ms: self.config.ping_interval_ms,
        };
        config.to_bytes()
    }

    /// A member's pending signals: the same set as long as the member exists.
    pub fn signals(&self, id: MemberId) -> Option<Arc<SignalSet>> {
        Some(Arc::clone(&self.members.get(&id)?.signals))
    }

    /// Takes a doorbell, the whole of a signal queue's buffer. Returns the member that has to look
    /// at its [`SignalSet`], if it does not look anyway. Past the sender's rate nothing is lost: the
    /// signal goes out later, by [`Fabric::handle_timeout`].
    ///
    /// # Errors
    /// The request is malformed, its token is none of this member's, or the member is not ready.
    pub fn signal(
        &mut self,
        id: MemberId,
        request: &[u8],
        now: Duration,
    ) -> Result<Option<MemberId>, Refusal> {
        let member = self.members.get_mut(&id).ok_or(Refusal::NotReady)?;
        let ready = if member.ready { Ok(()) } else { Err(Refusal::NotReady) };
        let found = ready.and_then(|()| find_grant(&member.grants, request));
        let (token, grant) = found.inspect_err(|_| count(&member.counters.errors, 1))?;
        count(&member.counters.signals_sent, 1);
        if member.signal_rate.take(now) {
            return Ok(grant.signals.set(grant.index).then_some(grant.owner));
        }
        self.defer_signal(id, token);
        Ok(None)
    }

    /// Keeps a signal until the sender's rate allows it.
    pub(crate) fn defer_signal(&mut self, id: MemberId, token: u64) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.deferred.insert(token);
        if member.deferred_at.is_none() {
            let at = member.signal_rate.ready_at();
            member.deferred_at = Some(at);
            self.deadlines.insert((at, Deadline::Signals(id)));
        }
    }

    /// The next event of a member but for signals; called when there is a buffer for it. Write it,
    /// and when everything taken is in the ring, call [`Fabric::events_delivered`].
    pub fn poll_event(&mut self, id: MemberId) -> Option<[u8; EVENT_SIZE]> {
        let member = self.members.get_mut(&id)?;
        member.late_events = false;
        member.events.poll()
    }

    /// The events taken by [`Fabric::poll_event`] are in the ring, and the driver can see them.
    /// REGISTERs that waited for that are answered.
    pub fn events_delivered(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        for event in member.events.delivered() {
            if let Kind::Grant { owner, index, token } = event.kind {
                self.grant_delivered(owner, index, token);
            }
        }
    }

    /// The events taken by [`Fabric::poll_event`] could not be written: they come again.
    pub fn events_failed(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.events.undo();
        }
    }

    /// What the daemon should do next.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// Queues an event, and tells the daemon so.
    pub(crate) fn push_event(&mut self, to: MemberId, kind: Kind, event: u16, body: &[u8]) -> u64 {
        let Some(member) = self.members.get_mut(&to) else {
            return 0;
        };
        let bytes = crate::events::bytes(event, body);
        let (number, tell) = member.events.push(crate::events::Event { kind, bytes });
        if tell {
            self.wishes.push_back(Wish::EventsReady { member: to });
        }
        number
    }

    /// Whether a member may talk to the owner of a GID, and how.
    pub(crate) fn reach(
        &self,
        id: MemberId,
        gid: &Gid,
        vlan: Option<u16>,
    ) -> Result<Reach, Refusal> {
        let unreachable = Refusal::Unreachable;
        let member = self.members.get(&id).ok_or(unreachable)?;
        let peer_id = *self.gids.get(gid).ok_or(unreachable)?;
        let peer = self.members.get(&peer_id).ok_or(unreachable)?;
        let common = || member.groups().iter().filter(|g| peer.groups().contains(g));
        let groups = || common().filter_map(|g| self.config.groups.get(g));
        let may_talk = groups().next().is_some() && peer.ready;
        if !may_talk || !member.in_vlan(vlan) || !peer.in_vlan(vlan) {
            return Err(unreachable);
        }
        let (mine, theirs) =
            (member.abilities.unwrap_or_default(), peer.abilities.unwrap_or_default());
        let windows = mine.window.is_some() && theirs.window.is_some();
        let mode = if windows && groups().any(|g| g.mode == Mode::Mapped) {
            Mode::Mapped
        } else if mine.copied && theirs.copied {
            Mode::Copied
        } else {
            return Err(unreachable);
        };
        let check_cdc = groups().any(|g| g.check_cdc);
        Ok(Reach { peer: peer_id, mode, check_cdc })
    }

    /// The instances that a member shares with the owner of a GID, or has not forgotten.
    pub(crate) fn shared(&self, id: MemberId, gid: Gid) -> impl Iterator<Item = &Pair> {
        let instances = self.members.get(&id).into_iter().flat_map(|m| &m.pairs);
        let pairs = instances.filter_map(|instance| self.pairs.get(instance));
        pairs.filter(move |pair| pair.other_gid(id) == Some(gid))
    }

    /// The living instance of this member's pair with the owner of a GID, and that member.
    pub fn pair_with(&self, id: MemberId, gid: &Gid) -> Option<(u64, MemberId)> {
        let peer = *self.gids.get(gid)?;
        self.live.get(&key(id, peer)).map(|instance| (*instance, peer))
    }

    /// Whether both members of an instance are there.
    pub fn is_live(&self, instance: u64) -> bool {
        let key = self.pairs.get(&instance).and_then(|pair| {
            let (first, last) = (pair.members.first()?, pair.members.last()?);
            Some(key(*first, *last))
        });
        key.is_some_and(|key| self.live.get(&key) == Some(&instance))
    }

    /// A member's counters.
    pub fn stats(&self, id: MemberId) -> Option<MemberStats> {
        let member = self.members.get(&id)?;
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let wire = StatsReply {
            dmbs: clamp(member.own.len()),
            grants: clamp(member.grants.len()),
            dmb_bytes: member.own.values().map(|d| u64::from(d.params.len)).sum(),
            signals_sent: read(&member.counters.signals_sent),
            signals_received: member.signals.taken(),
            moves: read(&member.counters.moves),
            move_bytes: read(&member.counters.move_bytes),
            errors: read(&member.counters.errors),
        };
        Some(MemberStats {
            wire,
            peers: clamp(member.pairs.len()),
            charged_bytes: member.bytes,
            orphans: clamp(member.orphans.len()),
        })
    }

    /// The fabric's size.
    pub fn totals(&self) -> FabricStats {
        FabricStats {
            members: self.members.len(),
            pairs: self.pairs.len(),
            extents: self.extents.len(),
            dmbs: self.members.values().map(|m| m.own.len()).sum(),
        }
    }

    /// All members.
    pub fn list(&self) -> impl Iterator<Item = MemberSummary> {
        self.members.iter().map(|(&id, member)| MemberSummary {
            id,
            name: member.config.name.clone(),
            gid: member.gid(),
            connected: member.abilities.is_some(),
            ready: member.ready,
        })
    }
}
