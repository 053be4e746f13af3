// SPDX-License-Identifier: GPL-2.0

//! Control requests: a few slots, each with memory of its own for one request and its reply.
//!
//! Invariant: a slot is handed out again only after the device has answered it, or was reset. A
//! caller that stops waiting (a killed process, a slow device) leaves the slot `Abandoned`, so a
//! late answer lands in memory that is still the slot's.

use kernel::prelude::*;

use crate::{
    abi::{command, status, Ping, RegisterReply, ReplyHeader, RequestHeader},
    device::Device,
    memory::{Buffer, NOTHING},
    native::{Native, Queue, Work},
    sync::{Spin, SpinId},
};

/// ISM_SLOTS of shim.h.
pub(crate) const SLOTS: usize = 8;
/// Room for the longest request and the longest reply of the ABI, in bytes.
const REQUEST_ROOM: usize = 64;
const REPLY_ROOM: usize = 128;
/// How long a request may take. Shorter than what net/smc grants a handshake (CLC, 6 s).
const TIMEOUT_MS: u32 = 4000;

enum State {
    Free,
    /// Somebody waits for the answer.
    Waiting,
    /// This many bytes of answer are in the buffer.
    Answered(usize),
    /// Nobody waits any more. For REGISTER: the index that must be unregistered again.
    Abandoned(Option<u32>),
    /// The watchdog's, which waits otherwise.
    Ping,
}

struct Slot {
    buffer: Buffer,
    state: State,
}

pub(crate) struct Slots {
    slots: KVec<Slot>,
    /// Answers of the device since it was last asked about.
    answers: u64,
}

/// Why a request has no reply.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// The device said no: one of `abi::status`.
    Status(u32),
    /// There was no answer.
    Gone(Error),
    /// As `Gone`, but the device may carry the request out later.
    Abandoned(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Gone(error) | Failure::Abandoned(error) => error,
            Failure::Status(status) => match status {
                status::UNSUPPORTED => EOPNOTSUPP,
                status::UNREACHABLE => ENETUNREACH,
                status::NO_TOKEN => ENOENT,
                status::NO_SPACE => ENOSPC,
                status::IN_USE | status::BUSY => EBUSY,
                status::IO_ERROR | status::NOT_READY => EIO,
                _ => EINVAL,
            },
        }
    }
}

/// The control queue.
pub(crate) struct Control {
    native: Native,
    slots: Spin<Slots>,
}

impl Control {
    pub(crate) fn new(native: Native) -> Result<Self> {
        let mut slots = KVec::with_capacity(SLOTS, GFP_KERNEL)?;
        for _ in 0..SLOTS {
            slots.push(
                Slot {
                    buffer: Buffer::new(REQUEST_ROOM + REPLY_ROOM)?,
                    state: State::Free,
                },
                GFP_KERNEL,
            )?;
        }
        let slots = Slots { slots, answers: 0 };
        Ok(Self {
            native,
            slots: Spin::new(native, SpinId::Control, slots),
        })
    }

    /// Answers since this was last called.
    pub(crate) fn take_answers(&self) -> u64 {
        core::mem::take(&mut self.slots.lock().answers)
    }

    /// Puts a request on the queue; the caller has taken a slot from the semaphore.
    fn post(&self, command: u16, body: &[u8], state: State) -> Result<usize> {
        let header = RequestHeader {
            command,
            reserved: [0; 6],
        };
        let len = RequestHeader::SIZE + body.len();
        if len > REQUEST_ROOM {
            return Err(EINVAL);
        }
        let mut slots = self.slots.lock();
        let free = |slot: &Slot| matches!(slot.state, State::Free);
        let number = slots.slots.iter().position(free).ok_or(EBUSY)?;
        let slot = slots.slots.get_mut(number).ok_or(EBUSY)?;
        slot.buffer.write(0, &header.to_bytes()).ok_or(EINVAL)?;
        slot.buffer.write(RequestHeader::SIZE, body).ok_or(EINVAL)?;
        self.native.answer_prepare(number);
        let request = slot.buffer.part(0, len);
        let reply = slot.buffer.part(REQUEST_ROOM, REPLY_ROOM);
        self.add(request, reply, number)?;
        slot.state = state;
        let kick = self.native.queue_kick_prepare(Queue::Control);
        drop(slots);
        if kick {
            self.native.queue_notify(Queue::Control);
        }
        Ok(number)
    }

    #[allow(unsafe_code)] // The queue takes addresses.
    fn add(&self, request: (*mut u8, usize), reply: (*mut u8, usize), slot: usize) -> Result {
        // SAFETY: The slot's memory is not freed before the device is reset (`Slots` is dropped
        // with the device), and `post` holds the queue's lock.
        unsafe {
            self.native.queue_add(
                Queue::Control,
                request,
                NOTHING,
                reply,
                slot.wrapping_add(1),
            )
        }
    }

    /// Frees a slot, with the lock held.
    fn free(&self, slot: &mut Slot) {
        slot.state = State::Free;
        self.native.slot_put();
    }

