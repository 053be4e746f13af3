// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ends of connections and a board, with every order of events.
//!
//! Invariant: no clock and no thread: the test chooses what happens next.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use smc_discovery::rendezvous::{
    Board, Delivery, Entry, Key, Member, Namespace, Outcome, Refusal, Rendezvous, Scope, Side,
    ToItself, Wish,
};

const PATIENCE: Duration = Duration::from_millis(50);
const HERE: Scope = Scope::Namespace(Namespace { kernel: 1, cookie: 1 });

struct End {
    member: Member,
    key: Key,
    rendezvous: Rendezvous,
    /// What it wished, on its way to the board.
    posts: VecDeque<Entry>,
}

/// Members, each with a channel to and from the board, in which nothing is lost or reordered.
struct World {
    board: Board,
    now: Instant,
    ends: Vec<End>,
    deliveries: Vec<(Member, VecDeque<Delivery>)>,
}

impl World {
    fn new() -> Self {
        Self {
            board: Board::default(),
            now: Instant::now(),
            ends: Vec::new(),
            deliveries: Vec::new(),
        }
    }

    fn add(&mut self, member: u128, key: Key, side: Side) -> usize {
        let member = Member(member);
        let id = 1000 + self.ends.len() as u64;
        let rendezvous = Rendezvous::new(id, side, self.now, PATIENCE);
        if !self.deliveries.iter().any(|(of, _)| *of == member) {
            self.deliveries.push((member, VecDeque::new()));
        }
        self.ends.push(End { member, key, rendezvous, posts: VecDeque::new() });
        self.ends.len() - 1
    }

    fn wish(&mut self) {
        for end in &mut self.ends {
            while let Some(Wish::Post(entry)) = end.rendezvous.poll_wish() {
                end.posts.push_back(entry);
            }
        }
    }

