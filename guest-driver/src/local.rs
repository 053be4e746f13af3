// SPDX-License-Identifier: GPL-2.0

//! This member's own DMBs, and the signal pages in which their writers set bits.
//!
//! Invariant: dibs is told of a DMB only if it is registered, and if the bit was set by its own
//! writer (in that pair's page) or by the device. Signal pages are hints: each word is read once,
//! and a lie costs a look that finds nothing.

use core::{
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, SeqCst},
};
use kernel::prelude::*;

use crate::{
    abi::signal_page,
    memory::{Place, Window},
    native::Native,
};

/// A DMB's life: `Free` → `Reserved` (REGISTER is under way) → `Live` → `Dying` (until its pages
/// are free and the device has forgotten it) → `Free`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    Reserved,
    /// REGISTER's caller is gone; `Dying` or `Free` when its answer comes.
    Orphan,
    Live,
    Dying,
}

pub(crate) struct Dmb {
    pub(crate) state: State,
    pub(crate) token: u64,
    /// Bytes.
    pub(crate) len: u32,
    /// Offset of the page its writer sets bits in; `None` in copied mode.
    pub(crate) signal_page: Option<u64>,
    /// The pair's instance.
    pub(crate) instance: u64,
    pub(crate) place: Option<Place>,
    /// [`Place::head`] when its client was last told.
    head: u64,
    /// What [`Local::signal_changed`] found last time instead.
    suspect: u64,
}

impl Dmb {
    const FREE: Self = Self {
        state: State::Free,
        token: 0,
        len: 0,
        signal_page: None,
        instance: 0,
        place: None,
        head: 0,
        suspect: 0,
    };

    /// Whether its memory seems to be gone: then what it reads as is not shown to SMC.
    fn is_gone(&self, window: Option<&Window>) -> bool {
        let (Some(window), Some(page)) = (window, self.signal_page) else {
            return false;
        };
        is_garbage(window, page)
    }
}

/// One direction of a pair: the page in which a peer tells us of its writes.
pub(crate) struct SignalPage {
    offset: u64,
    instance: u64,
}

/// All signal pages that are looked at.
pub(crate) type Pages = KVec<SignalPage>;

pub(crate) struct Local {
    dmbs: KVVec<Dmb>,
    pages: Pages,
    /// What the pages' doorbell words say.
    doorbell: u32,
    used: u32,
}

/// Offset in a signal page of a word of pending bits; for words below `PENDING_WORDS`.
pub(crate) fn pending_at(word: u32) -> u64 {
    (signal_page::PENDING as u64).wrapping_add(u64::from(word).wrapping_mul(8))
}

/// What a look at the signal pages found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Nothing,
    /// This many DMBs were signalled.
    Found(u32),
    /// Nothing, but a page holds what no driver writes: its memory is gone, or its peer lies.
    Garbage,
}

impl Local {
    /// For at most `limit` DMBs.
    pub(crate) fn new(limit: u32) -> Result<Self> {
        let mut dmbs = KVVec::with_capacity(limit as usize, GFP_KERNEL)?;
        for _ in 0..limit {
            dmbs.push(Dmb::FREE, GFP_KERNEL)?;
        }
        Ok(Self {
            dmbs,
            pages: KVec::new(),
            doorbell: signal_page::RING_ALWAYS,
            used: 0,
        })
    }

    /// DMBs that are not free.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// An index for a new DMB.
    pub(crate) fn reserve(&mut self, limit: u32) -> Option<u32> {
        let mut dmbs = (0..limit).zip(self.dmbs.iter_mut());
        let (index, dmb) = dmbs.find(|(_, dmb)| dmb.state == State::Free)?;
        dmb.state = State::Reserved;
        self.used = self.used.saturating_add(1);
        Some(index)
    }

    /// Makes an index free; the caller drops what is returned without the lock.
    pub(crate) fn free(&mut self, index: u32) -> Option<Place> {
        let dmb = self.dmbs.get_mut(index as usize)?;
        let old = core::mem::replace(dmb, Dmb::FREE);
        let was_used = u32::from(old.state != State::Free);
        self.used = self.used.saturating_sub(was_used);
        old.place
    }

    /// The memory of an index whose REGISTER is under way: the device may write it from then on.
    pub(crate) fn place(&mut self, index: u32, place: Place, len: u32) {
        if let Some(dmb) = self.dmbs.get_mut(index as usize) {
            dmb.place = Some(place);
            dmb.len = len;
        }
    }

    /// Where a DMB starts.
    pub(crate) fn address(&self, index: u32) -> Option<NonNull<u8>> {
        let place = self.dmbs.get(index as usize)?.place.as_ref()?;
        Some(place.address())
    }

