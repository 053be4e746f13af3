// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A member goes, or starts over: what it had dies, and its peers are told.
//!
//! Invariant: after `part` no token of the member works in either direction, and no pair that it
//! is in is whole.

use ism_abi::{PeerGone, RegisterReply, event};

use crate::control::Reply;
use crate::dmb::State;
use crate::events::{EventQueue, Kind};
use crate::fabric::{Fabric, key};
use crate::pair::{Instance, Mapping, Pair};
use crate::refusal::Refusal;
use crate::time::Deadline;
use crate::window::Window;
use crate::wish::{MemberId, Wish};

/// How a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The front-end is gone: there is nobody to unmap for or to answer.
    Disconnect,
    /// The device was reset: mappings go, control buffers are forgotten.
    Reset,
    /// The driver starts over: mappings go, control buffers are answered.
    Hello,
}

impl Fabric {
    /// Takes everything from a member.
    pub(crate) fn part(&mut self, id: MemberId, how: Parting) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.ready = false;
        self.leave_board(id);
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        for (token, _) in std::mem::take(&mut member.grants) {
            member.deferred.remove(&token);
        }
        member.orphans.clear();
        let own: Vec<u32> = member.own.keys().copied().collect();
        for index in own {
            self.lose_dmb(id, index);
        }
        let pairs = self.members.get_mut(&id).map(|m| std::mem::take(&mut m.pairs));
        for instance in pairs.into_iter().flatten() {
            self.leave_pair(id, instance, how != Parting::Disconnect, true);
        }
        self.start_over(id, how);
    }

    /// A member that goes loses a DMB.
    fn lose_dmb(&mut self, id: MemberId, index: u32) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let Some(dmb) = member.own.remove(&index) else {
            return;
        };
        if let Some(at) = dmb.state.deadline() {
            self.deadlines.remove(&(at, Deadline::Grant(id, index)));
        }
        self.closing.remove(&(id, index));
        if !dmb.gate.close() {
            member.draining.push(dmb.gate);
        }
        let registering = dmb.state.deadline().is_some();
        let reply = Reply::cut_off(if registering { RegisterReply::SIZE } else { 0 });
        let waiting = dmb.state.into_tags();
        member.hello.extend(waiting.into_iter().map(|tag| (tag, Some(reply))));
        // What the writer holds of it dies without an event of its own: PEER_GONE covers it.
        if let Some(writer) = self.members.get_mut(&dmb.params.writer)
            && let Some(grant) = writer.grants.remove(&dmb.token)
        {
            writer.deferred.remove(&dmb.token);
            writer.events.withdraw(grant.event);
            if let (true, Some((block, _))) = (grant.attached, grant.block) {
                writer.orphans.insert(dmb.token, (dmb.instance, block));
            }
        }
    }

    /// Takes a member out of a pair. If `tell`, the survivor is told.
    pub(crate) fn leave_pair(&mut self, id: MemberId, instance: Instance, unmap: bool, tell: bool) {
        let Some(pair) = self.pairs.get(&instance) else {
            return;
        };
        let (survivor, was_whole) = (pair.other(id), pair.whole());
        if was_whole {
            self.live.remove(&key(id, survivor));
            self.end_writes(survivor, id, instance);
        }
        let Some(pair) = self.pairs.get_mut(&instance) else {
            return;
        };
        let Some(side) = pair.side(id) else {
            return;
        };
        for (extent, view) in pair.views_mut(side) {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.window.give_back(view.offset);
            match view.mapping {
                Mapping::Asked { deadline } => {
                    self.deadlines.remove(&(deadline, Deadline::Map(extent, id)));
                }
                Mapping::Late => member.late_maps = member.late_maps.saturating_sub(1),
                Mapping::Absent | Mapping::Present => {}
            }
            if unmap && view.mapping != Mapping::Absent {
                let (window_offset, len) = (view.offset, self.config.chunk_size);
                self.wishes.push_back(Wish::Unmap { member: id, extent, window_offset, len });
            }
        }
        pair.waiting.clear();
        if pair.leave(side) {
            self.end_pair(instance);
        } else if tell && was_whole {
            let gid = self.members.get(&id).map(|m| m.gid()).unwrap_or_default();
            let body = PeerGone { gid, instance };
            self.push_event(survivor, Kind::Plain, event::PEER_GONE, &body.to_bytes());
        }
    }

    /// The survivor's DMBs for the member that goes: nobody may write them any more, and their
    /// REGISTERs fail if they are still under way.
    fn end_writes(&mut self, survivor: MemberId, gone: MemberId, instance: Instance) {
        let Some(member) = self.members.get(&survivor).filter(|_| survivor != gone) else {
            return;
        };
        let unfinished = |state: &State| state.deadline().is_some();
        let failed: Vec<u32> = member
            .own
            .values()
            .filter(|d| d.instance == instance && unfinished(&d.state))
            .map(|d| d.params.index)
            .collect();
        for index in failed {
            self.fail_register(survivor, index, Refusal::Unreachable);
        }
    }

    /// Nobody is left: the arena goes.
    fn end_pair(&mut self, instance: Instance) {
        let pair: Option<Pair> = self.pairs.remove(&instance);
        for extent in pair.into_iter().flat_map(|p| p.extents) {
            self.extents.remove(&extent.id);
            self.wishes.push_back(Wish::DropExtent { extent: extent.id });
        }
    }

    /// The rest of a member's state, as new.
    fn start_over(&mut self, id: MemberId, how: Parting) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.own_tokens.clear();
        member.bytes = 0;
        member.vlans.clear();
        member.events = EventQueue::default();
        member.late_events = false;
        member.deferred.clear();
        if let Some(at) = member.deferred_at.take() {
            self.deadlines.remove(&(at, Deadline::Signals(id)));
        }
        let size = member.abilities.and_then(|a| a.window).unwrap_or(0);
        member.window = Window::new(size, self.config.chunk_size);
        member.signals.reset();
        member.counters.reset();
        if how == Parting::Hello {
            return;
        }
        member.hello.clear();
        self.wishes.retain(|wish| match wish {
            Wish::Reply { member, .. } | Wish::EventsReady { member } => *member != id,
            Wish::Map { member, .. } | Wish::Unmap { member, .. } => {
                *member != id || how == Parting::Reset
            }
            Wish::CreateExtent { .. } | Wish::Zero { .. } | Wish::DropExtent { .. } => true,
        });
    }

    /// Carries out what waited for copies to leave. Called when
    /// [`Finished::settle`](crate::Finished) says so.
    pub fn settle(&mut self) {
        let quiet = |fabric: &Self, owner: &MemberId, index: &u32| {
            let dmb = fabric.members.get(owner).and_then(|m| m.own.get(index));
            dmb.is_none_or(|d| d.gate.quiet())
        };
        let done: Vec<_> =
            self.closing.iter().filter(|(o, i)| quiet(self, o, i)).copied().collect();
        for (owner, index) in done {
            self.closing.remove(&(owner, index));
            self.finish_unregister(owner, index);
        }
        let waiting = self.members.iter().filter(|(_, m)| !m.hello.is_empty());
        let waiting: Vec<MemberId> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            self.answer_hello(id);
        }
    }

    /// Answers what waited for a HELLO, if no copy is inside the member's RAM any more.
    pub(crate) fn answer_hello(&mut self, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if !member.is_quiet() {
            return;
        }
        for (tag, cut_off) in std::mem::take(&mut member.hello) {
            let reply = cut_off.unwrap_or_else(|| {
                // Signals of the last copies were for DMBs that are gone.
                member.signals.reset();
                member.ready = true;
                Reply::hello(member, self.config.max_dmbs)
            });
            self.wishes.push_back(Wish::Reply { member: id, tag, reply });
        }
    }
}
