// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One instance of the pair of this member and another.
//!
//! Invariant: pages and bell are set once and belong to this instance until the last holder of the
//! peer is gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ism_abi::Gid;
use smc_ring::signal_page::PageView;
use smc_ring::{SignalPage, View};

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::bell::Bell;
use crate::error::Result;

/// Not yet known, or not over.
const NONE: u64 = u64::MAX;

/// Instances that are over and that nobody holds any more. Its lock is taken last.
#[derive(Debug, Default)]
pub(crate) struct Forgotten(Mutex<Vec<(Gid, u64)>>);

impl Forgotten {
    pub(super) fn add(&self, gid: Gid, instance: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((gid, instance));
    }

    pub(super) fn take(&self) -> Vec<(Gid, u64)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    /// Names it in the epoll set; never used again.
    id: u64,
    gid: Gid,
    /// The member itself.
    own: bool,
    instance: AtomicU64,
    /// The instance, when it is over.
    over: AtomicU64,
    /// The page the peer sets bits in.
    inbox: OnceLock<SignalPage<PageView>>,
    /// The page this side sets bits in.
    outbox: OnceLock<SignalPage<PageView>>,
    bell: OnceLock<Bell>,
    /// How often it was wished for while there was none. Its lock is held while the fabric is asked.
    wishes: Mutex<u32>,
    forgotten: Arc<Forgotten>,
}

impl Peer {
    pub(super) fn new(
        gid: Gid,
        own: bool,
        instance: Option<u64>,
        forgotten: &Arc<Forgotten>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            gid,
            own,
            instance: AtomicU64::new(instance.unwrap_or(NONE)),
            over: AtomicU64::new(NONE),
            inbox: OnceLock::new(),
            outbox: OnceLock::new(),
            bell: OnceLock::new(),
            wishes: Mutex::default(),
            forgotten: Arc::clone(forgotten),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn gid(&self) -> Gid {
        self.gid
    }

    /// Whether it is of this instance. It is, and stays, if its own is not known yet.
    pub(super) fn is_of(&self, instance: Option<u64>) -> bool {
        let Some(instance) = instance else { return true };
        let (order, new) = (Ordering::Relaxed, instance);
        match self.instance.compare_exchange(NONE, new, order, order) {
            Ok(_) => true,
            Err(known) => known == instance,
        }
    }

    pub(super) fn set_inbox(&self, page: &View) -> Result<()> {
        let page = SignalPage::of(page)?;
        self.inbox.get_or_init(|| page);
        Ok(())
    }

    pub(super) fn set_outbox(&self, page: &View) -> Result<()> {
        let page = SignalPage::of(page)?;
        self.outbox.get_or_init(|| page);
        Ok(())
    }

    /// Opens the bell if there is none. The fabric, or this process, may have no descriptors just now, or the fabric never
    /// has one: of many wishes few are asked, the first, the second, the fourth and so on. An end that was given is not
    /// given again: the peer rings it once `hear` was done, and where that fails there is no bell, which the peer sees by
    /// its closed end.
    pub(super) fn open_bell(
        &self,
        ask: impl FnOnce() -> Result<Option<OwnedFd>>,
        hear: impl FnOnce(BorrowedFd<'_>) -> bool,
    ) {
        if self.bell().is_some() {
            return;
        }
        let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        *wishes = wishes.saturating_add(1);
        // Another thread may have just opened it.
        if self.bell().is_some() || !wishes.is_power_of_two() {
            return;
        }
        let bell = if self.own { Bell::own().ok() } else { ask().ok().flatten().map(Bell::new) };
        if let Some(bell) = bell.filter(|bell| hear(bell.fd())) {
            bell.announce();
            self.bell.get_or_init(|| bell);
        }
    }

    pub(super) fn bell(&self) -> Option<&Bell> {
        self.bell.get()
    }

    /// Says that an own DMB of the peer was written; true: ring.
    pub(super) fn raise(&self, index: u32) -> bool {
        self.outbox.get().is_none_or(|page| page.raise(index))
    }

    pub(super) fn take_signals(&self, found: impl FnMut(u32)) {
        if let Some(page) = self.inbox.get() {
            page.take(found);
        }
    }

    /// True: nothing is there.
    pub(super) fn arm(&self) -> bool {
        self.inbox.get().is_none_or(SignalPage::arm)
    }

    pub(super) fn silence(&self) {
        if let Some(page) = self.inbox.get() {
            page.silence();
        }
    }

    /// Whether the instance is over.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) != NONE
    }

    /// The instance is over.
    pub(super) fn end(&self, instance: u64) {
        self.over.store(instance, Ordering::Relaxed);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        match self.over.load(Ordering::Relaxed) {
            NONE => {}
            instance => self.forgotten.add(self.gid, instance),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::bell;
    use crate::error::Error;

    fn peer() -> Peer {
        Peer::new([7; 16], false, Some(1), &Arc::default())
    }

    #[test]
    fn a_bell_that_could_not_be_had_at_first_is_had_later() {
        let (end, _other) = bell::pair().unwrap();
        let mut answers = vec![Ok(Some(end)), Ok(None), Err(Error::Gone)];
        let peer = peer();
        for _ in 0..10 {
            peer.open_bell(|| answers.pop().unwrap_or(Ok(None)), |_| true);
        }
        assert!(peer.bell().is_some_and(|bell| !bell.ring()), "nobody hears it yet");
        assert!(answers.is_empty());
    }

    #[test]
    fn a_bell_that_is_never_there_is_seldom_asked_for() {
        let (peer, mut asked) = (peer(), 0);
        for _ in 0..1000 {
            let ask = || {
                asked += 1;
                Ok(None)
            };
            peer.open_bell(ask, |_| true);
        }
        assert!(peer.bell().is_none());
        assert_eq!(asked, 10);
    }
}