    /// A registered DMB, from now on signalled. What it holds counts as seen.
    pub(crate) fn activate(
        &mut self,
        index: u32,
        token: u64,
        instance: u64,
        signal_page: Option<u64>,
    ) -> Option<()> {
        let dmb = self.dmbs.get_mut(index as usize)?;
        dmb.token = token;
        dmb.instance = instance;
        dmb.signal_page = signal_page;
        dmb.head = dmb.place.as_ref()?.head();
        dmb.state = State::Live;
        Some(())
    }

    /// REGISTER for `index` failed; `abandoned`: the device may carry it out yet. The caller drops
    /// what is returned without the lock.
    pub(crate) fn settle_failed(&mut self, index: u32, abandoned: bool) -> Option<Place> {
        let dmb = self.dmbs.get_mut(index as usize)?;
        match dmb.state {
            State::Reserved if abandoned => {
                dmb.state = State::Orphan;
                None
            }
            State::Reserved => self.free(index),
            // The answer came just now.
            _ => None,
        }
    }

    /// The answer to a REGISTER whose caller gave up: `token` if it went well.
    pub(crate) fn orphan_answered(&mut self, index: u32, token: Option<u64>) {
        if let Some(dmb) = self.dmbs.get_mut(index as usize) {
            if matches!(dmb.state, State::Orphan | State::Reserved) {
                // Token 0 is never issued: the reaper has nothing to unregister.
                dmb.token = token.unwrap_or(0);
                dmb.state = State::Dying;
            }
        }
    }

    /// Takes a live DMB out of use. False: there is none with this index and token.
    pub(crate) fn bury(&mut self, index: u32, token: u64) -> bool {
        let found = self.dmbs.get_mut(index as usize);
        match found.filter(|dmb| dmb.state == State::Live && dmb.token == token) {
            Some(dmb) => {
                dmb.state = State::Dying;
                true
            }
            None => false,
        }
    }

    /// The next dying DMB at or after `from`: its index, token, and whether its pages are held.
    pub(crate) fn next_dying(&self, from: u32) -> Option<(u32, u64, bool)> {
        let dmbs = (0..u32::MAX).zip(self.dmbs.iter()).skip(from as usize);
        let mut dying = dmbs.filter(|(_, dmb)| dmb.state == State::Dying);
        dying.next().map(|(index, dmb)| {
            let place = dmb.place.as_ref();
            let held = place.is_some_and(|place| place.held(dmb.len as usize));
            (index, dmb.token, held)
        })
    }

    /// The next DMB at or after `from` that is not free.
    pub(crate) fn next_used(&self, from: u32) -> Option<u32> {
        let dmbs = (0..u32::MAX).zip(self.dmbs.iter()).skip(from as usize);
        let mut used = dmbs.filter(|(_, dmb)| dmb.state != State::Free);
        used.next().map(|(index, _)| index)
    }

    /// Whether any DMB belongs to a pair, or may: one whose REGISTER has not been answered has
    /// instance 0 still.
    pub(crate) fn pair_in_use(&self, instance: u64) -> bool {
        let mut used = self.dmbs.iter().filter(|dmb| dmb.state != State::Free);
        used.any(|dmb| dmb.instance == instance || dmb.instance == 0)
    }

    // ---- Signals ----

    /// A pair's signal page, if it is new. The window was asked whether it is inside.
    pub(crate) fn add_page(&mut self, window: &Window, offset: u64, instance: u64) -> Result {
        if self.pages.iter().any(|page| page.offset == offset) {
            return Ok(());
        }
        let page = SignalPage { offset, instance };
        self.pages.push(page, GFP_ATOMIC)?;
        if let Some(word) = window.word32(offset.wrapping_add(signal_page::DOORBELL as u64)) {
            word.store(self.doorbell, SeqCst);
        }
        Ok(())
    }

    pub(crate) fn remove_pages(&mut self, instance: u64) {
        self.pages.retain(|page| page.instance != instance);
    }

    /// No more looks at the window. Returns where the pages were.
    pub(crate) fn take_pages(&mut self) -> Pages {
        core::mem::take(&mut self.pages)
    }

    /// No more looks at DMBs in the window either: the device takes it back, or their pages go.
    pub(crate) fn leave_window(&mut self) {
        for dmb in self.dmbs.iter_mut() {
            if matches!(dmb.place, Some(Place::Window(_))) {
                // Nothing is freed: the place is only an address.
                dmb.place = None;
            }
        }
    }

    /// Tells all writers whether to ring: `signal_page::ARMED` or `SILENT`. The caller looks
    /// again after arming; the store is ordered before that look.
    pub(crate) fn set_doorbell(&mut self, window: &Window, value: u32) {
        self.doorbell = value;
        for page in self.pages.iter() {
            if let Some(word) =
                window.word32(page.offset.wrapping_add(signal_page::DOORBELL as u64))
            {
                word.store(value, SeqCst);
            }
        }
        core::sync::atomic::fence(SeqCst);
    }

