// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reference model: what the specification says, in flat lists, without memory or time.
//!
//! Invariant: it was written from the rules, shares no code with the fabric, and says of every
//! request which status it must earn and which events must follow.

use std::collections::BTreeSet;

use ism_abi::status as s;

/// Members of the model; their groups are `GROUPS`.
pub(crate) const MEMBERS: usize = 4;
/// Groups by member: 0, 1 and 2 share the mapped one, 1, 2 and 3 a copied one.
pub(crate) const GROUPS: [&[&str]; MEMBERS] = [&["m"], &["m", "c"], &["m", "c"], &["c"]];
/// Quotas of every member.
pub(crate) const BYTES: u64 = 256 << 10;
pub(crate) const DMBS: usize = 3;
pub(crate) const PEERS: usize = 6;
/// Instances with a peer that may be unforgotten when it makes another.
const UNFORGOTTEN: usize = 4;

/// An event that a member must get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Granted { owner: usize, token: u64 },
    Unregistered { owner: usize, token: u64 },
    Gone { peer: usize, instance: u64 },
    Software { sender: usize },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    pub(crate) writer: usize,
    pub(crate) index: u32,
    pub(crate) len: u32,
    pub(crate) copied: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ModelDmb {
    pub(crate) owner: usize,
    pub(crate) params: Params,
    pub(crate) token: u64,
    pub(crate) instance: u64,
    /// The owner has it.
    pub(crate) registered: bool,
    /// The writer may write it.
    pub(crate) granted: bool,
    pub(crate) attached: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ModelPair {
    pub(crate) instance: u64,
    pub(crate) members: BTreeSet<usize>,
    /// Those who are still in it.
    pub(crate) left: BTreeSet<usize>,
}

impl ModelPair {
    pub(crate) fn whole(&self) -> bool {
        self.left == self.members
    }
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) connected: [bool; MEMBERS],
    pub(crate) ready: [bool; MEMBERS],
    /// All that were ever registered.
    pub(crate) dmbs: Vec<ModelDmb>,
    /// All that ever were.
    pub(crate) pairs: Vec<ModelPair>,
    pub(crate) signals: [BTreeSet<u32>; MEMBERS],
    pub(crate) events: [Vec<Expected>; MEMBERS],
}

impl Model {
    /// How two members exchange data; `None`: not at all.
    pub(crate) fn copied(&self, a: usize, b: usize) -> Option<bool> {
        if !self.ready[b] {
            return None;
        }
        let common = |group| GROUPS[a].contains(&group) && GROUPS[b].contains(&group);
        if common("m") { Some(false) } else { common("c").then_some(true) }
    }

    fn own(&self, member: usize) -> impl Iterator<Item = &ModelDmb> {
        self.dmbs.iter().filter(move |d| d.owner == member && d.registered)
    }

    /// Bytes that a member's DMBs cost.
    pub(crate) fn charged(&self, member: usize) -> u64 {
        let cost = |d: &ModelDmb| {
            let len = u64::from(d.params.len);
            if d.params.copied { len } else { len.next_power_of_two() }
        };
        self.own(member).map(cost).sum()
    }

    pub(crate) fn pair_of(&self, a: usize, b: usize) -> Option<&ModelPair> {
        self.pairs.iter().find(|p| p.whole() && p.members == BTreeSet::from([a, b]))
    }

    fn peers(&self, member: usize) -> usize {
        self.pairs.iter().filter(|p| p.left.contains(&member)).count()
    }

    /// REGISTER's status; `Err(Some(token))`: that of the same request before.
    pub(crate) fn register(&self, owner: usize, params: &Params) -> Result<(), Result<u64, u32>> {
        if !self.ready[owner] {
            return Err(Err(s::NOT_READY));
        }
        if let Some(dmb) = self.own(owner).find(|d| d.params.index == params.index) {
            let same = dmb.params == *params && dmb.granted;
            return Err(if same { Ok(dmb.token) } else { Err(s::IN_USE) });
        }
        match self.copied(owner, params.writer) {
            None => return Err(Err(s::UNREACHABLE)),
            Some(copied) if copied != params.copied => return Err(Err(s::WRONG_MODE)),
            Some(_) => {}
        }
        let len = u64::from(params.len);
        let cost = if params.copied { len } else { len.next_power_of_two() };
        let new_pair = self.pair_of(owner, params.writer).is_none();
        let members = BTreeSet::from([owner, params.writer]);
        let full = |member| {
            let held = |p: &&ModelPair| p.left.contains(&member) && p.members == members;
            let unforgotten = self.pairs.iter().filter(held).count();
            new_pair && (self.peers(member) >= PEERS || unforgotten >= UNFORGOTTEN)
        };
        if self.own(owner).count() >= DMBS
            || self.charged(owner) + cost > BYTES
            || full(owner)
            || full(params.writer)
        {
            return Err(Err(s::NO_SPACE));
        }
        Ok(())
    }

