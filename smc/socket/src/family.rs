// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process and its children of fork: memory that they share, and who of them holds which connection.
//!
//! Invariant: a place serves one connection until no process has it any more; a number names one process
//! until all that it held was given back.
//!
//! Each process has a page like those between peers (`smc_ring::signal_page`), in which others say which
//! place it shall look at.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ism_abi::signal_page::SIZE as PAGE;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use smc_ring::signal_page::PageView;
use smc_ring::{MapError, Mapping, OutOfBounds, Place, Places, SignalPage, View};

use crate::clock;
use crate::few;
use crate::state::State;

/// Processes at a time, the one that made the stack included.
pub(crate) const PROCESSES: u32 = u64::BITS;
/// Connections that can be shared: as many as a page has bits.
const SHARED: u32 = 4096;
/// The process that made the stack.
pub(crate) const ROOT: u32 = 0;

/// In a place: the processes that have the connection open, a bit each.
const HOLDERS: usize = 16;
/// In a place: the processes that may still look at it.
const USERS: usize = 24;

/// The memory.
#[derive(Debug)]
pub(crate) struct Family {
    places: Places<State>,
    /// Pages, and behind them for each process whether its number is in use and its id.
    desks: View,
    /// Places that were never used begin here; those before may be free.
    next: Mutex<u32>,
}

/// A place that belongs to a connection, as one process has it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    family: Arc<Family>,
    process: u32,
    pub(crate) slot: u32,
    pub(crate) place: Place<State>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        clear(users(&self.place), self.process);
    }
}

fn bit(process: u32) -> u64 {
    1_u64.checked_shl(process).unwrap_or(0)
}

fn word(place: &Place<State>, at: usize) -> Option<&AtomicU64> {
    // It is within the place's head.
    place.view().u64(at).ok()
}

fn users(place: &Place<State>) -> Option<&AtomicU64> {
    word(place, USERS)
}

fn holders(place: &Place<State>) -> Option<&AtomicU64> {
    word(place, HOLDERS)
}

/// Clears a process's bit; what is left.
fn clear(word: Option<&AtomicU64>, process: u32) -> u64 {
    let all = !bit(process);
    word.map_or(0, |word| word.fetch_and(all, Ordering::AcqRel) & all)
}

impl Seat {
    /// Whether no other process has the connection open.
    pub(crate) fn is_alone(&self) -> bool {
        self.others() == 0
    }

    /// The other processes that have it open.
    pub(crate) fn others(&self) -> u64 {
        let holders = holders(&self.place).map_or(0, |word| word.load(Ordering::Acquire));
        holders & !bit(self.process)
    }

    /// Whether a process has it open.
    pub(crate) fn is_of(&self, process: u32) -> bool {
        let holders = holders(&self.place).map_or(0, |word| word.load(Ordering::Acquire));
        holders & bit(process) != 0
    }

    /// A process closes it, or has ended; whether nobody has it open any more.
    pub(crate) fn leave(&self, process: u32) -> bool {
        clear(holders(&self.place), process) == 0
    }

    /// The same connection for a child that is about to be forked; it counts at once.
    pub(crate) fn for_child(&self, child: u32) -> Option<(u32, Place<State>)> {
        if self.slot >= SHARED {
            return None;
        }
        for word in [users(&self.place), holders(&self.place)] {
            word?.fetch_or(bit(child), Ordering::AcqRel);
        }
        Some((self.slot, self.place.clone()))
    }

    /// The child's seat, in the child.
    pub(crate) fn of_child(
        family: &Arc<Family>,
        process: u32,
        (slot, place): (u32, Place<State>),
    ) -> Self {
        Self { family: Arc::clone(family), process, slot, place }
    }

    /// Whose it is.
    pub(crate) fn family(&self) -> &Arc<Family> {
        &self.family
    }

    /// This process's number.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }
}

/// A process's number as the lock has it.
pub(crate) const fn owner(process: u32) -> u32 {
    process + 1
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
            places: Places::new(2 * SHARED as usize)?,
            desks: View::new(Arc::new(desks)),
            next: Mutex::new(0),
        };
        family.claim(ROOT);
        family.is_born(ROOT);
        Ok(Arc::new(family))
    }

    /// A free place, for the process that made the stack.
    pub(crate) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |slot: u32| {
            let place = self.places.get(slot as usize)?;
            let (mine, order) = (bit(ROOT), Ordering::AcqRel);
            users(&place)?.compare_exchange(0, mine, order, Ordering::Relaxed).ok()?;
            holders(&place)?.store(mine, Ordering::Release);
            Some(Seat { family: Arc::clone(self), process: ROOT, slot, place })
        };
        // The lowest are the ones that can be shared.
        let seat = (0..=*next).find_map(take)?;
        *next = (*next).max(seat.slot + 1);
        Some(seat)
    }

    // Processes

    fn desk(&self, process: u32, at: usize) -> Result<&AtomicU32, OutOfBounds> {
        self.desks.u32(PROCESSES as usize * PAGE + 8 * process as usize + at)
    }

    fn claim(&self, process: u32) -> bool {
        let (order, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        self.desk(process, 0).is_ok_and(|used| used.compare_exchange(0, 1, order, failed).is_ok())
    }

    /// A number for a child that is about to be forked.
    pub(crate) fn expect_child(&self) -> Option<u32> {
        (ROOT + 1..PROCESSES).find(|process| self.claim(*process))
    }

    /// This process is the one with a number.
    pub(crate) fn is_born(&self, process: u32) {
        if let Ok(id) = self.desk(process, 4) {
            id.store(getpid().as_raw_nonzero().get().cast_unsigned(), Ordering::Release);
        }
    }

    /// A process has ended, and nothing names it any more.
    pub(crate) fn forget(&self, process: u32) {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        for place in (0..next).filter_map(|slot| self.places.get(slot as usize)) {
            clear(holders(&place), process);
            clear(users(&place), process);
        }
        for at in [4, 0] {
            if let Ok(word) = self.desk(process, at) {
                word.store(0, Ordering::Release);
            }
        }
    }

    /// Whether the process that a lock names has ended. One of its parent's children that nobody has waited
    /// for has.
    #[cold]
    pub(crate) fn is_over(&self, owner: u32) -> bool {
        if few::is_confined() {
            return false;
        }
        let id = self.desk(owner.wrapping_sub(1), 4).map_or(0, |id| id.load(Ordering::Acquire));
        let Some(id) = Pid::from_raw(id.cast_signed()) else { return true };
        match pidfd_open(id, PidfdFlags::empty()) {
            Ok(process) => {
                let mut fds = [PollFd::new(&process, PollFlags::IN)];
                let zero = clock::timespec(std::time::Duration::ZERO);
                poll(&mut fds, Some(&zero)).is_ok_and(|ready| ready > 0)
            }
            Err(error) => error == rustix::io::Errno::SRCH,
        }
    }

    /// The page in which a process is told where to look.
    pub(crate) fn page(&self, process: u32) -> Option<SignalPage<PageView>> {
        let at = PAGE.checked_mul(process as usize)?;
        (process < PROCESSES)
            .then(|| self.desks.part(at, PAGE).ok())?
            .and_then(|page| SignalPage::of(&page).ok())
    }
}
