// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VM's worker does with the buffers its driver made available.
//!
//! Invariant: a request is copied out of guest memory once, before it is looked at; a buffer that
//! makes no sense is given back with nothing written, and costs only its own driver.

use std::sync::Arc;

use ism_abi::layout::{
    MoveReply, MoveRequest, QUEUE_CONTROL, QUEUE_EVENT, QUEUE_MOVE, QUEUE_SIGNAL, SignalRequest,
    status,
};
use ism_emulator::{Finished, MoveTarget, Refusal, reply_len};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::queues::{Chain, Popped, give_back, is_available};
use super::vring::Vring;
use super::{Link, Port};
use crate::hub::{Hub, Todo};
use crate::memory::GuestMemory;

/// Bytes of a control request that are read: longer than every request, so that one that is too
/// long looks too long to the fabric.
const CONTROL_BYTES: usize = 128;
/// Doorbells taken in one go under one lock.
const SIGNAL_BATCH: usize = 32;
/// Buffers of one queue served in one pass, so that a busy driver cannot keep its VM from stopping.
const PASS: usize = 256;
/// Bytes that a CDC-checked payload is copied through.
const CDC_BYTES: usize = 64;

/// One pass of a VM's worker over its queues.
pub struct Server<'a> {
    /// The fabric.
    pub hub: &'a Hub,
    /// The VM.
    pub port: &'a Port,
    /// Its front-end.
    pub link: &'a Link,
    /// Its memory.
    pub memory: &'a Arc<GuestMemory>,
}

