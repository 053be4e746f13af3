// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The board: what members say about connections that are not known to be theirs yet.
//!
//! Invariant: a place exists exactly as long as somebody is there, its list has at most three entries for each of
//! [`ENDS`], and every presence is counted for its member; so the board is bounded by its members' quotas.
//!
//! Why there is one, and what drivers do with it: spec/decisions/0009-board.md.

use std::collections::{BTreeMap, HashMap};

use ism_abi::{BoardEntry, BoardPostRequest, Gid, board};

use crate::refusal::Refusal;
use crate::wish::MemberId;

/// Announcements that a key may have until it is forgotten: two ends meet, and some may get into their way.
const ENDS: usize = 8;

/// Listeners, and callers, of a member under one key: each listener is told of each caller.
const EACH: usize = 64;

/// Members whose entries one another sees: those with the same groups.
pub(crate) type Circle = usize;
type Key = [u8; 60];

/// What a post has brought.
#[derive(Debug, Default)]
pub(crate) struct Posted {
    /// Listeners that a caller has.
    pub(crate) listeners: u32,
    /// What is to be told, in order.
    pub(crate) told: Vec<(MemberId, BoardEntry)>,
    /// Events, by who reads them, that tell of a caller that leaves.
    pub(crate) withdrawn: Vec<(Presence, u64)>,
}

/// Who posts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poster {
    pub(crate) member: MemberId,
    pub(crate) gid: Gid,
    pub(crate) circle: Circle,
    /// Presences that it may have.
    pub(crate) quota: u32,
}

/// One that is there: whose, and its number.
pub(crate) type Presence = (MemberId, u64);

#[derive(Debug)]
struct End {
    of: Presence,
    accepted: bool,
}

#[derive(Debug)]
struct Caller {
    of: Presence,
    gid: Gid,
    /// The events that tell of it, by who reads them.
    events: Vec<(Presence, u64)>,
}

/// What stands under a key.
#[derive(Debug, Default)]
struct Place {
    /// About ends, as they came; `reader` and `number` are each reader's.
    entries: Vec<BoardEntry>,
    announced: usize,
    ends: Vec<End>,
    listeners: Vec<Presence>,
    callers: Vec<Caller>,
}

/// All that stands on it.
#[derive(Debug, Default)]
pub(crate) struct Board {
    places: HashMap<(Circle, Key), Place>,
    /// Where each member is, by number.
    present: BTreeMap<MemberId, BTreeMap<u64, Key>>,
}

impl Board {
    /// Posts an entry.
    pub(crate) fn post(
        &mut self,
        poster: &Poster,
        request: &BoardPostRequest,
    ) -> Result<Posted, Refusal> {
        check(request)?;
        let here = self.present.get(&poster.member);
        let at = here.and_then(|here| here.get(&request.id)).copied();
        match request.kind {
            board::LEAVE if at == Some(request.key) => Ok(self.leave(poster, request)),
            board::LEAVE => Ok(Posted::default()),
            board::ACCEPT => self.accept(poster, request),
            _ if at.is_some() => Err(Refusal::InUse),
            _ if here.is_some_and(|here| here.len() >= poster.quota as usize)
                || poster.quota == 0 =>
            {
                Err(Refusal::NoSpace)
            }
            _ => self.enter(poster, request),
        }
    }

    /// All that a member has posted, to be taken back one by one when it is gone.
    pub(crate) fn of(&self, member: MemberId) -> Vec<BoardPostRequest> {
        let all = self.present.get(&member).into_iter().flatten();
        all.map(|(&id, &key)| leave(key, id)).collect()
    }

    /// The event of this number tells `reader` of a caller.
    pub(crate) fn keep_event(
        &mut self,
        (circle, key): (Circle, Key),
        caller: Presence,
        reader: Presence,
        event: u64,
    ) {
        let place = self.places.get_mut(&(circle, key));
        let caller = place.and_then(|it| it.callers.iter_mut().find(|it| it.of == caller));
        if let Some(caller) = caller {
            caller.events.push((reader, event));
        }
    }

    fn enter(&mut self, poster: &Poster, request: &BoardPostRequest) -> Result<Posted, Refusal> {
        let (at, id) = ((poster.circle, request.key), (poster.member, request.id));
        let place = self.places.entry(at).or_default();
        // Who is refused is there already, so the place stays.
        place.has_room_for(poster.member, request.kind)?;
        let mut posted = Posted::default();
        let entry = entry(poster, request);
        match request.kind {
            board::ANNOUNCE => {
                place.announced += 1;
                place.ends.push(End { of: id, accepted: false });
                // From the beginning to the one that comes; to this one alone.
                posted.told.extend(place.list(0, |end| end.of == id));
                posted.told.extend(place.add(entry));
            }
            board::LISTEN => {
                place.listeners.push(id);
                let reader = |caller: &Caller| BoardEntry {
                    reader: request.id,
                    number: 0,
                    gid: caller.gid,
                    id: caller.of.1,
                    other: 0,
                    kind: board::CALL,
                    side: 0,
                    reserved: [0; 6],
                };
                posted.told.extend(place.callers.iter().map(|it| (poster.member, reader(it))));
            }
            _ if place.listeners.is_empty() => {
                if place.is_empty() {
                    self.places.remove(&at);
                }
                return Ok(posted);
            }
            _ => {
                posted.listeners = u32::try_from(place.listeners.len()).unwrap_or(u32::MAX);
                posted.told.extend(place.to_listeners(entry));
                place.callers.push(Caller { of: id, gid: poster.gid, events: Vec::new() });
            }
        }
        self.present.entry(poster.member).or_default().insert(request.id, request.key);
        Ok(posted)
    }

