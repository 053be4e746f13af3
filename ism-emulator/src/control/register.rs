// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! REGISTER: memory, then both mappings, then the grant in the writer's ring, then the answer.
//!
//! Invariant: when the owner reads OK, the writer's driver can already see the grant; and whatever
//! step fails, nothing of the DMB is left.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ism_abi::{DmbGranted, Gid, MIN_DMB_LEN, RegisterReply, RegisterRequest, event};

use super::{Answer, Call, Reply, vlan};
use crate::buddy::block_len;
use crate::config::Mode;
use crate::dmb::{Block, Dmb, Grant, Params, State};
use crate::events::Kind;
use crate::fabric::{Fabric, Reach, key};
use crate::gate::Gate;
use crate::pair::{Instance, Mapping, Pair};
use crate::refusal::Refusal;
use crate::time::Deadline;
use crate::wish::{MemberId, Tag};

/// Instances with one peer that a member may not have forgotten yet when the peer makes another: a
/// peer that comes and goes must not use up what the member needs for others.
const UNFORGOTTEN: usize = 4;

/// Guest pages, of which DMBs are made.
const PAGE: u32 = 4096;
/// What a copy writes whole, so that SMC's cursors are never seen half written.
const WORD: u64 = 8;

pub(super) fn register(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let request = RegisterRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?;
    let mode = fabric.check_fields(&request)?;
    let vlan = vlan::field(request.vlan_valid, request.vlan_id)?;
    let reach = fabric.reach(call.id, &request.rgid, vlan);
    let params = |writer| Params {
        writer,
        index: request.index,
        len: request.len,
        ram_addr: request.ram_addr,
        vlan,
        mode,
    };
    let member = fabric.members.get_mut(&call.id).ok_or(Refusal::NotReady)?;
    if let Some(dmb) = member.own.get_mut(&request.index) {
        let same = reach.is_ok_and(|r| dmb.params == params(r.peer));
        return fabric.register_again(call, request.index, same);
    }
    let reach = reach?;
    if reach.mode != mode {
        return Err(Refusal::WrongMode);
    }
    fabric.create(call, params(reach.peer), reach)
}

impl Fabric {
    /// The ranges of REGISTER's fields; returns the mode.
    fn check_fields(&self, request: &RegisterRequest) -> Result<Mode, Refusal> {
        let mode = [Mode::Mapped, Mode::Copied].into_iter().find(|m| m.wire() == request.mode);
        let mode = mode.ok_or(Refusal::Invalid)?;
        let ram_end = request.ram_addr.checked_add(u64::from(request.len));
        let fine = request.index < self.config.max_dmbs
            && (MIN_DMB_LEN..=self.config.max_dmb_len).contains(&request.len)
            && request.len.is_multiple_of(PAGE)
            && ram_end.is_some()
            && request.ram_addr.is_multiple_of(WORD)
            && (mode == Mode::Copied || request.ram_addr == 0)
            && request.reserved == [0; 4];
        if fine { Ok(mode) } else { Err(Refusal::Invalid) }
    }

    /// The index is in use: the same answer for the same request.
    fn register_again(&mut self, call: &Call<'_>, index: u32, same: bool) -> Answer {
        let member = self.members.get_mut(&call.id).ok_or(Refusal::NotReady)?;
        let dmb = member.own.get_mut(&index).ok_or(Refusal::InUse)?;
        let whole = self.pairs.get(&dmb.instance).is_some_and(Pair::whole);
        match &mut dmb.state {
            State::Mapping { tags, .. } | State::Granting { tags, .. } if same => {
                tags.push(call.tag);
                Ok(None)
            }
            State::Registered if same && whole => Ok(Some(self.register_reply(call.id, index))),
            _ => Err(Refusal::InUse),
        }
    }

