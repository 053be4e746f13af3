// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process and its children of fork: memory that they share, and which of them there are.
//!
//! Invariant: a number names one process until all that it held was given back; which one of those that had a
//! number is meant is told by its turn.
//!
//! Each process has a page like those between peers (`smc_ring::signal_page`), in which others say which
//! place it shall look at.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ism_abi::signal_page::SIZE as PAGE;
use smc_ring::signal_page::PageView;
use smc_ring::{MapError, Mapping, OutOfBounds, Place, Places, SignalPage, View};

use crate::few;
use crate::life::Life;
use crate::seat::{self, Free};
use crate::state::State;

/// Processes at a time, the one that made the stack included.
pub(crate) const PROCESSES: u32 = u64::BITS;
/// Places; as many as can be shared, and some that children may still have.
const PLACES: u32 = 8192;
/// The process that made the stack.
pub(crate) const ROOT: u32 = 0;

/// Bits of a desk's word that say how its process stands; above them is its turn.
const STATE: u32 = 3;
/// Nobody has the number.
const FREE: u32 = 0;
/// Its process is about to be forked, or has not said anything yet.
const EXPECTED: u32 = 1;
/// Its process lives.
const BORN: u32 = 2;
/// Its process has ended or was given up, and something may still be held in its name.
const ENDED: u32 = 3;
/// Turns; the lock has a number and a turn in 31 bits.
const TURNS: u32 = 1 << 24;

/// A process of a family, told from those that had its number before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    process: u32,
    turn: u32,
}

impl Member {
    /// Its number.
    #[inline]
    pub(crate) const fn process(self) -> u32 {
        self.process
    }

    /// As the lock has it.
    pub(crate) const fn owner(self) -> u32 {
        1 + (self.turn * PROCESSES + self.process)
    }

    const fn of(owner: u32) -> Self {
        let all = owner.wrapping_sub(1);
        Self { process: all % PROCESSES, turn: all / PROCESSES }
    }

    const fn word(self, state: u32) -> u32 {
        (self.turn << 2) | state
    }
}

/// The memory.
#[derive(Debug)]
pub(crate) struct Family {
    places: Places<State>,
    /// Pages, and behind them for each process its turn and how it stands.
    desks: View,
    free: Mutex<Free>,
    /// Places from here on were never used by this process.
    next: AtomicU32,
    /// Who lives, from the first child on.
    life: OnceLock<Life>,
    /// The first process has ended, as far as this one knows.
    first_over: AtomicBool,
}

