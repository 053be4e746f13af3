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
    accepted: Option<u64>,
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
                if let Some(end) = self.open(from, id) {
                    end.accepted = Some(other);
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
        self.ends.push(End { id, member, side, accepted: None, fate });
    }

    fn open(&mut self, member: Member, id: u64) -> Option<&mut End> {
        self.ends.iter_mut().find(|end| end.id == id && end.member == member && end.is_open())
    }

    /// Lets two ends meet if each faces and has accepted the other.
    fn meet(&mut self, one: u64, other: u64) {
        let find = |id| self.ends.iter().position(|end| end.id == id);
        let (Some(one), Some(other)) = (find(one), find(other)) else { return };
        let Ok([one, other]) = self.ends.get_disjoint_mut([one, other]) else { return };
        let agree = |end: &End, with: &End| {
            end.fate == Fate::Facing(with.id) && end.accepted == Some(with.id)
        };
        if agree(one, other) && agree(other, one) {
            one.fate = Fate::Met(other.member);
            other.fate = Fate::Met(one.member);
        }
    }
}