    /// A REGISTER was answered.
    pub(crate) fn registered(&mut self, owner: usize, params: Params, token: u64, instance: u64) {
        if self.pair_of(owner, params.writer).is_none() {
            let members = BTreeSet::from([owner, params.writer]);
            self.pairs.push(ModelPair { instance, left: members.clone(), members });
        }
        self.events[params.writer].push(Expected::Granted { owner, token });
        let (registered, granted, attached) = (true, true, false);
        self.dmbs.push(ModelDmb { owner, params, token, instance, registered, granted, attached });
    }

    fn find(&mut self, token: u64) -> Option<&mut ModelDmb> {
        self.dmbs.iter_mut().find(|d| d.token == token)
    }

    pub(crate) fn unregister(&mut self, member: usize, token: u64) -> u32 {
        if !self.ready[member] {
            return s::NOT_READY;
        }
        let Some(dmb) = self.find(token).filter(|d| d.owner == member && d.registered) else {
            return s::NO_TOKEN;
        };
        dmb.registered = false;
        let (told, writer, index) = (dmb.granted, dmb.params.writer, dmb.params.index);
        dmb.granted = false;
        self.signals[member].remove(&index);
        if told {
            self.events[writer].push(Expected::Unregistered { owner: member, token });
        }
        s::OK
    }

    pub(crate) fn attach(&mut self, member: usize, token: u64) -> u32 {
        if !self.ready[member] {
            return s::NOT_READY;
        }
        match self.find(token).filter(|d| d.params.writer == member && d.granted) {
            None => s::NO_TOKEN,
            Some(dmb) if dmb.params.copied => s::WRONG_MODE,
            Some(dmb) => {
                dmb.attached = true;
                s::OK
            }
        }
    }

    pub(crate) fn detach(&mut self, member: usize, token: u64) -> u32 {
        if !self.ready[member] {
            return s::NOT_READY;
        }
        match self.find(token).filter(|d| d.params.writer == member && (d.granted || d.attached)) {
            None => s::NO_TOKEN,
            Some(dmb) if dmb.params.copied => s::WRONG_MODE,
            Some(dmb) => {
                dmb.attached = false;
                s::OK
            }
        }
    }

    /// A doorbell's status; who is signalled follows.
    pub(crate) fn signal(&mut self, member: usize, token: u64) -> u32 {
        if !self.ready[member] {
            return s::NOT_READY;
        }
        match self.find(token).filter(|d| d.params.writer == member && d.granted) {
            None => s::NO_TOKEN,
            Some(dmb) => {
                let (owner, index) = (dmb.owner, dmb.params.index);
                self.signals[owner].insert(index);
                s::OK
            }
        }
    }

    /// A move's status, with a signal.
    pub(crate) fn moves(&mut self, member: usize, token: u64, offset: u32, len: u32) -> u32 {
        if !self.ready[member] {
            return s::NOT_READY;
        }
        match self.find(token).filter(|d| d.params.writer == member && d.granted) {
            None => s::NO_TOKEN,
            Some(dmb) if !dmb.params.copied => s::WRONG_MODE,
            Some(dmb) if u64::from(offset) + u64::from(len) > u64::from(dmb.params.len) => {
                s::OUT_OF_RANGE
            }
            Some(_) => self.signal(member, token),
        }
    }

    pub(crate) fn forget(&mut self, member: usize, peer: usize, instance: u64) -> u32 {
        if !self.ready[member] {
            return s::NOT_READY;
        }
        let holds = self.own(member).any(|d| d.instance == instance);
        let found = self.pairs.iter_mut().find(|p| p.instance == instance);
        let Some(pair) = found.filter(|p| p.left.contains(&member)) else {
            return s::OK;
        };
        if pair.members != BTreeSet::from([member, peer]) {
            return s::INVALID;
        }
        if pair.whole() || holds {
            return s::IN_USE;
        }
        pair.left.remove(&member);
        for dmb in self.dmbs.iter_mut().filter(|d| d.instance == instance) {
            dmb.attached &= dmb.params.writer != member;
        }
        s::OK
    }

    pub(crate) fn software(&mut self, member: usize, peer: usize) -> u32 {
        if !self.ready[member] {
            return s::NOT_READY;
        }
        if self.copied(member, peer).is_none() {
            return s::UNREACHABLE;
        }
        self.events[peer].push(Expected::Software { sender: member });
        s::OK
    }

    /// The member loses all it has.
    pub(crate) fn part(&mut self, member: usize) {
        self.ready[member] = false;
        for dmb in &mut self.dmbs {
            let (owns, writes) = (dmb.owner == member, dmb.params.writer == member);
            dmb.registered &= !owns;
            dmb.granted &= !owns && !writes;
            dmb.attached &= !writes;
        }
        for pair in self.pairs.iter_mut().filter(|p| p.left.contains(&member)) {
            let was_whole = pair.whole();
            pair.left.remove(&member);
            if let Some(&survivor) = pair.left.first().filter(|_| was_whole) {
                let gone = Expected::Gone { peer: member, instance: pair.instance };
                self.events[survivor].push(gone);
            }
        }
        self.signals[member].clear();
        self.events[member].clear();
    }
}
