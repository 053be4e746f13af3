// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One instance of a pair of members, and its arena.
//!
//! Invariant: an extent belongs to one instance for all its life; an instance ends when both its
//! members are gone or have forgotten it, and no memory of it is ever used by another.

use std::collections::HashSet;
use std::time::Duration;

use ism_abi::{Gid, signal_page};

use crate::buddy::{Buddy, block_len};
use crate::dmb::Block;
use crate::wish::{ExtentId, MemberId};

/// The pair's name in PEER_GONE and FORGET_PEER; never 0, never used again.
pub(crate) type Instance = u64;

/// Bytes at the start of the first extent that hold the signal pages.
const SIGNAL_AREA: u32 = 64 << 10;

/// Whether one member's window has an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Not asked for, or refused.
    Absent,
    /// Asked for; what waits for it gives up then.
    Asked { deadline: Duration },
    /// Asked for, and not answered in time.
    Late,
    /// There.
    Present,
}

/// One member's view of an extent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Place in the member's window; its own as long as the pair lives.
    pub(crate) offset: u64,
    pub(crate) mapping: Mapping,
}

#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) id: ExtentId,
    pub(crate) blocks: Buddy,
    /// By side; a member's pair with itself has one.
    pub(crate) views: Vec<View>,
}

/// One of the two places in a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side(usize);

#[derive(Debug)]
pub(crate) struct Pair {
    /// One member if it is a pair with itself.
    pub(crate) members: Vec<MemberId>,
    /// Their addresses, which outlive them here.
    pub(crate) gids: Vec<Gid>,
    /// By side: gone, or has forgotten the pair.
    pub(crate) gone: Vec<bool>,
    pub(crate) check_cdc: bool,
    pub(crate) extents: Vec<Extent>,
    /// Blocks whose zeroing the daemon has not confirmed.
    pub(crate) zeroing: HashSet<Block>,
    /// DMBs (owner, index) that wait for extents to be mapped.
    pub(crate) waiting: Vec<(MemberId, u32)>,
}

impl Pair {
    /// A pair without memory yet; one member makes a pair with itself.
    pub(crate) fn new(members: Vec<(MemberId, Gid)>, check_cdc: bool) -> Self {
        let (members, gids): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        Self {
            gone: vec![false; members.len()],
            members,
            gids,
            check_cdc,
            extents: Vec::new(),
            zeroing: HashSet::new(),
            waiting: Vec::new(),
        }
    }

    pub(crate) fn side(&self, member: MemberId) -> Option<Side> {
        self.members.iter().position(|&m| m == member).map(Side)
    }

    /// The other member; the same one in a pair with itself.
    pub(crate) fn other(&self, member: MemberId) -> MemberId {
        self.members.iter().copied().find(|&m| m != member).unwrap_or(member)
    }

    /// The address of the other member.
    pub(crate) fn other_gid(&self, member: MemberId) -> Option<Gid> {
        let Side(other) = self.side(self.other(member))?;
        self.gids.get(other).copied()
    }

    pub(crate) fn is_gone(&self, side: Side) -> bool {
        self.gone.get(side.0).copied().unwrap_or(true)
    }

    /// Nobody is gone.
    pub(crate) fn whole(&self) -> bool {
        !self.gone.contains(&true)
    }

    /// Marks a side gone; true if nobody is left.
    pub(crate) fn leave(&mut self, side: Side) -> bool {
        if let Some(gone) = self.gone.get_mut(side.0) {
            *gone = true;
        }
        !self.gone.contains(&false)
    }

    pub(crate) fn extent(&self, id: ExtentId) -> Option<&Extent> {
        self.extents.iter().find(|e| e.id == id)
    }

    pub(crate) fn extent_mut(&mut self, id: ExtentId) -> Option<&mut Extent> {
        self.extents.iter_mut().find(|e| e.id == id)
    }

    /// Takes a block for `len` bytes from the extents that are there.
    pub(crate) fn take_block(&mut self, len: u32) -> Option<Block> {
        let len = block_len(len);
        self.extents.iter_mut().find_map(|extent| {
            let offset = extent.blocks.take(len)?;
            Some(Block { extent: extent.id, offset, len })
        })
    }

    /// Gives a block back, zeroed or never used.
    pub(crate) fn give_back(&mut self, block: Block) {
        if let Some(extent) = self.extent_mut(block.extent) {
            extent.blocks.give_back(block.offset, block.len);
        }
    }

    /// Adds an extent of `size` bytes at these places in the sides' windows.
    pub(crate) fn add_extent(&mut self, id: ExtentId, size: u64, offsets: Vec<u64>) {
        let mut blocks = Buddy::new(size);
        if self.extents.is_empty() {
            // The lowest block, for good: the signal pages.
            blocks.take(u64::from(SIGNAL_AREA));
        }
        let absent = |offset| View { offset, mapping: Mapping::Absent };
        let views = offsets.into_iter().map(absent).collect();
        self.extents.push(Extent { id, blocks, views });
    }

    /// The extents a DMB in `extent` needs mapped: that one, and the first for its signal page.
    pub(crate) fn needs(&self, extent: ExtentId) -> impl Iterator<Item = &Extent> {
        self.extents
            .iter()
            .enumerate()
            .filter(move |(n, e)| *n == 0 || e.id == extent)
            .map(|(_, e)| e)
    }

    /// Every view that a DMB in `extent` needs is in this state.
    pub(crate) fn all_views(&self, extent: ExtentId, is: impl Fn(Mapping) -> bool) -> bool {
        self.needs(extent).flat_map(|e| &e.views).all(|view| is(view.mapping))
    }

    /// Where the member has the extent in its window.
    pub(crate) fn place(&self, extent: ExtentId, member: MemberId) -> Option<u64> {
        let side = self.side(member)?;
        self.extent(extent)?.views.get(side.0).map(|view| view.offset)
    }

    /// Where `viewer` has the page for signals to `receiver` in its window.
    pub(crate) fn signal_page(&self, viewer: MemberId, receiver: MemberId) -> Option<u64> {
        let page = self.side(receiver)?.0 * signal_page::SIZE;
        let first = self.place(self.extents.first()?.id, viewer)?;
        Some(first + u64::try_from(page).ok()?)
    }

    /// The member's views with their extents' names.
    pub(crate) fn views_mut(&mut self, side: Side) -> impl Iterator<Item = (ExtentId, &mut View)> {
        self.extents.iter_mut().filter_map(move |e| Some((e.id, e.views.get_mut(side.0)?)))
    }
}
