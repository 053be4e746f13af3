// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A member's events but for signals: in order, each once.
//!
//! Invariant: the queue's length is bounded by quotas, not by what peers do while the member
//! sleeps: a grant that was not taken yet is withdrawn, not followed by its end; software events
//! are counted per sender; one PEER_GONE per pair, which the peer quota bounds.

use std::collections::BTreeMap;

use ism_abi::{EVENT_SIZE, EventHeader};

use crate::wish::MemberId;

/// Software events of one sender that may wait.
const SOFTWARE_EVENTS: u32 = 16;

/// An event's bytes: header, body, zeros.
pub(crate) fn bytes(event: u16, body: &[u8]) -> [u8; EVENT_SIZE] {
    let mut bytes = [0; EVENT_SIZE];
    let header = EventHeader { event, reserved: [0; 6] }.to_bytes();
    for (to, from) in bytes.iter_mut().zip(header.iter().chain(body)) {
        *to = *from;
    }
    bytes
}

/// What the fabric has to know about an event on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The grant of the owner's DMB of this index and token, whose REGISTER waits for delivery.
    Grant { owner: MemberId, index: u32, token: u64 },
    /// A software event, counted for its sender.
    Software { sender: MemberId },
    /// Nothing.
    Plain,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) bytes: [u8; EVENT_SIZE],
}

/// Events in order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    queue: BTreeMap<u64, Event>,
    next: u64,
    /// Taken, not yet known to be in the ring.
    in_flight: Vec<(u64, Event)>,
    /// Software events in the queue, by sender.
    software: BTreeMap<MemberId, u32>,
    /// An `EventsReady` is out, and the queue was not seen empty since.
    announced: bool,
}

impl EventQueue {
    /// Appends; returns the event's number and whether the member must be told.
    pub(crate) fn push(&mut self, event: Event) -> (u64, bool) {
        let number = self.next;
        self.next += 1;
        self.queue.insert(number, event);
        (number, !std::mem::replace(&mut self.announced, true))
    }

    /// How many the member has not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// Whether the sender may push one more software event; if so it is counted.
    pub(crate) fn admit(&mut self, sender: MemberId) -> bool {
        let waiting = self.software.entry(sender).or_default();
        let room = *waiting < SOFTWARE_EVENTS;
        *waiting += u32::from(room);
        room
    }

    /// Takes the next event.
    pub(crate) fn poll(&mut self) -> Option<[u8; EVENT_SIZE]> {
        let Some((number, event)) = self.queue.pop_first() else {
            self.announced = false;
            return None;
        };
        self.in_flight.push((number, event));
        Some(event.bytes)
    }

    /// The events taken so far are in the ring.
    pub(crate) fn delivered(&mut self) -> Vec<Event> {
        let events: Vec<Event> = self.in_flight.drain(..).map(|(_, event)| event).collect();
        for event in &events {
            if let Kind::Software { sender } = event.kind {
                self.uncount(sender);
            }
        }
        events
    }

    /// The events taken so far are not in the ring: back with them.
    pub(crate) fn undo(&mut self) {
        self.queue.extend(self.in_flight.drain(..));
    }

    /// Removes an event. False: it has been taken.
    pub(crate) fn withdraw(&mut self, number: u64) -> bool {
        self.queue.remove(&number).is_some()
    }

    fn uncount(&mut self, sender: MemberId) {
        if let Some(waiting) = self.software.get_mut(&sender) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.software.remove(&sender);
            }
        }
    }
}
