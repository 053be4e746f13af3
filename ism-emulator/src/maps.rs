// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of a pair: taking blocks, having extents mapped, giving blocks back.
//!
//! Invariant: between one use of a block and the next the daemon has said that it is zero.

use std::time::Duration;

use crate::dmb::Block;
use crate::fabric::Fabric;
use crate::pair::{Extent, Instance, Mapping, Pair};
use crate::refusal::Refusal;
use crate::time::Deadline;
use crate::wish::{ExtentId, MemberId, Wish};

impl Fabric {
    /// The member's front-end has mapped an extent, or (`ok` false) has refused to.
    pub fn finish_map(&mut self, extent: ExtentId, member: MemberId, ok: bool) {
        let Some(&instance) = self.extents.get(&extent) else {
            return;
        };
        let Some(pair) = self.pairs.get_mut(&instance) else {
            return;
        };
        let Some(side) = pair.side(member).filter(|&s| !pair.is_gone(s)) else {
            return;
        };
        let Some((_, view)) = pair.views_mut(side).find(|(id, _)| *id == extent) else {
            return;
        };
        let answered = if ok { Mapping::Present } else { Mapping::Absent };
        match std::mem::replace(&mut view.mapping, answered) {
            Mapping::Asked { deadline } => {
                self.deadlines.remove(&(deadline, Deadline::Map(extent, member)));
            }
            Mapping::Late => {
                if let Some(member) = self.members.get_mut(&member) {
                    member.late_maps = member.late_maps.saturating_sub(1);
                }
            }
            // Not asked for: as it was.
            before => view.mapping = before,
        }
        self.maps_changed(instance);
    }

    /// A range is zero and without memory, or (`ok` false) could not be made so: then it is never
    /// used again.
    pub fn finish_zero(&mut self, extent: ExtentId, offset: u64, len: u64, ok: bool) {
        let instance = self.extents.get(&extent);
        let pair = instance.and_then(|instance| self.pairs.get_mut(instance));
        let block = Block { extent, offset, len };
        if let Some(pair) = pair
            && pair.zeroing.remove(&block)
            && ok
        {
            pair.give_back(block);
        }
    }

    /// Has a block made zero, and then used again.
    pub(crate) fn release_block(&mut self, instance: Instance, block: Block) {
        if let Some(pair) = self.pairs.get_mut(&instance) {
            pair.zeroing.insert(block);
            let Block { extent, offset, len } = block;
            self.wishes.push_back(Wish::Zero { extent, offset, len });
        }
    }

    /// Takes a block for a DMB of `len` bytes and has its extent mapped in both windows.
    pub(crate) fn take_block(
        &mut self,
        instance: Instance,
        len: u32,
        now: Duration,
    ) -> Result<Block, Refusal> {
        let pair = self.pairs.get_mut(&instance).ok_or(Refusal::NoSpace)?;
        let block = match pair.take_block(len) {
            Some(block) => block,
            None => {
                self.add_extent(instance)?;
                let pair = self.pairs.get_mut(&instance).ok_or(Refusal::NoSpace)?;
                pair.take_block(len).ok_or(Refusal::NoSpace)?
            }
        };
        if let Err(refusal) = self.ask_maps(instance, block.extent, now) {
            // Nobody has seen the block: it is as zero as it was.
            if let Some(pair) = self.pairs.get_mut(&instance) {
                pair.give_back(block);
            }
            return Err(refusal);
        }
        Ok(block)
    }

    /// Fails at once for members whose windows have not answered lately.
    fn answering(&self, pair: &Pair) -> Result<(), Refusal> {
        let late = |m| self.members.get(m).is_none_or(|m| m.late_maps > 0);
        if pair.members.iter().any(late) { Err(Refusal::IoError) } else { Ok(()) }
    }