    fn send(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            if let Some((_, queue)) = self.deliveries.iter_mut().find(|(to, _)| *to == delivery.to)
            {
                queue.push_back(delivery);
            }
        }
    }

    /// Lets the board take the end's next entry.
    fn post(&mut self, end: usize) -> bool {
        let Some(entry) = self.ends[end].posts.pop_front() else { return false };
        let (member, key) = (self.ends[end].member, self.ends[end].key);
        let deliveries = self.board.post(member, key, entry);
        self.send(deliveries);
        true
    }

    /// Lets a member read the next entry that the board sent it.
    fn read(&mut self, member: Member) -> bool {
        let queue = self.deliveries.iter_mut().find(|(of, _)| *of == member);
        let Some(delivery) = queue.and_then(|(_, queue)| queue.pop_front()) else { return false };
        for end in
            self.ends.iter_mut().filter(|end| end.member == member && end.key == delivery.key)
        {
            end.rendezvous.handle_entry(delivery.number, delivery.from, delivery.entry);
        }
        self.wish();
        true
    }

    /// Until nothing is on its way.
    fn settle(&mut self) {
        self.wish();
        let members: Vec<_> = self.deliveries.iter().map(|(member, _)| *member).collect();
        loop {
            let posted = (0..self.ends.len()).filter(|end| self.post(*end)).count();
            let read = members.iter().filter(|member| self.read(**member)).count();
            if posted + read == 0 {
                return;
            }
        }
    }

    fn lose_patience(&mut self) {
        self.now += PATIENCE;
        for end in &mut self.ends {
            end.rendezvous.handle_timeout(self.now);
        }
        self.settle();
    }

    fn kill(&mut self, member: Member) {
        let deliveries = self.board.remove(member);
        self.ends.retain(|end| end.member != member);
        self.deliveries.retain(|(of, _)| *of != member);
        self.send(deliveries);
    }

    fn outcomes(&self) -> Vec<Option<Outcome>> {
        self.ends.iter().map(|end| end.rendezvous.outcome()).collect()
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A connection's key, and its sides.
fn connection() -> (Key, Side, Side) {
    let (client, server) = (at("192.0.2.1:40000"), at("192.0.2.2:80"));
    let (key, side) = Key::new(client, server, HERE).expect("two ends");
    let (same, other) = Key::new(server, client, HERE).expect("two ends");
    assert_eq!(key, same);
    assert_ne!(side, other);
    (key, side, other)
}

fn refused(refusal: Refusal) -> Option<Outcome> {
    Some(Outcome::Refused(refusal))
}

#[test]
fn two_ends_meet_and_leave_nothing_on_the_board() {
    let (key, client, server) = connection();
    for members in [[1, 2], [1, 1]] {
        let mut world = World::new();
        world.add(members[0], key, client);
        world.settle();
        assert_eq!(world.outcomes(), [None]);
        world.add(members[1], key, server);
        world.settle();
        let met = |member| Some(Outcome::Met(Member(member)));
        assert_eq!(world.outcomes(), [met(members[1]), met(members[0])]);
        assert!(world.board.is_empty());
        world.lose_patience();
        assert!(world.ends.iter().all(|end| end.rendezvous.poll_timeout().is_none()));
    }
}

#[test]
fn an_end_whose_peer_is_plain_goes_on_with_tcp() {
    let (key, client, _) = connection();
    let mut world = World::new();
    let end = world.add(1, key, client);
    world.settle();
    assert_eq!(world.ends[end].rendezvous.poll_timeout(), Some(world.now + PATIENCE));
    world.lose_patience();
    assert_eq!(world.outcomes(), [refused(Refusal::Nobody)]);
    assert!(world.board.is_empty());
}

#[test]
fn an_end_that_has_not_been_heard_of_needs_no_board_to_give_up() {
    let (_, client, _) = connection();
    let now = Instant::now();
    let mut end = Rendezvous::new(1, client, now, PATIENCE);
    end.handle_timeout(now + PATIENCE);
    assert_eq!(end.poll_wish(), None);
    assert_eq!(end.outcome(), refused(Refusal::Nobody));
}

/// Between its leave and the board's answer an end is bound: the other may have accepted before.
#[test]
fn a_leave_that_comes_too_late_does_not_undo_the_meeting() {
    let (key, client, server) = connection();
    let mut world = World::new();
    let (one, two) = (world.add(1, key, client), world.add(2, key, server));
    world.wish();
    assert!(world.post(one) && world.post(two));
    while world.read(Member(1)) {}
    while world.read(Member(2)) {}
    // The first accepts, and its patience ends before it reads that; the second has nothing to say.
    assert!(world.post(one) && !world.post(two));
    world.now += PATIENCE;
    world.ends[one].rendezvous.handle_timeout(world.now);
    assert_eq!(world.ends[one].rendezvous.outcome(), None, "it cannot know yet");
    world.settle();
    assert_eq!(world.outcomes(), [Some(Outcome::Met(Member(2))), Some(Outcome::Met(Member(1)))]);
    assert!(world.board.is_empty());
}

#[test]
fn a_leave_that_comes_before_the_accept_ends_it_for_both() {
    let (key, client, server) = connection();
    let mut world = World::new();
    let (one, two) = (world.add(1, key, client), world.add(2, key, server));
    world.wish();
    assert!(world.post(one) && world.post(two));
    world.now += PATIENCE;
    world.ends[one].rendezvous.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.outcomes(), [refused(Refusal::Nobody), refused(Refusal::Left)]);
    assert!(world.board.is_empty());
}

/// One who is stuck, or whose connection is over, is not met by who comes then: it does not accept.
#[test]
fn who_was_there_and_says_nothing_is_not_met() {
    let (key, client, server) = connection();
    for (stuck, comes) in [(server, client), (client, server)] {
        let mut world = World::new();
        let one = world.add(1, key, stuck);
        world.wish();
        assert!(world.post(one));
        let two = world.add(2, key, comes);
        world.wish();
        assert!(world.post(two));
        while world.read(Member(2)) {}
        world.now += PATIENCE;
        world.ends[two].rendezvous.handle_timeout(world.now);
        world.wish();
        assert!(world.post(two));
        while world.read(Member(2)) {}
        assert_eq!(world.outcomes(), [None, refused(Refusal::Nobody)]);
    }
}