    fn create(&mut self, call: &Call<'_>, params: Params, reach: Reach) -> Answer {
        let charge = match params.mode {
            Mode::Mapped => block_len(params.len),
            Mode::Copied => u64::from(params.len),
        };
        self.check_quota(call.id, charge)?;
        if self.members.get(&params.writer).is_none_or(|m| m.late_events) {
            return Err(Refusal::IoError);
        }
        let (instance, fresh) = self.pair(call.id, reach)?;
        let block = match params.mode {
            Mode::Copied => None,
            Mode::Mapped => match self.take_block(instance, params.len, call.now) {
                Ok(block) => Some(block),
                Err(refusal) => {
                    self.undo_pair(instance, fresh);
                    return Err(refusal);
                }
            },
        };
        let deadline = call.now.saturating_add(self.config.answer_timeout);
        let (token, index) = (self.tokens.next(), params.index);
        let state = State::Mapping { tags: vec![call.tag], deadline };
        let gate = Arc::new(Gate::new());
        let dmb = Dmb { token, params, instance, block, gate, state };
        if let Some(member) = self.members.get_mut(&call.id) {
            member.bytes = member.bytes.saturating_add(charge);
            member.own_tokens.insert(token, index);
            member.own.insert(index, dmb);
        }
        self.deadlines.insert((deadline, Deadline::Grant(call.id, index)));
        self.grant_or_wait(call.id, index, instance);
        Ok(None)
    }

    fn check_quota(&self, id: MemberId, charge: u64) -> Result<(), Refusal> {
        let member = self.members.get(&id).ok_or(Refusal::NotReady)?;
        let quota = member.config.quota;
        let dmbs = u32::try_from(member.own.len()).unwrap_or(u32::MAX);
        let bytes = member.bytes.checked_add(charge);
        let fits = dmbs < quota.dmbs && bytes.is_some_and(|bytes| bytes <= quota.bytes);
        if fits { Ok(()) } else { Err(Refusal::NoSpace) }
    }

    /// The whole pair with a peer; true if it is a new one.
    fn pair(&mut self, id: MemberId, reach: Reach) -> Result<(Instance, bool), Refusal> {
        let key = key(id, reach.peer);
        if let Some(&instance) = self.live.get(&key) {
            return Ok((instance, false));
        }
        let mut members = Vec::new();
        for id in BTreeSet::from([id, reach.peer]) {
            let member = self.members.get(&id).ok_or(Refusal::Unreachable)?;
            members.push((id, member.gid()));
        }
        for &(id, gid) in &members {
            let member = self.members.get(&id).ok_or(Refusal::Unreachable)?;
            let pairs = u32::try_from(member.pairs.len()).unwrap_or(u32::MAX);
            let other = members.iter().map(|(_, g)| *g).find(|g| *g != gid);
            let unforgotten = other.map_or(0, |other| self.shared(id, other).count());
            if pairs >= member.config.quota.peers || unforgotten >= UNFORGOTTEN {
                return Err(Refusal::NoSpace);
            }
        }
        let instance = self.next_instance;
        self.next_instance += 1;
        self.pairs.insert(instance, Pair::new(members, reach.check_cdc));
        self.live.insert(key, instance);
        for member in [id, reach.peer] {
            if let Some(member) = self.members.get_mut(&member) {
                member.pairs.insert(instance);
            }
        }
        Ok((instance, true))
    }

    /// A new pair that got no memory leaves no trace.
    fn undo_pair(&mut self, instance: Instance, fresh: bool) {
        let members = self.pairs.get(&instance).map(|p| p.members.clone());
        for member in members.into_iter().flatten().filter(|_| fresh) {
            self.leave_pair(member, instance, true, false);
            if let Some(member) = self.members.get_mut(&member) {
                member.pairs.remove(&instance);
            }
        }
    }

    /// Grants a new DMB, or has it wait for its mappings.
    fn grant_or_wait(&mut self, owner: MemberId, index: u32, instance: Instance) {
        let block = self.members.get(&owner).and_then(|m| m.own.get(&index)).and_then(|d| d.block);
        let Some(pair) = self.pairs.get_mut(&instance) else {
            return;
        };
        let there = |b: Block| pair.all_views(b.extent, |m| m == Mapping::Present);
        if block.is_none_or(there) {
            self.grant(owner, index);
        } else {
            pair.waiting.push((owner, index));
        }
    }