impl Family {
    /// Memory for a process and children that it may have.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn new() -> Result<Arc<Self>, MapError> {
        let processes = PROCESSES as usize;
        let desks = Mapping::anonymous(processes * (PAGE + 8))?;
        let family = Self {
            places: Places::new(PLACES as usize)?,
            desks: View::new(Arc::new(desks)),
            free: Mutex::default(),
            next: AtomicU32::new(0),
            life: OnceLock::new(),
            first_over: AtomicBool::new(false),
        };
        family.set(family.root(), BORN);
        Ok(Arc::new(family))
    }

    /// The process that made the stack. It is the only one that ever has its number.
    pub(crate) const fn root(&self) -> Member {
        Member { process: ROOT, turn: 0 }
    }

    // Places

    /// Place `slot`.
    pub(crate) fn place(&self, slot: u32) -> Option<Place<State>> {
        self.places.get(slot as usize)
    }

    /// Places that nobody has. For the process that made the stack.
    pub(crate) fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place that was never used, under the lock of [`Family::free`].
    pub(crate) fn unused(&self) -> Option<u32> {
        let slot = self.next.load(Ordering::Relaxed);
        (slot < PLACES).then(|| self.next.fetch_add(1, Ordering::Relaxed))
    }

    // Processes

    #[inline]
    fn desk(&self, process: u32) -> Result<&AtomicU32, OutOfBounds> {
        self.desks.u32(PROCESSES as usize * PAGE + 8 * process as usize)
    }

    fn word(&self, process: u32) -> u32 {
        self.desk(process).map_or(0, |desk| desk.load(Ordering::Acquire))
    }

    fn set(&self, member: Member, state: u32) {
        if let Ok(desk) = self.desk(member.process) {
            desk.store(member.word(state), Ordering::Release);
        }
    }

    fn claim(&self, process: u32) -> Option<Member> {
        let (desk, was) = (self.desk(process).ok()?, self.word(process));
        let member = Member { process, turn: ((was >> 2) + 1) % TURNS };
        let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        let claims = || desk.compare_exchange(was, member.word(EXPECTED), order, failed).is_ok();
        (was & STATE == FREE && claims()).then_some(member)
    }

    /// A number for a child that is about to be forked.
    pub(crate) fn expect_child(&self) -> Option<Member> {
        (ROOT + 1..PROCESSES).find_map(|process| self.claim(process))
    }

    /// From now on who lives can be told: before the first child.
    ///
    /// # Errors
    /// No descriptors.
    pub(crate) fn begin_life(&self) -> io::Result<()> {
        if self.life.get().is_none() {
            let life = Life::new()?;
            life.begin(ROOT)?;
            // Of two at a time one goes, and with it the lock that both have: never, they are one hub's.
            let _ = self.life.set(life);
        }
        Ok(())
    }

    /// This process is the one with a number.
    ///
    /// # Errors
    /// Others could not see its end.
    pub(crate) fn is_born(&self, member: Member) -> io::Result<()> {
        self.life.get().ok_or(io::ErrorKind::NotFound)?.begin(member.process)?;
        let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        let born = self.desk(member.process).map(|desk| {
            desk.compare_exchange(member.word(EXPECTED), member.word(BORN), order, failed)
        });
        // The first process may have given it up before.
        born.is_ok_and(|was| was.is_ok()).then_some(()).ok_or(io::ErrorKind::NotFound.into())
    }

    /// Whether a process still is one of the family.
    #[inline]
    pub(crate) fn counts(&self, member: Member) -> bool {
        self.word(member.process) == member.word(BORN)
    }

    /// Whether a child has a number, or is going to.
    pub(crate) fn is_taken(&self, process: u32) -> bool {
        let is_child = (ROOT + 1..PROCESSES).contains(&process);
        is_child && [EXPECTED, BORN].contains(&(self.word(process) & STATE))
    }

    /// A process has ended, or is given up as it has closed its link: what it holds is to be given back.
    pub(crate) fn end(&self, process: u32) {
        let turn = self.word(process) >> 2;
        self.set(Member { process, turn }, ENDED);
    }

    /// Nothing names a process any more.
    pub(crate) fn forget(&self, process: u32) {
        self.end(process);
        let next = self.next.load(Ordering::Relaxed);
        let places = (0..next).filter_map(|slot| self.place(slot));
        places.for_each(|place| seat::forget(&place, process));
        let turn = self.word(process) >> 2;
        self.set(Member { process, turn }, FREE);
    }

    /// Whether the process that a lock names has ended.
    #[cold]
    pub(crate) fn is_over(&self, owner: u32) -> bool {
        let member = Member::of(owner);
        let word = self.word(member.process);
        // It lives before it takes any lock. One that has lost its link may live.
        let may_live = [BORN, ENDED].map(|state| member.word(state)).contains(&word);
        word != member.word(EXPECTED) && !(may_live && self.is_lived(member.process))
    }

    /// Whether a process lives, as far as can be told.
    pub(crate) fn is_lived(&self, process: u32) -> bool {
        if process == ROOT && self.first_over.load(Ordering::Relaxed) {
            return false;
        }
        few::is_confined() || self.life.get().is_none_or(|life| life.is_lived(process))
    }

    /// This process may not ask whether the first one lives, and knows in another way that it does not.
    pub(crate) fn set_first_over(&self) {
        self.first_over.store(true, Ordering::Relaxed);
    }

    /// The page in which a process is told where to look.
    pub(crate) fn page(&self, process: u32) -> Option<SignalPage<PageView>> {
        let at = PAGE.checked_mul(process as usize)?;
        (process < PROCESSES)
            .then(|| self.desks.part(at, PAGE).ok())?
            .and_then(|page| SignalPage::of(&page).ok())
    }
}