#[test]
fn two_connections_with_the_same_addresses_stay_with_tcp() {
    let (key, client, server) = connection();
    let mut world = World::new();
    for (member, side) in [(1, client), (2, client), (3, server)] {
        world.add(member, key, side);
        world.wish();
        world.post(world.ends.len() - 1);
    }
    world.settle();
    // The server came after the twins were refused, and has nobody left to meet.
    assert_eq!(world.outcomes(), [refused(Refusal::Ambiguous), refused(Refusal::Ambiguous), None]);
    world.lose_patience();
    assert_eq!(world.outcomes()[2], refused(Refusal::Nobody));

    let mut world = World::new();
    for (member, side) in [(1, client), (3, server), (2, client)] {
        world.add(member, key, side);
        world.wish();
        world.post(world.ends.len() - 1);
    }
    world.settle();
    assert_eq!(world.outcomes(), [refused(Refusal::Ambiguous); 3]);
    assert!(world.board.is_empty());
}

#[test]
fn a_member_that_dies_has_left() {
    let (key, client, server) = connection();
    let mut world = World::new();
    let (one, two) = (world.add(1, key, client), world.add(2, key, server));
    world.wish();
    assert!(world.post(one) && world.post(two));
    world.kill(Member(2));
    world.settle();
    assert_eq!(world.outcomes(), [refused(Refusal::Left)]);
    assert!(world.board.is_empty());
}

#[test]
fn without_the_fabric_all_is_tcp() {
    let (key, client, _) = connection();
    let mut world = World::new();
    let end = world.add(1, key, client);
    world.settle();
    world.ends[end].rendezvous.handle_lost();
    assert_eq!(world.outcomes(), [refused(Refusal::Lost)]);
    assert_eq!(world.ends[end].rendezvous.poll_wish(), None);
}

#[test]
fn an_entry_that_is_missing_is_noticed() {
    let (_, client, server) = connection();
    let mut end = Rendezvous::new(1, client, Instant::now(), PATIENCE);
    assert_eq!(end.poll_wish(), Some(Wish::Post(Entry::Announce { id: 1, side: client })));
    end.handle_entry(0, Member(1), Entry::Announce { id: 1, side: client });
    end.handle_entry(2, Member(2), Entry::Announce { id: 2, side: server });
    assert_eq!(end.outcome(), refused(Refusal::Lost));
    assert_eq!(end.poll_wish(), Some(Wish::Post(Entry::Leave { id: 1 })));
}

#[test]
fn nobody_speaks_for_another() {
    let (key, client, server) = connection();
    let mut world = World::new();
    let (one, two) = (world.add(1, key, client), world.add(2, key, server));
    world.wish();
    assert!(world.post(one) && world.post(two));
    let ids = [one, two].map(|end| 1000 + end as u64);
    for forged in [
        Entry::Accept { id: ids[0], other: ids[1] },
        Entry::Leave { id: ids[0] },
        Entry::Announce { id: ids[0], side: server },
    ] {
        // A board that stamps but does not check: the ends do.
        let mut end = Rendezvous::new(ids[0], client, world.now, PATIENCE);
        assert!(end.poll_wish().is_some());
        end.handle_entry(0, Member(1), Entry::Announce { id: ids[0], side: client });
        end.handle_entry(1, Member(2), Entry::Announce { id: ids[1], side: server });
        end.handle_entry(2, Member(3), forged);
        assert_eq!(end.outcome(), None, "{forged:?}");
        // The second has nothing to accept.
        end.handle_entry(3, Member(2), Entry::Accept { id: ids[1], other: ids[0] });
        assert_eq!(end.outcome(), None, "{forged:?}");
        end.handle_entry(4, Member(1), Entry::Accept { id: ids[0], other: ids[1] });
        assert_eq!(end.outcome(), Some(Outcome::Met(Member(2))), "{forged:?}");
    }
}