    /// Takes the bits of all signal pages and tells dibs.
    pub(crate) fn look(&mut self, native: Native, window: &Window) -> Look {
        let mut found: u32 = 0;
        let mut garbage = false;
        for number in 0..self.pages.len() {
            let Some(offset) = self.pages.get(number).map(|page| page.offset) else {
                break;
            };
            match self.look_at(native, window, offset) {
                Look::Found(count) => found = found.saturating_add(count),
                Look::Nothing => {}
                Look::Garbage => garbage = true,
            }
        }
        match found {
            0 if garbage => Look::Garbage,
            0 => Look::Nothing,
            count => Look::Found(count),
        }
    }

    fn look_at(&mut self, native: Native, window: &Window, page: u64) -> Look {
        let Some(summary) = window.word64(page.wrapping_add(signal_page::SUMMARY as u64)) else {
            return Look::Nothing;
        };
        // Mostly nothing is there, and a plain load leaves the cache line where it is.
        if summary.load(Relaxed) == 0 {
            return Look::Nothing;
        }
        if is_garbage(window, page) {
            return Look::Garbage;
        }
        let mut words = summary.swap(0, SeqCst);
        let mut found: u32 = 0;
        while words != 0 {
            let word = words.trailing_zeros();
            words &= words.wrapping_sub(1);
            let at = page.wrapping_add(pending_at(word));
            let bits = window.word64(at).map_or(0, |word| word.swap(0, SeqCst));
            let told = self.signal(native, word.wrapping_mul(64), bits, Some(page));
            found = found.saturating_add(told);
        }
        match found {
            0 => Look::Nothing,
            count => Look::Found(count),
        }
    }

    /// Tells dibs of the DMBs `base + n` for each bit n that is live and, with `page`, has its
    /// writer there. Returns how many.
    pub(crate) fn signal(
        &mut self,
        native: Native,
        base: u32,
        bits: u64,
        page: Option<u64>,
    ) -> u32 {
        let mut told: u64 = 0;
        let mut rest = bits;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            let Some(dmb) = base
                .checked_add(bit)
                .and_then(|index| self.dmbs.get_mut(index as usize))
            else {
                break;
            };
            let own = page.is_none() || page == dmb.signal_page;
            if dmb.state == State::Live && own {
                if let Some(place) = &dmb.place {
                    dmb.head = place.head();
                }
                told |= 1u64.wrapping_shl(bit);
            }
        }
        if told != 0 {
            native.dibs_signal(base, told);
        }
        told.count_ones()
    }

    /// Tells dibs of each DMB whose head is other than when it was last told, and was so at the
    /// last call already: its signal was lost, not just under way. Returns how many.
    pub(crate) fn signal_changed(&mut self, native: Native, window: Option<&Window>) -> u32 {
        let mut lost: u32 = 0;
        for number in 0..self.dmbs.len() {
            let Some(dmb) = self.dmbs.get_mut(number) else {
                break;
            };
            let Some(head) = dmb.place.as_ref().map(Place::head) else {
                continue;
            };
            let before = core::mem::replace(&mut dmb.suspect, head);
            // All zero: SMC wiped it for the next connection.
            let changed = head != 0 && head != dmb.head && head == before;
            if dmb.state == State::Live && changed && !dmb.is_gone(window) {
                let told = self.signal(native, number as u32, 1, None);
                lost = lost.saturating_add(told);
            }
        }
        lost
    }
}

/// Whether a signal page holds what no driver writes. Memory that is gone reads as all ones; but
/// a peer can write that too, so this says nothing of other peers' pages or of the device.
fn is_garbage(window: &Window, page: u64) -> bool {
    let doorbell = window.word32(page.wrapping_add(signal_page::DOORBELL as u64));
    doorbell.is_some_and(|word| word.load(Relaxed) > signal_page::SILENT)
}

/// Writes what [`any_marked`] looks for. The value also keeps peers from ringing.
pub(crate) fn mark(window: &Window, pages: &Pages) {
    for page in pages.iter() {
        if let Some(word) = window.word32(page.offset.wrapping_add(signal_page::DOORBELL as u64)) {
            word.store(signal_page::SILENT, SeqCst);
        }
    }
}

/// Whether one of the pages is still mapped: elsewhere nothing can be written.
pub(crate) fn any_marked(window: &Window, pages: &Pages) -> bool {
    pages.iter().any(|page| {
        let word = window.word32(page.offset.wrapping_add(signal_page::DOORBELL as u64));
        word.is_some_and(|word| word.load(SeqCst) == signal_page::SILENT)
    })
}
