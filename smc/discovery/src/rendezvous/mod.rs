// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the two ends of a TCP connection find each other by the fabric, where the TCP option cannot be used.
//!
//! Invariant: both ends come to the same answer, because both compute it from the same entries in the same order.
//!
//! The fabric keeps a *board*: for each [`Key`], which both ends compute from the connection's addresses, a list of
//! entries. It must
//!
//! 1. stamp each entry with the member that posted it, and number a key's entries from 0;
//! 2. give a member that announces itself under a key all entries from 0 on, and from then on each new one, in order;
//! 3. show nothing to members of other groups, and post [`Entry::Leave`] for each announcement of a member that dies;
//! 4. forget a key when all that were announced have left.
//!
//! [`Board`] does that for the members of one process. An end posts *announce* when TCP is connected. When then
//! exactly one other comes, it posts *accept*, and the two have met if nobody has left before: the second has shown by
//! coming that it is there. An end whose patience is over posts *leave*, and is bound to a meeting that comes before it. So no end
//! proposes, or waits for a proposal, alone. Two ends on one side are two connections that the key cannot tell apart:
//! all of them stay with TCP.
//!
//! [`Rendezvous`] is one end, without I/O: entries, times and the board's loss go in, wishes and an outcome come out.

mod board;
mod entry;
mod key;
mod log;

use std::time::{Duration, Instant};

pub use board::{Board, Delivery};
pub use entry::{Entry, UnknownEntry};
pub use key::{Key, Namespace, Scope, Side, ToItself};
use log::{Fate, Log};

/// A member of the fabric, by its GID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(pub u128);

/// What became of a rendezvous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other end is this member's, and knows it: the client proposes, the server waits for the proposal.
    Met(Member),
    /// TCP, because of this.
    Refused(Refusal),
}

/// Why a connection stays with TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No other end in time.
    #[error("no member of the fabric met this connection's other end in time")]
    Nobody,
    /// The other end was there and has left.
    #[error("the other end left the rendezvous")]
    Left,
    /// More than one end on one side.
    #[error("more than one connection has these addresses")]
    Ambiguous,
    /// The board is lost, or does not keep its order. The other end may believe to have met us: a server that gets a
    /// proposal nevertheless declines it.
    #[error("the fabric's board was lost")]
    Lost,
}

/// What an end wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Post this under the end's key.
    Post(Entry),
}

/// One end of one connection.
#[derive(Debug)]
pub struct Rendezvous {
    id: u64,
    side: Side,
    deadline: Option<Instant>,
    log: Log,
    /// The number of the entry that `log` needs next.
    next: u64,
    wishes: Wishes,
    accepted: bool,
    outcome: Option<Outcome>,
}

/// What is still to be posted; each at most once, and in this order.
#[derive(Debug, Default)]
struct Wishes {
    announce: bool,
    accept: Option<u64>,
    leave: bool,
}

impl Rendezvous {
    /// Begins when TCP is connected. `id` is a random number, by which the board's readers tell ends apart; `side`
    /// comes with the [`Key`]; `patience` is how long the connection may be held up.
    pub fn new(id: u64, side: Side, now: Instant, patience: Duration) -> Self {
        Self {
            id,
            side,
            deadline: Some(now + patience),
            log: Log::default(),
            next: 0,
            wishes: Wishes { announce: true, ..Wishes::default() },
            accepted: false,
            outcome: None,
        }
    }

    /// The entry with this number under the end's key, and who posted it. Entries that this end has seen, because
    /// another of this member's announced itself under the same key, change nothing.
    pub fn handle_entry(&mut self, number: u64, from: Member, entry: Entry) {
        if self.outcome.is_some() || self.wishes.announce {
            return;
        }
        let announced = self.log.fate(self.id).is_some();
        if number == 0 && !announced {
            // The beginning, which comes with our own announcement; what was read until now may be of entries that
            // the board has forgotten since.
            self.log = Log::default();
            self.next = 0;
        }
        if number != self.next {
            if announced && number > self.next {
                self.end(Outcome::Refused(Refusal::Lost));
            }
            return;
        }
        self.next += 1;
        self.log.add(from, entry);
        match self.log.fate(self.id) {
            None | Some(Fate::Alone) => {}
            Some(Fate::Facing(other)) => {
                if !self.accepted && self.log.was_first(self.id) {
                    self.accepted = true;
                    self.wishes.accept = Some(other);
                }
            }
            Some(Fate::Met(member)) => self.end(Outcome::Met(member)),
            Some(Fate::Left) => self.end(Outcome::Refused(Refusal::Nobody)),
            Some(Fate::OtherLeft) => self.end(Outcome::Refused(Refusal::Left)),
            Some(Fate::Ambiguous) => self.end(Outcome::Refused(Refusal::Ambiguous)),
        }
    }

    /// The connection to the fabric is gone: nothing will be read or posted any more.
    pub fn handle_lost(&mut self) {
        self.outcome.get_or_insert(Outcome::Refused(Refusal::Lost));
        self.wishes = Wishes::default();
        self.deadline = None;
    }

    /// Lets the end leave if its patience is over at `now`. The outcome comes with the board's next entries.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            if self.wishes.announce {
                // Nobody has heard of it, so nobody needs to be told.
                self.wishes = Wishes::default();
                self.outcome = Some(Outcome::Refused(Refusal::Nobody));
            } else {
                self.wishes = Wishes { leave: true, ..Wishes::default() };
            }
        }
    }

    /// Lets the end leave now, if it has not: nobody is expected any more.
    pub fn lose_patience(&mut self) {
        if let Some(deadline) = self.deadline {
            self.handle_timeout(deadline);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// What to do next; to be called until there is nothing, also when there is an outcome.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        let id = self.id;
        let entry = if std::mem::take(&mut self.wishes.announce) {
            Entry::Announce { id, side: self.side }
        } else if let Some(other) = self.wishes.accept.take() {
            Entry::Accept { id, other }
        } else if std::mem::take(&mut self.wishes.leave) {
            Entry::Leave { id }
        } else {
            return None;
        };
        Some(Wish::Post(entry))
    }

    /// What became of it, once that is certain.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Keeps the outcome, and leaves if that has not been done or decided.
    fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        let left = self.deadline.take().is_none();
        self.wishes = Wishes { leave: !left || self.wishes.leave, ..Wishes::default() };
    }
}
