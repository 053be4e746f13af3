// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! UNREGISTER: the grant first, then copies out, then the memory.
//!
//! Invariant: when the owner reads OK, no copy writes the DMB's RAM and none will; and the index,
//! not the token, may be used again.

use ism_abi::{DmbUnregistered, TokenRequest, event};

use super::{Answer, Call, Reply};
use crate::dmb::{Dmb, State};
use crate::events::Kind;
use crate::fabric::Fabric;
use crate::refusal::Refusal;
use crate::time::Deadline;
use crate::wish::MemberId;

pub(super) fn unregister(fabric: &mut Fabric, call: &Call<'_>) -> Answer {
    let token = TokenRequest::from_bytes(call.body).ok_or(Refusal::Invalid)?.token;
    let member = fabric.members.get_mut(&call.id).ok_or(Refusal::NotReady)?;
    let index = *member.own_tokens.get(&token).ok_or(Refusal::NoToken)?;
    let dmb = member.own.get_mut(&index).ok_or(Refusal::NoToken)?;
    match &mut dmb.state {
        // Its owner has not been told the token yet.
        State::Mapping { .. } | State::Granting { .. } => return Err(Refusal::NoToken),
        State::Closing { tags } => {
            tags.push(call.tag);
            return Ok(None);
        }
        State::Registered => {}
    }
    if !dmb.gate.close() {
        dmb.state = State::Closing { tags: vec![call.tag] };
        fabric.revoke(call.id, index);
        fabric.closing.insert((call.id, index));
        fabric.watch_gates(call.now);
        return Ok(None);
    }
    fabric.finish_unregister(call.id, index);
    Ok(Some(Reply::ok(&[])))
}

impl Fabric {
    /// No copy is inside a DMB any more: gives everything back, and answers who waited.
    pub(crate) fn finish_unregister(&mut self, owner: MemberId, index: u32) {
        if let Some(dmb) = self.take_dmb(owner, index) {
            self.drop_memory(&dmb);
            self.answer_later(owner, dmb.state.into_tags(), Reply::ok(&[]));
        }
    }

    /// Takes a DMB out of its owner's tables, and its grant from its writer.
    pub(crate) fn take_dmb(&mut self, owner: MemberId, index: u32) -> Option<Dmb> {
        self.revoke(owner, index);
        let member = self.members.get_mut(&owner)?;
        let dmb = member.own.remove(&index)?;
        member.own_tokens.remove(&dmb.token);
        member.bytes = member.bytes.saturating_sub(dmb.charge());
        member.signals.clear(index);
        if let Some(at) = dmb.state.deadline() {
            self.deadlines.remove(&(at, Deadline::Grant(owner, index)));
        }
        if let Some(pair) = self.pairs.get_mut(&dmb.instance) {
            pair.waiting.retain(|waiting| *waiting != (owner, index));
        }
        Some(dmb)
    }

    /// Gives a DMB's block back, unless its writer is attached.
    pub(crate) fn drop_memory(&mut self, dmb: &Dmb) {
        let writer = self.members.get(&dmb.params.writer);
        let held = writer.is_some_and(|w| w.orphans.contains_key(&dmb.token));
        let Some(block) = dmb.block.filter(|_| !held) else {
            return;
        };
        if let State::Mapping { .. } = dmb.state {
            // Nobody was told of the block: it is as zero as it was.
            if let Some(pair) = self.pairs.get_mut(&dmb.instance) {
                pair.give_back(block);
            }
        } else {
            self.release_block(dmb.instance, block);
        }
    }

    /// Ends a grant. The writer is told, unless it never saw the grant or is gone.
    fn revoke(&mut self, owner: MemberId, index: u32) {
        let Some(member) = self.members.get(&owner) else {
            return;
        };
        let (gid, dmb) = (member.gid(), member.own.get(&index));
        let Some((token, id)) = dmb.map(|d| (d.token, d.params.writer)) else {
            return;
        };
        let Some(writer) = self.members.get_mut(&id) else {
            return;
        };
        let Some(grant) = writer.grants.remove(&token) else {
            return;
        };
        writer.deferred.remove(&token);
        if let (true, Some((block, _))) = (grant.attached, grant.block) {
            writer.orphans.insert(token, (grant.instance, block));
        }
        if !writer.events.withdraw(grant.event) {
            let body = DmbUnregistered { gid, token };
            self.push_event(id, Kind::Plain, event::DMB_UNREGISTERED, &body.to_bytes());
        }
    }
}