    /// Takes the answer of slot `number`, or leaves the slot to the device.
    fn collect(
        &self,
        number: usize,
        waited: Result,
        reply: &mut [u8],
        orphan: Option<u32>,
    ) -> Result<(), Failure> {
        let mut slots = self.slots.lock();
        let slot = slots.slots.get_mut(number).ok_or(Failure::Gone(EIO))?;
        let State::Answered(len) = slot.state else {
            slot.state = State::Abandoned(orphan);
            return Err(Failure::Abandoned(waited.err().unwrap_or(EIO)));
        };
        let mut header = [0; ReplyHeader::SIZE];
        let complete = len >= ReplyHeader::SIZE;
        slot.buffer.read(REQUEST_ROOM, &mut header);
        slot.buffer.read(REQUEST_ROOM + ReplyHeader::SIZE, reply);
        self.free(slot);
        let header = ReplyHeader::from_bytes(&header).filter(|_| complete);
        match header.ok_or(Failure::Gone(EIO))?.status {
            status::OK if len >= ReplyHeader::SIZE + reply.len() => Ok(()),
            status::OK => Err(Failure::Gone(EIO)),
            status => Err(Failure::Status(status)),
        }
    }
}

impl Device {
    /// Sends a request and waits for its reply, `reply.len()` bytes after the header. Sleeps.
    pub(crate) fn call(&self, command: u16, body: &[u8], reply: &mut [u8]) -> Result<(), Failure> {
        self.call_for(command, body, reply, None)
    }

    /// As [`Self::call`], for REGISTER: if nobody waits for the answer any more, DMB `orphan` is
    /// unregistered when it comes.
    pub(crate) fn call_for(
        &self,
        command: u16,
        body: &[u8],
        reply: &mut [u8],
        orphan: Option<u32>,
    ) -> Result<(), Failure> {
        if self.is_dead() {
            return Err(Failure::Gone(EIO));
        }
        if self.native.queue_broken(Queue::Control) {
            self.declare_dead("its control queue is broken");
            return Err(Failure::Gone(EIO));
        }
        self.native.slot_get(TIMEOUT_MS).map_err(Failure::Gone)?;
        let number = match self.control.post(command, body, State::Waiting) {
            Ok(number) => number,
            Err(error) => {
                self.native.slot_put();
                return Err(Failure::Gone(error));
            }
        };
        // Declared dead after the check above: then nobody completes this slot any more.
        let waited = if self.is_dead() {
            Err(EIO)
        } else {
            self.native.answer_wait(number, TIMEOUT_MS)
        };
        self.control.collect(number, waited, reply, orphan)
    }

    /// Sends a PING that nobody waits for. False: there was no slot.
    pub(crate) fn ping(&self, cookie: u64) -> bool {
        if !self.native.slot_try_get() {
            return false;
        }
        let body = Ping { cookie }.to_bytes();
        let posted = self.control.post(command::PING, &body, State::Ping);
        if posted.is_err() {
            self.native.slot_put();
        }
        posted.is_ok()
    }

    /// The control queue's interrupt.
    pub(crate) fn control_used(&self) {
        if self.take_used() && self.has_joined() {
            self.forgotten();
        }
    }

    /// Handles the answers that are there. True: the device does not know this driver.
    fn take_used(&self) -> bool {
        let mut unknown = false;
        let mut slots = self.control.slots.lock();
        while let Some(used) = self.native.queue_used(Queue::Control) {
            slots.answers = slots.answers.wrapping_add(1);
            let number = used.cookie.wrapping_sub(1);
            let Some(slot) = slots.slots.get_mut(number) else {
                continue;
            };
            unknown |= status_of(&slot.buffer, used.len) == Some(status::NOT_READY);
            match slot.state {
                State::Waiting => {
                    slot.state = State::Answered(used.len.min(REPLY_ROOM));
                    self.native.answer_complete(number);
                }
                State::Abandoned(orphan) => {
                    if let Some(index) = orphan {
                        self.adopt_orphan(index, registered(&slot.buffer, used.len));
                    }
                    self.control.free(slot);
                }
                State::Ping => self.control.free(slot),
                State::Free | State::Answered(_) => {}
            }
        }
        unknown
    }

    /// A late answer to REGISTER came for DMB `index`, which its caller has given up.
    fn adopt_orphan(&self, index: u32, token: Option<u64>) {
        self.local.lock().orphan_answered(index, token);
        self.native.work_queue(Work::Reap, 1);
    }

    /// Wakes all who wait: there will be no answers. The slots stay the device's.
    pub(crate) fn give_up_answers(&self) {
        let slots = self.control.slots.lock();
        for (number, slot) in slots.slots.iter().enumerate() {
            if matches!(slot.state, State::Waiting) {
                self.native.answer_complete(number);
            }
        }
    }
}

/// The status in an answer of `len` bytes, if it has one.
fn status_of(buffer: &Buffer, len: usize) -> Option<u32> {
    let mut header = [0; ReplyHeader::SIZE];
    if len < ReplyHeader::SIZE {
        return None;
    }
    buffer.read(REQUEST_ROOM, &mut header)?;
    Some(ReplyHeader::from_bytes(&header)?.status)
}

/// The token in an answer to REGISTER, if it is one.
fn registered(buffer: &Buffer, len: usize) -> Option<u64> {
    const LEN: usize = ReplyHeader::SIZE + RegisterReply::SIZE;
    let mut answer = [0; LEN];
    if len < LEN {
        return None;
    }
    buffer.read(REQUEST_ROOM, &mut answer)?;
    let header = ReplyHeader::from_bytes(&answer)?;
    let reply = RegisterReply::from_bytes(answer.get(ReplyHeader::SIZE..)?)?;
    (header.status == status::OK).then_some(reply.token)
}