    fn accept(&mut self, poster: &Poster, request: &BoardPostRequest) -> Result<Posted, Refusal> {
        let place = self.places.get_mut(&(poster.circle, request.key)).ok_or(Refusal::Invalid)?;
        let of = (poster.member, request.id);
        let end = place.ends.iter_mut().find(|end| end.of == of && !end.accepted);
        end.ok_or(Refusal::Invalid)?.accepted = true;
        Ok(Posted { told: place.add(entry(poster, request)), ..Posted::default() })
    }

    fn leave(&mut self, poster: &Poster, request: &BoardPostRequest) -> Posted {
        let (at, id) = ((poster.circle, request.key), (poster.member, request.id));
        let mut posted = Posted::default();
        if let Some(here) = self.present.get_mut(&poster.member) {
            here.remove(&request.id);
            if here.is_empty() {
                self.present.remove(&poster.member);
            }
        }
        let Some(place) = self.places.get_mut(&at) else { return posted };
        if place.ends.iter().any(|end| end.of == id) {
            posted.told = place.add(entry(poster, request));
            place.ends.retain(|end| end.of != id);
            if place.ends.is_empty() {
                place.entries.clear();
                place.announced = 0;
            }
        } else if let Some(n) = place.callers.iter().position(|caller| caller.of == id) {
            posted.told = place.to_listeners(entry(poster, request));
            posted.withdrawn = place.callers.swap_remove(n).events;
        } else {
            place.listeners.retain(|listener| *listener != id);
            // Its member's events may be numbered anew.
            for caller in &mut place.callers {
                caller.events.retain(|(reader, _)| *reader != id);
            }
        }
        if place.is_empty() {
            self.places.remove(&at);
        }
        posted
    }
}

impl Place {
    fn has_room_for(&self, member: MemberId, kind: u8) -> Result<(), Refusal> {
        let its = |of: &Presence| of.0 == member;
        let is_full = match kind {
            board::ANNOUNCE => self.announced == ENDS,
            board::LISTEN => self.listeners.iter().filter(|of| its(of)).count() == EACH,
            _ => self.callers.iter().filter(|caller| its(&caller.of)).count() == EACH,
        };
        if is_full { Err(Refusal::NoSpace) } else { Ok(()) }
    }

    /// Nobody is there for whom it has to be kept: a caller without a listener is nobody's.
    fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.listeners.is_empty() && self.callers.is_empty()
    }

    /// Adds an entry about an end, and says it to all of them.
    fn add(&mut self, entry: BoardEntry) -> Vec<(MemberId, BoardEntry)> {
        let number = self.entries.len();
        self.entries.push(entry);
        self.list(number, |_| true).collect()
    }

    /// The entries from a number on, for the ends that are meant.
    fn list(
        &self,
        from: usize,
        is_meant: impl Fn(&End) -> bool,
    ) -> impl Iterator<Item = (MemberId, BoardEntry)> {
        let ends = self.ends.iter().filter(move |end| is_meant(end));
        let numbered = move || (0..).zip(&self.entries).skip(from);
        ends.flat_map(move |end| {
            let (member, reader) = end.of;
            numbered().map(move |(number, entry)| (member, BoardEntry { reader, number, ..*entry }))
        })
    }

    fn to_listeners(&self, entry: BoardEntry) -> Vec<(MemberId, BoardEntry)> {
        let to = |&(member, reader): &Presence| (member, BoardEntry { reader, ..entry });
        self.listeners.iter().map(to).collect()
    }
}

fn check(request: &BoardPostRequest) -> Result<(), Refusal> {
    let sided = request.kind == board::ANNOUNCE;
    let known = (board::ANNOUNCE..=board::CALL).contains(&request.kind);
    let side = request.side <= u8::from(sided);
    let other = request.other == 0 || request.kind == board::ACCEPT;
    let fine = known && side && other && request.reserved == [0; 2];
    if fine { Ok(()) } else { Err(Refusal::Invalid) }
}

fn entry(poster: &Poster, request: &BoardPostRequest) -> BoardEntry {
    BoardEntry {
        reader: 0,
        number: 0,
        gid: poster.gid,
        id: request.id,
        other: request.other,
        kind: request.kind,
        side: request.side,
        reserved: [0; 6],
    }
}

fn leave(key: Key, id: u64) -> BoardPostRequest {
    BoardPostRequest { key, kind: board::LEAVE, side: 0, reserved: [0; 2], id, other: 0 }
}