    /// Everything is mapped: the writer gets its grant, and the answer waits until it is in the
    /// writer's ring.
    pub(crate) fn grant(&mut self, owner: MemberId, index: u32) {
        let Some((token, mut grant, gid)) = self.make_grant(owner, index) else {
            return;
        };
        let writer =
            self.members.get(&owner).and_then(|m| m.own.get(&index)).map(|d| d.params.writer);
        let Some((writer, pair)) = writer.zip(self.pairs.get_mut(&grant.instance)) else {
            return;
        };
        pair.waiting.retain(|waiting| *waiting != (owner, index));
        let body = DmbGranted {
            gid,
            token,
            window_offset: grant.block.map_or(0, |(_, offset)| offset),
            signal_offset: pair.signal_page(writer, owner).unwrap_or(0),
            len: grant.len,
            index,
            mode: grant.mode.wire(),
            reserved: [0; 7],
        };
        let kind = Kind::Grant { owner, index, token };
        grant.event = self.push_event(writer, kind, event::DMB_GRANTED, &body.to_bytes());
        if let Some(member) = self.members.get_mut(&writer) {
            member.grants.insert(token, grant);
        }
    }

    /// The writer's half of a DMB that waits for it; the DMB goes on to `Granting`.
    fn make_grant(&mut self, owner: MemberId, index: u32) -> Option<(u64, Grant, Gid)> {
        let member = self.members.get_mut(&owner)?;
        let (gid, signals) = (member.gid(), Arc::clone(&member.signals));
        let dmb = member.own.get_mut(&index)?;
        let pair = self.pairs.get(&dmb.instance)?;
        let block = match dmb.block {
            Some(block) => {
                let extent = pair.place(block.extent, dmb.params.writer)?;
                Some((block, extent.checked_add(block.offset)?))
            }
            None => None,
        };
        if let State::Mapping { tags, deadline } = &mut dmb.state {
            let (tags, deadline) = (std::mem::take(tags), *deadline);
            dmb.state = State::Granting { tags, deadline };
        }
        let grant = Grant {
            owner,
            instance: dmb.instance,
            index,
            len: dmb.params.len,
            mode: dmb.params.mode,
            ram_addr: dmb.params.ram_addr,
            check_cdc: pair.check_cdc,
            gate: Arc::clone(&dmb.gate),
            signals,
            block,
            event: 0,
            attached: false,
        };
        Some((dmb.token, grant, gid))
    }

    /// The grant is in the writer's ring: answers REGISTER.
    pub(crate) fn grant_delivered(&mut self, owner: MemberId, index: u32, token: u64) {
        let dmb = self.members.get_mut(&owner).and_then(|m| m.own.get_mut(&index));
        let Some(dmb) = dmb.filter(|d| d.token == token) else {
            return;
        };
        let State::Granting { tags, deadline } = &mut dmb.state else {
            return;
        };
        let (tags, deadline): (Vec<Tag>, Duration) = (std::mem::take(tags), *deadline);
        dmb.state = State::Registered;
        self.deadlines.remove(&(deadline, Deadline::Grant(owner, index)));
        let reply = self.register_reply(owner, index);
        self.answer_later(owner, tags, reply);
    }

    fn register_reply(&self, owner: MemberId, index: u32) -> Reply {
        let dmb = self.members.get(&owner).and_then(|m| m.own.get(&index));
        let found = dmb.and_then(|d| Some((d, self.pairs.get(&d.instance)?)));
        let Some((dmb, pair)) = found else {
            return Reply::refused(Refusal::IoError, RegisterReply::SIZE);
        };
        let mut body = RegisterReply {
            token: dmb.token,
            window_offset: 0,
            extent_offset: 0,
            extent_len: 0,
            signal_offset: 0,
            instance: dmb.instance,
        };
        if let Some(block) = dmb.block {
            let extent = pair.place(block.extent, owner).unwrap_or(0);
            body.extent_offset = extent;
            body.window_offset = extent.saturating_add(block.offset);
            body.extent_len = self.config.chunk_size;
            body.signal_offset = pair.signal_page(owner, owner).unwrap_or(0);
        }
        Reply::ok(&body.to_bytes())
    }

    /// REGISTER fails while it waits; nothing of it is left but, for a writer that has the grant
    /// already, a DMB_UNREGISTERED.
    pub(crate) fn fail_register(&mut self, owner: MemberId, index: u32, refusal: Refusal) {
        let Some(dmb) = self.take_dmb(owner, index) else {
            return;
        };
        self.drop_memory(&dmb);
        self.refuse_later(owner, dmb.state.into_tags(), refusal, RegisterReply::SIZE);
    }
}
