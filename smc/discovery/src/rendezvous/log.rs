// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the entries of one key say, read in their order.
//!
//! Invariant: a function of the entries alone, so that all who have read the same ones see the same.

use super::{Entry, Member, Side};

/// How it stands with one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody is on the other side.
    Alone,
    /// One end is on the other side, with this number.
    Facing(u64),
    /// Both have accepted: the other end is this member's.
    Met(Member),
    /// It has left.
    Left,
    /// The one that it faced has left.
    OtherLeft,
    /// It shared a side with another.
    Ambiguous,
}

#[derive(Debug)]
struct End {
    id: u64,
    member: Member,
    side: Side,
    fate: Fate,
}

impl End {
    /// Whether entries can still change its fate.
    fn is_open(&self) -> bool {
        matches!(self.fate, Fate::Alone | Fate::Facing(_))
    }
}

/// The entries of one key, as far as they are of consequence.
#[derive(Debug, Default)]
pub(super) struct Log {
    ends: Vec<End>,
}

impl Log {
    /// Reads the next entry. What `from` may not say, or says about nobody, changes nothing.
    pub(super) fn add(&mut self, from: Member, entry: Entry) {
        match entry {
            Entry::Announce { id, side } => self.announce(from, id, side),
            Entry::Accept { id, other } => {
                // Of the second it says nothing new.
                if self.was_first(id) && self.open(from, id).is_some() {
                    self.meet(id, other);
                }
            }
            Entry::Leave { id } => {
                if let Some(end) = self.open(from, id) {
                    let faced = std::mem::replace(&mut end.fate, Fate::Left);
                    if let Fate::Facing(other) = faced
                        && let Some(other) = self.ends.iter_mut().find(|end| end.id == other)
                    {
                        other.fate = Fate::OtherLeft;
                    }
                }
            }
        }
    }

    /// How it stands with the end `id`, if that was announced.
    pub(super) fn fate(&self, id: u64) -> Option<Fate> {
        self.ends.iter().find(|end| end.id == id).map(|end| end.fate)
    }

    fn announce(&mut self, member: Member, id: u64, side: Side) {
        if self.ends.iter().any(|end| end.id == id) {
            return; // numbers are random: this is no accident, and the first one has it
        }
        let open = self.ends.iter_mut().filter(|end| end.is_open());
        let (twins, mut others): (Vec<_>, Vec<_>) = open.partition(|end| end.side == side);
        let fate = match (&*twins, &mut *others) {
            ([], []) => Fate::Alone,
            ([], [other]) => {
                other.fate = Fate::Facing(id);
                Fate::Facing(other.id)
            }
            _ => {
                for end in twins.into_iter().chain(others) {
                    end.fate = Fate::Ambiguous;
                }
                Fate::Ambiguous
            }
        };
        self.ends.push(End { id, member, side, fate });
    }

    fn open(&mut self, member: Member, id: u64) -> Option<&mut End> {
        self.ends.iter_mut().find(|end| end.id == id && end.member == member && end.is_open())
    }

    /// Whether the end `id` was there before the one that it faces.
    pub(super) fn was_first(&self, id: u64) -> bool {
        let find = |id| self.ends.iter().position(|end| end.id == id);
        let at = find(id);
        let faced = at.and_then(|at| match self.ends.get(at)?.fate {
            Fate::Facing(other) => find(other),
            _ => None,
        });
        at < faced
    }

    /// Lets two ends meet if they face each other: the first has accepted, and the second came when that was there,
    /// and has not left since.
    fn meet(&mut self, one: u64, other: u64) {
        let find = |id| self.ends.iter().position(|end| end.id == id);
        let (Some(first), Some(second)) = (find(one), find(other)) else { return };
        let Ok([first, second]) = self.ends.get_disjoint_mut([first, second]) else { return };
        let face = first.fate == Fate::Facing(other) && second.fate == Fate::Facing(one);
        if face {
            first.fate = Fate::Met(second.member);
            second.fate = Fate::Met(first.member);
        }
    }
}