    fn add_extent(&mut self, instance: Instance) -> Result<(), Refusal> {
        let pair = self.pairs.get(&instance).ok_or(Refusal::NoSpace)?;
        self.answering(pair)?;
        let members = pair.members.clone();
        let most = usize::try_from(self.config.pair_extents).unwrap_or(usize::MAX);
        for &member in &members {
            let other = pair.other_gid(member).unwrap_or_default();
            let shared: usize = self.shared(member, other).map(|p| p.extents.len()).sum();
            if shared >= most {
                return Err(Refusal::NoSpace);
            }
        }
        let mut taken = Vec::new();
        for member in &members {
            let place = self.members.get_mut(member).and_then(|m| m.window.take());
            let Some(offset) = place else {
                for (member, offset) in members.iter().zip(taken) {
                    if let Some(member) = self.members.get_mut(member) {
                        member.window.give_back(offset);
                    }
                }
                return Err(Refusal::NoSpace);
            };
            taken.push(offset);
        }
        let (extent, len) = (ExtentId(self.next_extent), self.config.chunk_size);
        self.next_extent += 1;
        self.extents.insert(extent, instance);
        if let Some(pair) = self.pairs.get_mut(&instance) {
            pair.add_extent(extent, len, taken);
        }
        Ok(())
    }

    /// Asks for every mapping that a DMB in `extent` needs and that is not there.
    fn ask_maps(
        &mut self,
        instance: Instance,
        extent: ExtentId,
        now: Duration,
    ) -> Result<(), Refusal> {
        let pair = self.pairs.get(&instance).ok_or(Refusal::NoSpace)?;
        if pair.all_views(extent, |m| m == Mapping::Present) {
            return Ok(());
        }
        self.answering(pair)?;
        let needed: Vec<ExtentId> = pair.needs(extent).map(|e| e.id).collect();
        // New, or its file could not be made: a mapping that is there shows that it was.
        let unmapped = |e: &&Extent| e.views.iter().all(|v| v.mapping == Mapping::Absent);
        let create = pair.needs(extent).filter(unmapped).map(|e| e.id);
        let len = self.config.chunk_size;
        let create = create.map(|extent| Wish::CreateExtent { extent, len });
        self.wishes.extend(create);
        let deadline = now.saturating_add(self.config.answer_timeout);
        let members = pair.members.clone();
        let Some(pair) = self.pairs.get_mut(&instance) else {
            return Err(Refusal::NoSpace);
        };
        for member in members {
            let Some(side) = pair.side(member) else {
                continue;
            };
            for (extent, view) in pair.views_mut(side).filter(|(id, _)| needed.contains(id)) {
                if view.mapping == Mapping::Absent {
                    view.mapping = Mapping::Asked { deadline };
                    self.deadlines.insert((deadline, Deadline::Map(extent, member)));
                    let (window_offset, len) = (view.offset, self.config.chunk_size);
                    self.wishes.push_back(Wish::Map { member, extent, window_offset, len });
                }
            }
        }
        Ok(())
    }

    /// A window was not mapped in time.
    pub(crate) fn map_late(&mut self, extent: ExtentId, member: MemberId) {
        let Some(&instance) = self.extents.get(&extent) else {
            return;
        };
        let Some(pair) = self.pairs.get_mut(&instance) else {
            return;
        };
        let Some(side) = pair.side(member) else {
            return;
        };
        if let Some((_, view)) = pair.views_mut(side).find(|(id, _)| *id == extent) {
            view.mapping = Mapping::Late;
        }
        if let Some(member) = self.members.get_mut(&member) {
            member.late_maps += 1;
        }
        self.maps_changed(instance);
    }

    /// Looks at the DMBs of a pair that wait for their mappings.
    fn maps_changed(&mut self, instance: Instance) {
        let Some(pair) = self.pairs.get(&instance) else {
            return;
        };
        for (owner, index) in pair.waiting.clone() {
            let dmb = self.members.get(&owner).and_then(|m| m.own.get(&index));
            let Some(extent) = dmb.and_then(|d| d.block).map(|b| b.extent) else {
                continue;
            };
            let Some(pair) = self.pairs.get(&instance) else {
                return;
            };
            if pair.all_views(extent, |m| m == Mapping::Present) {
                self.grant(owner, index);
            } else if !pair.all_views(extent, |m| m != Mapping::Absent && m != Mapping::Late) {
                self.fail_register(owner, index, Refusal::IoError);
            }
        }
    }
}
