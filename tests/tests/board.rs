// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fabric's board against the model that the rendezvous was made for, and between groups of a daemon.
//!
//! Invariant tested: each end is told what the model tells its member, from the first entry to its own leave.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};

use ism_abi::status;
use ism_client::board::{Key as Bytes, Note, Post};
use ism_client::conformance::wait_for;
use ism_client::loopback::Loopback;
use ism_client::{Device, Event, vhost};
use ism_frontend::Fabric;
use proptest::prelude::*;
use smc_discovery::rendezvous::{Board, Entry, Key, Member, Side};

const MEMBERS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Post {
        member: usize,
        id: u64,
        note: Note,
    },
    /// The member dies, and comes again.
    Die {
        member: usize,
    },
    /// The member looks at its events.
    Look {
        member: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let note = prop_oneof![
        4 => (0..2_u8).prop_map(|side| Note::Announce { side }),
        3 => (0..3_u64).prop_map(|other| Note::Accept { other }),
        3 => Just(Note::Leave),
    ];
    let post = (0..MEMBERS, 0..2_u8, 0..3_u64, note);
    let step = prop_oneof![
        20 => post.prop_map(|(member, key, id, note)| {
            // A member's numbers are each for one key.
            Step::Post { member, id: id + 10 * u64::from(key), note }
        }),
        1 => (0..MEMBERS).prop_map(|member| Step::Die { member }),
        3 => (0..MEMBERS).prop_map(|member| Step::Look { member }),
    ];
    prop::collection::vec(step, 0..80)
}

type List = Vec<(u64, Member, Entry)>;
/// Ends by member and number.
type Ends = BTreeMap<(usize, u64), List>;

struct Run {
    fabric: Loopback,
    devices: Vec<Option<Device>>,
    model: Board,
    expected: Ends,
    actual: Ends,
    accepted: HashSet<(usize, u64)>,
    /// Those that are there, by number.
    present: HashSet<(usize, u64)>,
}

fn gid(member: usize) -> [u8; 16] {
    [u8::try_from(member).unwrap() + 1; 16]
}

fn name(member: usize) -> Member {
    Member(u128::from_be_bytes(gid(member)))
}

fn entry(id: u64, note: Note) -> Entry {
    match note {
        Note::Announce { side: 0 } => Entry::Announce { id, side: Side::Low },
        Note::Announce { .. } => Entry::Announce { id, side: Side::High },
        Note::Accept { other } => Entry::Accept { id, other },
        Note::Leave | Note::Listen | Note::Call => Entry::Leave { id },
    }
}

fn key(id: u64) -> Bytes {
    [u8::from(id >= 10); 60]
}

impl Run {
    fn new() -> Self {
        let fabric = Loopback::new(0xff01).unwrap();
        let devices = (0..MEMBERS).map(|n| Some(fabric.join(gid(n)).unwrap())).collect();
        Self {
            fabric,
            devices,
            model: Board::default(),
            expected: Ends::new(),
            actual: Ends::new(),
            accepted: HashSet::new(),
            present: HashSet::new(),
        }
    }

    fn device(&self, member: usize) -> &Device {
        self.devices[member].as_ref().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Post { member, id, note } => self.post(member, id, note),
            Step::Die { member } => self.die(member),
            Step::Look { member } => self.look(member),
        }
    }

    fn post(&mut self, member: usize, id: u64, note: Note) {
        let end = (member, id);
        let is_here = self.present.contains(&end);
        if matches!(note, Note::Announce { .. }) && !is_here {
            // What it was told before it left is another story.
            self.look(member);
            self.actual.remove(&end);
            self.expected.remove(&end);
        }
        let posted = self.device(member).post(&Post { key: key(id), id, note });
        match note {
            Note::Announce { .. } if is_here => {
                assert_eq!(posted.unwrap_err().status(), Some(status::IN_USE));
                return;
            }
            // The model has no bound.
            Note::Announce { .. } if posted.is_err() => {
                assert_eq!(posted.unwrap_err().status(), Some(status::NO_SPACE));
                return;
            }
            Note::Accept { .. } if !is_here || !self.accepted.insert(end) => {
                assert_eq!(posted.unwrap_err().status(), Some(status::INVALID));
                return;
            }
            _ => assert_eq!(posted.unwrap(), 0),
        }
        if matches!(note, Note::Announce { .. }) {
            self.expected.insert(end, List::new());
            self.present.insert(end);
            self.accepted.remove(&end);
        }
        let deliveries = self.model.post(name(member), Key::from(key(id)), entry(id, note));
        self.deliver(deliveries);
        if note == Note::Leave {
            self.present.remove(&end);
        }
    }

    fn deliver(&mut self, deliveries: Vec<smc_discovery::rendezvous::Delivery>) {
        for it in deliveries {
            for (end @ (member, id), list) in &mut self.expected {
                let reads = self.present.contains(end)
                    && name(*member) == it.to
                    && Key::from(key(*id)) == it.key;
                if reads && it.number >= list.len() as u64 {
                    assert_eq!(it.number, list.len() as u64, "a gap in the model");
                    list.push((it.number, it.from, it.entry));
                }
            }
        }
    }

    fn die(&mut self, member: usize) {
        self.devices[member] = None;
        for ends in [&mut self.expected, &mut self.actual] {
            ends.retain(|(of, _), _| *of != member);
        }
        // The model has an order of its own for the leaves of one that dies; the fabric's is that of the numbers.
        let mut left: Vec<_> = self.present.extract_if(|(of, _)| *of == member).collect();
        left.sort_unstable();
        for (_, id) in left {
            let key = Key::from(key(id));
            let deliveries = self.model.post(name(member), key, Entry::Leave { id });
            self.deliver(deliveries);
        }
        self.devices[member] = Some(self.fabric.join(gid(member)).unwrap());
    }

    fn look(&mut self, member: usize) {
        let mut events = Vec::new();
        self.device(member).poll(&mut events).unwrap();
        for event in events {
            let Event::Board(told) = event else { panic!("{event:?}") };
            let from = Member(u128::from_be_bytes(told.from));
            let list = self.actual.entry((member, told.reader)).or_default();
            list.push((told.number, from, entry(told.id, told.note)));
        }
    }

    fn compare(&mut self) {
        (0..MEMBERS).for_each(|member| self.look(member));
        self.expected.retain(|_, list| !list.is_empty());
        assert_eq!(self.actual, self.expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn each_end_is_told_what_the_model_says(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        run.compare();
    }
}

/// Two doors, each to a group of its own: the listener there is nobody's here.
#[test]
fn processes_of_other_groups_do_not_see_one_another() {
    let fabric =
        Fabric::new().processes("one", "groups = [\"one\"]").processes("two", "groups = [\"two\"]");
    let daemon = fabric.start().unwrap();
    let join = |door| vhost::join(&daemon.socket(door)).unwrap();
    let (listener, friend, stranger) = (join("one"), join("one"), join("two"));
    let post = |device: &Device, id, note| device.post(&Post { key: [1; 60], id, note }).unwrap();
    post(&listener, 1, Note::Listen);
    assert_eq!(post(&stranger, 2, Note::Call), 0);
    assert_eq!(post(&friend, 3, Note::Call), 1);
    let told = |event: &Event| match event {
        Event::Board(told) => Some((told.from, told.id, told.note)),
        _ => None,
    };
    assert_eq!(wait_for(&listener, told), (friend.gid(), 3, Note::Call));
    drop(friend);
    let (_, id, note) = wait_for(&listener, told);
    assert_eq!((id, note), (3, Note::Leave));
}
