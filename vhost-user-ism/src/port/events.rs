// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Delivery of events and signals into a VM's event queue, by whichever thread causes them.
//!
//! Invariant: an event or signal leaves the fabric only when a buffer holds it; without a buffer
//! it waits there, and the driver's next buffer (a kick on the event queue) fetches it. Between
//! two looks the signal set is armed, so a later signal brings a thread here.
//!
//! The thread may be another VM's: it looks at [`TURN`] buffers at most, however fast the driver
//! adds more, and leaves the rest to the VM's own worker.

use std::sync::atomic::Ordering;

use ism_abi::layout::{EVENT_SIZE, QUEUE_EVENT};
use virtio_queue::{Queue, QueueOwnedT, QueueT};

use super::Port;
use super::queues::{Chain, Popped, give_back, is_available};
use crate::hub::{Hub, Todo};
use crate::memory::GuestMemory;

/// Buffers looked at in one go.
const TURN: usize = 256;

impl Port {
    /// Fills the event queue with what waits: signals, and with `events` (or if some were left
    /// over) the fabric's events too.
    pub fn deliver(&self, hub: &Hub, events: bool) -> Todo {
        let mut todo = Todo::default();
        if events {
            self.events_waiting.store(true, Ordering::Release);
        }
        let Some(link) = self.link() else { return todo };
        let (Some(vring), Some(memory)) = (link.vring(QUEUE_EVENT), link.memory()) else {
            return todo;
        };
        let filled = vring.with_queue(|queue| {
            let todo = &mut todo;
            let mut filler = Filler { port: self, hub, memory: &memory, todo, used: 0, left: TURN };
            filler.fill(queue);
            let call = filler.used > 0 && queue.needs_notification(&*memory).unwrap_or(true);
            (call, filler.left == 0)
        });
        if let Some((call, more)) = filled {
            if call {
                vring.call();
            }
            if more {
                vring.wake_worker();
            }
        }
        todo
    }
}

/// Whether more can be done.
#[derive(PartialEq, Eq)]
enum Step {
    Filled,
    NothingToSay,
    NoBuffer,
}

struct Filler<'a> {
    port: &'a Port,
    hub: &'a Hub,
    memory: &'a GuestMemory,
    todo: &'a mut Todo,
    used: u32,
    /// Buffers that may still be looked at.
    left: usize,
}

impl Filler<'_> {
    fn fill(&mut self, queue: &mut Queue) {
        let mut chain = Chain::default();
        while self.left > 0 {
            match self.fill_one(queue, &mut chain) {
                Step::Filled => {}
                Step::NoBuffer => return,
                // Armed with nothing pending: the next signal's sender comes here.
                Step::NothingToSay if self.port.signals.arm() => return,
                Step::NothingToSay => {}
            }
        }
    }

    fn fill_one(&mut self, queue: &mut Queue, chain: &mut Chain) -> Step {
        if !self.port.events_waiting.load(Ordering::Acquire) && self.port.signals.is_empty() {
            return Step::NothingToSay;
        }
        if !self.next_buffer(queue, chain) {
            return Step::NoBuffer;
        }
        if self.port.events_waiting.swap(false, Ordering::AcqRel)
            && let Some(event) = self.take(|fabric, id| fabric.poll_event(id))
        {
            self.port.events_waiting.store(true, Ordering::Release);
            if self.put(queue, chain, &event) {
                self.take(|fabric, id| fabric.events_delivered(id));
            } else {
                self.take(|fabric, id| fabric.events_failed(id));
            }
            return Step::Filled;
        }
        match self.port.signals.take() {
            Some(batch) => {
                if !self.put(queue, chain, &batch.to_event()) {
                    self.port.signals.put_back(batch);
                }
                Step::Filled
            }
            None => {
                queue.go_to_previous_position();
                Step::NothingToSay
            }
        }
    }

    /// Takes a buffer that can hold an event; those that cannot are given back empty.
    fn next_buffer(&mut self, queue: &mut Queue, chain: &mut Chain) -> bool {
        while self.left > 0 {
            self.left -= 1;
            match chain.pop(queue, self.memory) {
                Popped::Chain if chain.writable_len() >= EVENT_SIZE as u64 => {
                    // Nothing waits for the driver's next buffer: it need not kick. If it does it is no harm.
                    let _ = queue.disable_notification(self.memory);
                    return true;
                }
                Popped::Chain | Popped::Bad(_) => self.give_back(queue, chain.head(), 0),
                Popped::BadRing => return false,
                // Without a buffer the driver must kick when it adds one; it may just have.
                Popped::Nothing => {
                    let enabled = queue.enable_notification(self.memory);
                    if enabled.is_err() || !is_available(queue, self.memory) {
                        return false;
                    }
                }
            }
        }
        false
    }

    fn put(&mut self, queue: &mut Queue, chain: &Chain, event: &[u8; EVENT_SIZE]) -> bool {
        let written = chain.write_reply(self.memory, event);
        self.give_back(queue, chain.head(), written.unwrap_or(0));
        written.is_ok()
    }

    fn give_back(&mut self, queue: &mut Queue, head: u16, len: u32) {
        if give_back(queue, self.memory, head, len) {
            self.used += 1;
        }
    }

    fn take<R>(
        &mut self,
        call: impl FnOnce(&mut ism_emulator::Fabric, ism_emulator::MemberId) -> R,
    ) -> R {
        let id = self.port.id;
        let (result, todo) = self.hub.run(|fabric, _| call(fabric, id));
        self.todo.append(todo);
        result
    }
}