#[test]
fn keys_differ_by_address_port_and_scope() {
    let (one, two) = (at("127.0.0.1:40000"), at("127.0.0.1:80"));
    let key = |local, peer, scope| Key::new(local, peer, scope).expect("two ends").0;
    let here = key(one, two, HERE);
    let there = |kernel, cookie| Scope::Namespace(Namespace { kernel, cookie });
    assert_ne!(here, key(one, two, there(1, 2)), "another network namespace");
    assert_ne!(here, key(one, two, there(2, 1)), "another kernel");
    assert_ne!(here, key(one, two, Scope::Fabric));
    assert_ne!(here, key(one, at("127.0.0.1:81"), HERE));
    assert_ne!(here, key(one, at("127.0.0.2:80"), HERE));
    assert_eq!(here, key(at("[::ffff:127.0.0.1]:40000"), two, HERE), "a dual-stack socket's end");
    assert_eq!(Key::new(one, one, HERE), Err(ToItself));
    assert_eq!(Key::from(*here.as_bytes()), here);
}

#[test]
fn entries_have_one_form_in_bytes() {
    for entry in [
        Entry::Announce { id: 7, side: Side::Low },
        Entry::Announce { id: u64::MAX, side: Side::High },
        Entry::Accept { id: 1, other: 2 },
        Entry::Leave { id: 3 },
    ] {
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), Ok(entry));
    }
    let mut bytes = Entry::Leave { id: 3 }.to_bytes();
    for kind in [0, 4, 255] {
        bytes[0] = kind;
        let error = Entry::from_bytes(&bytes).expect_err("no such kind");
        assert!(error.to_string().contains(&format!("kind {kind}")), "{error}");
    }
}

/// What happens next: an end posts, a member reads, an end loses patience, a member dies.
#[derive(Clone, Copy, Debug)]
enum Event {
    Post(usize),
    Read(usize),
    Impatience(usize),
    Death(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0_usize..4).prop_map(Event::Post),
        8 => (0_usize..3).prop_map(Event::Read),
        1 => (0_usize..4).prop_map(Event::Impatience),
        1 => (0_usize..3).prop_map(Event::Death),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_both_ends_agree(
        // Up to four ends of three members under one key.
        ends in prop::collection::vec((0_u128..3, any::<bool>()), 1..5),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let (key, client, server) = connection();
        let mut world = World::new();
        let mut dead = Vec::new();
        for (member, is_client) in &ends {
            world.add(*member, key, if *is_client { client } else { server });
        }
        world.wish();
        for event in events {
            match event {
                Event::Post(end) if end < world.ends.len() => { world.post(end); }
                Event::Read(member) => { world.read(Member(member as u128)); }
                Event::Impatience(end) if end < world.ends.len() => {
                    let later = world.now + PATIENCE;
                    world.ends[end].rendezvous.handle_timeout(later);
                    world.wish();
                }
                Event::Death(member) if dead.is_empty() => {
                    dead.push(Member(member as u128));
                    world.kill(Member(member as u128));
                }
                _ => {}
            }
        }
        world.settle();
        world.lose_patience();
        let mut met = Vec::new();
        for end in &world.ends {
            match end.rendezvous.outcome() {
                None => prop_assert!(false, "an end without an outcome"),
                Some(Outcome::Met(member)) => met.push((end.member, member)),
                Some(Outcome::Refused(refusal)) => prop_assert_ne!(refusal, Refusal::Lost),
            }
        }
        // Whoever has met somebody has been met by it, but for those that died since.
        met.retain(|(_, with)| !dead.contains(with));
        for (one, other) in &met {
            let there = met.iter().filter(|pair| **pair == (*one, *other)).count();
            let back = met.iter().filter(|pair| **pair == (*other, *one)).count();
            prop_assert_eq!(there, back);
        }
        prop_assert!(world.board.is_empty(), "{} keys are left", world.board.len());
    }
}