impl Server<'_> {
    /// Serves what is there now; how many buffers that was.
    pub fn pass(&self) -> usize {
        self.controls() + self.signals() + self.moves()
    }

    /// Whether a queue has buffers that can be taken.
    pub fn has_work(&self) -> bool {
        self.rings().any(|vring| {
            vring.with_queue(|queue| is_available(queue, self.memory)).unwrap_or(false)
        })
    }

    /// Asks the driver not to kick.
    pub fn disable_kicks(&self) {
        for vring in self.rings() {
            vring.with_queue(|queue| queue.disable_notification(&**self.memory));
        }
    }

    /// Asks the driver to kick again; true if it has added buffers in between.
    pub fn enable_kicks(&self) -> bool {
        self.rings().fold(false, |more, vring| {
            let added = vring.with_queue(|queue| {
                let enabled = queue.enable_notification(&**self.memory);
                enabled.is_ok() && is_available(queue, self.memory)
            });
            more | added.unwrap_or(false)
        })
    }

    fn rings(&self) -> impl Iterator<Item = &Vring> {
        [QUEUE_CONTROL, QUEUE_SIGNAL, QUEUE_MOVE].into_iter().filter_map(|n| self.link.vring(n))
    }

    /// The driver has added event buffers: fills them.
    pub fn events(&self) {
        self.hub.carry_out(self.port.deliver(self.hub, true));
        debug_assert!(self.link.vring(QUEUE_EVENT).is_some());
    }

    /// Has each buffer of a queue served, as many as a pass may.
    fn each(&self, queue: u16, mut serve: impl FnMut(&mut Chain, &Vring)) -> usize {
        let Some(vring) = self.link.vring(queue) else { return 0 };
        let mut served = 0;
        let mut chain = Chain::default();
        while served < PASS
            && let Some(popped) = self.pop(vring, &mut chain)
        {
            served += 1;
            if popped {
                serve(&mut chain, vring);
            }
        }
        served
    }

    fn controls(&self) -> usize {
        self.each(QUEUE_CONTROL, |chain, vring| self.control(std::mem::take(chain), vring))
    }

    fn control(&self, chain: Chain, vring: &Vring) {
        let mut bytes = [0; CONTROL_BYTES];
        let read = chain.read_start(self.memory, &mut bytes);
        let request = read.ok().and_then(|len| bytes.get(..len)).unwrap_or_default();
        if chain.writable_len() < reply_len(request) as u64 {
            return self.give_back(vring, chain.head(), 0);
        }
        let head = chain.head();
        let Some(tag) = self.link.keep_waiting(chain) else {
            return self.give_back(vring, head, 0);
        };
        let id = self.port.id;
        let answer = self.hub.call(|fabric, now| fabric.control(id, tag, request, now));
        if let Some(reply) = answer {
            self.port.reply(tag, &reply);
        }
    }

    fn signals(&self) -> usize {
        let Some(vring) = self.link.vring(QUEUE_SIGNAL) else { return 0 };
        let mut served = 0;
        while served < PASS {
            let mut batch = Doorbells::default();
            let call = vring.with_queue(|queue| batch.take(queue, self.memory));
            if batch.taken == 0 {
                break;
            }
            served += batch.taken;
            self.ring(&batch);
            if call == Some(true) {
                vring.call();
            }
        }
        served
    }

    fn ring(&self, batch: &Doorbells) {
        let id = self.port.id;
        let (told, mut todo) = self.hub.run(|fabric, now| {
            let mut told = Todo::default();
            for (request, len) in batch.requests.iter().take(batch.count) {
                let request = request.get(..*len).unwrap_or_default();
                // A wrong token is counted by the fabric; a doorbell has no reply.
                if let Ok(Some(owner)) = fabric.signal(id, request, now) {
                    told.tell(owner);
                }
            }
            told
        });
        todo.append(told);
        self.hub.carry_out(todo);
    }

    fn moves(&self) -> usize {
        self.each(QUEUE_MOVE, |chain, vring| self.one_move(chain, vring))
    }

    fn one_move(&self, chain: &Chain, vring: &Vring) {
        if chain.writable_len() < MoveReply::SIZE as u64 {
            return self.give_back(vring, chain.head(), 0);
        }
        let (status, finished) = match self.begin_move(chain) {
            Ok(target) => match self.copy(chain, &target) {
                Ok(()) => (status::OK, Some(target.finish())),
                Err(refusal) => (refusal.status(), Some(target.fail())),
            },
            Err(refusal) => (refusal.status(), None),
        };
        let reply = MoveReply { status }.to_bytes();
        let written = chain.write_reply(self.memory, &reply).unwrap_or(0);
        self.give_back(vring, chain.head(), written);
        if let Some(Finished { tell, settle }) = finished {
            let mut todo = Todo::default();
            if let Some(owner) = tell {
                todo.tell(owner);
            }
            if settle {
                todo.append(self.hub.run(|fabric, _| fabric.settle()).1);
            }
            self.hub.carry_out(todo);
        }
    }

    fn begin_move(&self, chain: &Chain) -> Result<MoveTarget, Refusal> {
        let mut header = [0; MoveRequest::SIZE];
        let len = chain.read_start(self.memory, &mut header).map_err(|_| Refusal::IoError)?;
        let header = header.get(..len).unwrap_or_default();
        let payload = chain.readable_len().saturating_sub(len as u64);
        let payload = usize::try_from(payload).map_err(|_| Refusal::Invalid)?;
        let id = self.port.id;
        self.hub.call(|fabric, now| fabric.begin_move(id, header, payload, now))
    }

    fn copy(&self, chain: &Chain, target: &MoveTarget) -> Result<(), Refusal> {
        let owner = self.hub.port(target.owner).and_then(|port| port.link());
        let memory = owner.and_then(|link| link.memory()).ok_or(Refusal::IoError)?;
        let len = usize::try_from(target.len).map_err(|_| Refusal::IoError)?;
        let to = GuestAddress(target.addr);
        let Some(check) = target.cdc else {
            let copied = chain.copy_to_guest(self.memory, MoveRequest::SIZE, len, &memory, to);
            return copied.map_err(|_| Refusal::IoError);
        };
        // What is checked is what is written: the driver cannot change this copy.
        let mut bytes = [0; CDC_BYTES + MoveRequest::SIZE];
        let bytes = bytes.get_mut(..MoveRequest::SIZE + len).ok_or(Refusal::BadCdc)?;
        let read = chain.read_start(self.memory, bytes).map_err(|_| Refusal::IoError)?;
        let payload = bytes.get(MoveRequest::SIZE..read).ok_or(Refusal::IoError)?;
        check.check(payload)?;
        memory.write_slice(payload, to).map_err(|_| Refusal::IoError)
    }

    /// Takes the next buffer: `Some(false)` is one that cannot be served, and was given back.
    fn pop(&self, vring: &Vring, chain: &mut Chain) -> Option<bool> {
        let popped = vring.with_queue(|queue| chain.pop(queue, self.memory))?;
        match popped {
            Popped::Nothing | Popped::BadRing => None,
            Popped::Chain => Some(true),
            Popped::Bad(error) => {
                log::debug!("{}: {error}", self.port.title);
                self.give_back(vring, chain.head(), 0);
                Some(false)
            }
        }
    }

    fn give_back(&self, vring: &Vring, head: u16, len: u32) {
        let memory = &**self.memory;
        let call = vring.with_queue(|queue| {
            give_back(queue, memory, head, len) && queue.needs_notification(memory).unwrap_or(true)
        });
        if call == Some(true) {
            vring.call();
        }
    }
}

/// Doorbells copied out of the signal queue, which has its buffers back at once.
struct Doorbells {
    /// Bytes of the requests, one more than they may have; and how many there were.
    requests: [([u8; SignalRequest::SIZE + 1], usize); SIGNAL_BATCH],
    count: usize,
    /// Buffers taken, those that could not be read included.
    taken: usize,
}

impl Default for Doorbells {
    fn default() -> Self {
        Self { requests: [([0; SignalRequest::SIZE + 1], 0); SIGNAL_BATCH], count: 0, taken: 0 }
    }
}

impl Doorbells {
    /// Takes what is there; true if the driver wants to be told.
    fn take(&mut self, queue: &mut Queue, memory: &GuestMemory) -> bool {
        let mut chain = Chain::default();
        while let Some((bytes, len)) = self.requests.get_mut(self.count) {
            match chain.pop(queue, memory) {
                Popped::Nothing | Popped::BadRing => break,
                Popped::Chain => {
                    if let Ok(read) = chain.read_start(memory, bytes) {
                        *len = read;
                        self.count += 1;
                    }
                }
                Popped::Bad(_) => {}
            }
            self.taken += 1;
            give_back(queue, memory, chain.head(), 0);
            if self.taken == SIGNAL_BATCH {
                break;
            }
        }
        self.taken > 0 && queue.needs_notification(memory).unwrap_or(true)
    }
}
