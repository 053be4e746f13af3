// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection's place in its family's memory, and who of the family has the connection.
//!
//! Invariant: a place serves one connection until no process has it any more. A process that the family has given
//! up changes nothing here.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smc_ring::{MapError, Place, Places};

use crate::family::{Family, Member, ROOT};
use crate::state::State;

/// Connections that can be shared: as many as a page has bits.
const SHARED: u32 = 4096;
/// A place that is in no family's memory, as that had none left.
const ALONE: u32 = u32::MAX;

/// In a place: what has become of it.
const FLAGS: usize = 8;
/// The rings may be another connection's.
const RELEASED: u32 = 1;
/// A process was killed with the lock, or so it seemed: the state is not looked at any more, and the place not used.
const GIVEN_UP: u32 = 2;
/// In a place: a number that counts events, so that each process hears of what another one has found.
const EVENTS: usize = 12;
/// In a place: the processes that have the connection open, a bit each.
const HOLDERS: usize = 16;
/// In a place: the processes that may still look at it.
const USERS: usize = 24;

/// Places that nobody has, as the process that gives them out knows.
#[derive(Debug, Default)]
pub(crate) struct Free {
    /// The lowest first: they can be shared.
    free: BinaryHeap<Reverse<u32>>,
    /// Those that a child still had when this process gave them back.
    lingering: VecDeque<u32>,
}

/// A place that belongs to a connection, as one process has it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    family: Arc<Family>,
    member: Member,
    pub(crate) slot: u32,
    pub(crate) place: Place<State>,
}

pub(crate) fn bit(process: u32) -> u64 {
    1_u64.checked_shl(process).unwrap_or(0)
}

fn users(place: &Place<State>) -> Option<&AtomicU64> {
    place.word64(USERS)
}

fn holders(place: &Place<State>) -> Option<&AtomicU64> {
    place.word64(HOLDERS)
}

fn read(word: Option<&AtomicU64>) -> u64 {
    word.map_or(0, |word| word.load(Ordering::Acquire))
}

fn is_given_up(place: &Place<State>) -> bool {
    place.word32(FLAGS).is_some_and(|word| word.load(Ordering::Acquire) & GIVEN_UP != 0)
}

/// Clears a process's bit; what is left.
fn clear(word: Option<&AtomicU64>, process: u32) -> u64 {
    let all = !bit(process);
    word.map_or(0, |word| word.fetch_and(all, Ordering::AcqRel) & all)
}

/// Nothing of this process is in a place any more.
pub(crate) fn forget(place: &Place<State>, process: u32) {
    clear(holders(place), process);
    clear(users(place), process);
}

/// A free place, for the process that made the stack.
///
/// # Errors
/// There is no memory.
pub(crate) fn take(family: &Arc<Family>) -> Result<Seat, MapError> {
    let member = family.root();
    let claim = |slot: u32, place: Place<State>| {
        if place.is_locked() {
            return None;
        }
        let (mine, order) = (bit(ROOT), Ordering::AcqRel);
        users(&place)?.compare_exchange(0, mine, order, Ordering::Relaxed).ok()?;
        for word in [FLAGS, EVENTS] {
            place.word32(word)?.store(0, Ordering::Relaxed);
        }
        holders(&place)?.store(mine, Ordering::Release);
        Some(Seat { family: Arc::clone(family), member, slot, place })
    };
    let mut free = family.free();
    free.look_again(family);
    while let Some(slot) = free.free.pop().map(|slot| slot.0).or_else(|| family.unused()) {
        let Some(place) = family.place(slot).filter(|place| !is_given_up(place)) else { continue };
        match claim(slot, place) {
            Some(seat) => return Ok(seat),
            None => free.lingering.push_back(slot),
        }
    }
    // Children that live long have them all. What more there is is this process's alone.
    let place = Places::new(1)?.get(0);
    let none = || MapError::TooShort { at: 0, len: Place::<State>::SIZE, size: 0 };
    place.and_then(|place| claim(ALONE, place)).ok_or_else(none)
}

impl Free {
    /// Looks after some that children had.
    fn look_again(&mut self, family: &Family) {
        for _ in 0..self.lingering.len().min(2) {
            let Some(slot) = self.lingering.pop_front() else { return };
            match family.place(slot).map_or(0, |place| read(users(&place))) {
                0 => self.free.push(Reverse(slot)),
                _ => self.lingering.push_back(slot),
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.is_lost() {
            return;
        }
        let left = clear(users(&self.place), self.member.process());
        if self.member.process() == ROOT && self.slot != ALONE {
            let mut free = self.family.free();
            match left {
                0 => free.free.push(Reverse(self.slot)),
                _ => free.lingering.push_back(self.slot),
            }
        }
    }
}

impl Seat {
    /// Whether the family has given this process up, so that the place may be another connection's.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        match self.member.process() {
            // It has no turn: nobody has its number after it. It is a user until it drops the seat.
            ROOT => !self.is_used_by(ROOT),
            _ => !self.family.counts(self.member),
        }
    }

    /// The processes that have it open.
    fn holders(&self) -> u64 {
        if self.is_lost() { 0 } else { read(holders(&self.place)) }
    }

