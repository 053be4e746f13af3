// SPDX-License-Identifier: GPL-2.0

//! The peers' DMBs that this member may write, by token: filled by DMB_GRANTED events, looked up
//! by every move_data().
//!
//! Invariant: an entry's place was checked against the window when it was made, so a lookup is a
//! copy of a few words, under a spinlock for some nanoseconds.

use kernel::prelude::*;

use crate::{
    abi::Gid,
    early::{Cdc, Early, Verdict},
};

/// Tokens are random, so their low bits spread well.
const BUCKETS: usize = 1024;

/// How a peer's DMB is reached.
#[derive(Clone, Copy)]
pub(crate) enum Path {
    /// In the window: offsets of the DMB and of the signal page to set its owner's bits in.
    Mapped { offset: u64, signal_page: u64 },
    /// By the device.
    Copied,
}

#[derive(Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) token: u64,
    pub(crate) owner: Gid,
    /// Bytes.
    pub(crate) len: u32,
    /// The owner's number for it.
    pub(crate) index: u32,
    pub(crate) path: Path,
}

struct Node {
    grant: Grant,
    /// An earlier write failed in the device; the next move_data() says so.
    failed: bool,
    /// The owner must be rung, which the full signal queue did not allow.
    unrung: bool,
    early: Early,
    next: Option<KBox<Node>>,
}

pub(crate) struct Grants {
    buckets: KVec<Option<KBox<Node>>>,
    len: usize,
}

impl Grants {
    pub(crate) fn new() -> Result<Self> {
        let mut buckets = KVec::with_capacity(BUCKETS, GFP_KERNEL)?;
        for _ in 0..BUCKETS {
            buckets.push(None, GFP_KERNEL)?;
        }
        Ok(Self { buckets, len: 0 })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn node(&mut self, token: u64) -> Option<&mut Node> {
        let bucket = self.buckets.get_mut(token as usize % BUCKETS)?;
        let mut next = bucket.as_deref_mut();
        while let Some(node) = next {
            if node.grant.token == token {
                return Some(node);
            }
            next = node.next.as_deref_mut();
        }
        None
    }

    pub(crate) fn get(&self, token: u64) -> Option<(Grant, bool)> {
        let mut next = self.buckets.get(token as usize % BUCKETS)?.as_deref();
        while let Some(node) = next {
            if node.grant.token == token {
                return Some((node.grant, node.failed));
            }
            next = node.next.as_deref();
        }
        None
    }

    /// Replaces an entry with the same token.
    pub(crate) fn insert(&mut self, grant: Grant) -> Result {
        self.remove(grant.token);
        let mut node = KBox::new(
            Node {
                grant,
                failed: false,
                unrung: false,
                early: Early::default(),
                next: None,
            },
            GFP_ATOMIC,
        )?;
        if let Some(bucket) = self.buckets.get_mut(grant.token as usize % BUCKETS) {
            node.next = bucket.take();
            *bucket = Some(node);
            self.len = self.len.saturating_add(1);
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, token: u64) {
        if let Some(bucket) = self.buckets.get_mut(token as usize % BUCKETS) {
            let removed = prune(bucket, |grant| grant.token == token);
            self.len = self.len.saturating_sub(removed);
        }
    }

    pub(crate) fn remove_owner(&mut self, owner: &Gid) {
        for bucket in self.buckets.iter_mut() {
            let removed = prune(bucket, |grant| grant.owner == *owner);
            self.len = self.len.saturating_sub(removed);
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        for bucket in self.buckets.iter_mut() {
            *bucket = None;
        }
        self.len = 0;
    }

    /// A message for `token` is to be sent (`early`).
    pub(crate) fn judge(&mut self, token: u64, cdc: &Cdc, now: u64) -> Verdict {
        let node = self.node(token);
        node.map_or(Verdict::Send, |node| node.early.judge(cdc, now))
    }

    /// A message that was held back long enough, and whether there are others. It is to be written
    /// with bottom halves off, and then [`Self::written`] called.
    pub(crate) fn take_due(&mut self, now: u64) -> (Option<(Grant, Cdc)>, bool) {
        let mut due = None;
        let mut more = false;
        for bucket in self.buckets.iter_mut() {
            let mut next = bucket.as_deref_mut();
            while let Some(node) = next {
                if due.is_none() {
                    due = node.early.due(now).map(|cdc| (node.grant, cdc));
                }
                more |= node.early.holds();
                next = node.next.as_deref_mut();
            }
        }
        (due, more)
    }

    /// What [`Self::take_due`] gave out has been written.
    pub(crate) fn written(&mut self, token: u64) {
        if let Some(node) = self.node(token) {
            node.early.written();
        }
    }

    /// Remembers that a write failed.
    pub(crate) fn fail(&mut self, token: u64) {
        if let Some(node) = self.node(token) {
            node.failed = true;
        }
    }

    /// The failure was told.
    pub(crate) fn clear_failure(&mut self, token: u64) {
        if let Some(node) = self.node(token) {
            node.failed = false;
        }
    }

    /// Remembers that the owner must be rung.
    pub(crate) fn ring_later(&mut self, token: u64) {
        if let Some(node) = self.node(token) {
            node.unrung = true;
        }
    }

    /// A token whose owner must be rung; at most once each.
    pub(crate) fn take_unrung(&mut self) -> Option<u64> {
        for bucket in self.buckets.iter_mut() {
            let mut next = bucket.as_deref_mut();
            while let Some(node) = next {
                if core::mem::take(&mut node.unrung) {
                    return Some(node.grant.token);
                }
                next = node.next.as_deref_mut();
            }
        }
        None
    }
}

/// Takes the nodes that match out of a chain, and counts them.
fn prune(bucket: &mut Option<KBox<Node>>, matches: impl Fn(&Grant) -> bool) -> usize {
    let mut removed: usize = 0;
    let mut rest = bucket.take();
    while let Some(mut node) = rest {
        rest = node.next.take();
        if matches(&node.grant) {
            removed = removed.saturating_add(1);
        } else {
            node.next = bucket.take();
            *bucket = Some(node);
        }
    }
    removed
}