    /// Whether no other process has the connection open.
    pub(crate) fn is_alone(&self) -> bool {
        self.others() == 0
    }

    /// The other processes that have it open.
    pub(crate) fn others(&self) -> u64 {
        self.others_than(self.member.process())
    }

    /// The processes that have it open, but one.
    pub(crate) fn others_than(&self, process: u32) -> u64 {
        self.holders() & !bit(process)
    }

    /// Whether no process has it open any more.
    pub(crate) fn is_left(&self) -> bool {
        self.holders() == 0
    }

    /// Whether a process may have it, or have died with its lock.
    pub(crate) fn is_used_by(&self, process: u32) -> bool {
        read(users(&self.place)) & bit(process) != 0
    }

    /// A process closes it, or has ended.
    pub(crate) fn leave(&self, process: u32) {
        if !self.is_lost() {
            clear(holders(&self.place), process);
            if process == ROOT && self.member.process() != ROOT {
                // If it lives, and has closed what says so, it sees that others take it for dead.
                clear(users(&self.place), ROOT);
            }
        }
    }

    /// The same connection for a child that is about to be forked; it counts at once.
    pub(crate) fn for_child(&self, child: u32) -> Option<(u32, Place<State>)> {
        if self.slot >= SHARED || self.is_lost() {
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
        member: Member,
        (slot, place): (u32, Place<State>),
    ) -> Self {
        Self { family: Arc::clone(family), member, slot, place }
    }

    /// Whose it is.
    pub(crate) fn family(&self) -> &Arc<Family> {
        &self.family
    }

    /// This process.
    pub(crate) fn member(&self) -> Member {
        self.member
    }

    /// Events that were counted so far.
    #[inline]
    pub(crate) fn events(&self) -> u32 {
        self.place.word32(EVENTS).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Counts one more, under the connection's lock.
    #[inline]
    pub(crate) fn count_event(&self) {
        if let Some(word) = self.place.word32(EVENTS) {
            word.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn set(&self, flag: u32) {
        if let Some(word) = self.place.word32(FLAGS) {
            word.fetch_or(flag, Ordering::AcqRel);
        }
    }

    /// Whether the rings may be another connection's.
    pub(crate) fn is_released(&self) -> bool {
        self.place.word32(FLAGS).is_some_and(|it| it.load(Ordering::Acquire) & RELEASED != 0)
    }

    /// Before the rings may be: a process that is killed after it leaves that to be known.
    pub(crate) fn set_released(&self) {
        if !self.is_lost() {
            self.set(RELEASED);
        }
    }

    /// Whether the state is not to be looked at.
    #[inline]
    pub(crate) fn is_given_up(&self) -> bool {
        is_given_up(&self.place)
    }

    /// From now on it is not.
    pub(crate) fn give_up(&self) {
        self.set(GIVEN_UP);
        self.count_event();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::{ALONE, take};
    use crate::family::{Family, ROOT};

    #[test]
    fn the_lowest_place_that_nobody_has_is_given_out() {
        let family = Family::new().unwrap();
        let mut seats: Vec<_> = (0..4).map(|_| take(&family).unwrap()).collect();
        assert_eq!(seats.iter().map(|seat| seat.slot).collect::<Vec<_>>(), [0, 1, 2, 3]);
        seats.swap_remove(1);
        seats.swap_remove(0);
        assert_eq!(take(&family).unwrap().slot, 0);
    }

    #[test]
    fn a_place_that_a_child_has_is_given_out_after_its_end() {
        let family = Family::new().unwrap();
        let seat = take(&family).unwrap();
        let child = family.expect_child().unwrap();
        seat.for_child(child.process()).unwrap();
        seat.leave(ROOT);
        drop(seat);
        let other = take(&family).unwrap();
        assert_eq!(other.slot, 1);
        family.forget(child.process());
        drop(take(&family).unwrap());
        assert_eq!(take(&family).unwrap().slot, 0);
    }

    #[test]
    fn more_connections_than_places_are_this_process_s_alone() {
        let family = Family::new().unwrap();
        let seats: Vec<_> = (0..8193).map(|_| take(&family).unwrap()).collect();
        let last = seats.last().unwrap();
        assert_eq!(last.slot, ALONE);
        assert!(last.is_alone());
        assert!(last.for_child(1).is_none());
        drop(seats);
        assert_eq!(take(&family).unwrap().slot, 0);
    }

    #[test]
    fn who_has_a_number_after_another_is_told_from_it() {
        let family = Family::new().unwrap();
        let first = family.expect_child().unwrap();
        assert!(!family.is_over(first.owner()), "it may yet be born");
        family.end(first.process());
        assert!(!family.counts(first) && !family.is_over(first.owner()), "it may live on");
        assert_ne!(family.expect_child().unwrap().process(), first.process());
        family.forget(first.process());
        let second = family.expect_child().unwrap();
        assert_eq!(second.process(), first.process());
        assert!(family.is_over(first.owner()));
        assert!(!family.is_over(second.owner()));
        assert!(!family.counts(first));
    }
}
