// SPDX-License-Identifier: GPL-2.0

//! Copied mode's half of move_data(): the payload is bounced into pages of ours, and the device
//! copies it into the owner's RAM in the queue's order.
//!
//! Invariant: move_data() returns when the payload is bounced, so its caller may reuse it; what
//! the device could not do is kept at the grant and fails the next move_data() there.

use kernel::prelude::*;

use crate::{
    abi::{status, MoveReply, MoveRequest, F_MOVE},
    device::Device,
    memory::{Buffer, Pages, Payload, NOTHING},
    native::{self, thread, Queue},
};

/// Payload bytes of one request: 16 of them make SMC's longest buffer.
const CHUNK: usize = 64 << 10;
/// Requests in flight, at most: twice that buffer.
const DEPTH: usize = 32;
/// Descriptors of a request: header, payload, reply.
const DESCRIPTORS: usize = 3;
/// Room for a request's header and reply, in bytes, a cache line each.
const HEADER_ROOM: usize = 128;
const REPLY_AT: usize = 64;
/// How long to wait for a place in the queue before the device counts as failed.
const PATIENCE_NS: u64 = 50_000_000;

struct Slot {
    payload: Pages,
    token: u64,
    busy: bool,
}

pub(crate) struct Moves {
    headers: Buffer,
    slots: KVec<Slot>,
    chunk: usize,
}

impl Device {
    /// Makes the bounce pages, when the first peer in copied mode is met. Sleeps.
    pub(crate) fn prepare_moves(&self) -> Result {
        if self.moves.lock().is_some() {
            return Ok(());
        }
        // Whole words, so that no cursor is torn between two requests.
        let chunk = CHUNK.min(self.config.max_move_len as usize) & !7;
        if chunk == 0 || !self.native.has_feature(F_MOVE) {
            return Err(EOPNOTSUPP);
        }
        let depth = (self.native.queue_size(Queue::Move) / DESCRIPTORS).clamp(1, DEPTH);
        let mut slots = KVec::with_capacity(depth, GFP_KERNEL)?;
        for _ in 0..depth {
            let slot = Slot {
                payload: Pages::new(chunk)?,
                token: 0,
                busy: false,
            };
            slots.push(slot, GFP_KERNEL)?;
        }
        let made = Moves {
            headers: Buffer::new(depth * HEADER_ROOM)?,
            slots,
            chunk,
        };
        let mut moves = self.moves.lock();
        let surplus = match &*moves {
            // Another caller was faster.
            Some(_) => Some(made),
            None => {
                *moves = Some(made);
                self.native.callbacks_off(Queue::Move);
                None
            }
        };
        drop(moves);
        drop(surplus);
        Ok(())
    }

    /// As `move_data`, with bounds checked.
    pub(crate) fn move_copied(
        &self,
        token: u64,
        signal: bool,
        offset: u32,
        data: &Payload<'_>,
    ) -> Result {
        let mut done: usize = 0;
        loop {
            let sent = self.send_chunk(token, signal, offset, data, done)?;
            done = done.saturating_add(sent);
            if done >= data.len() {
                break;
            }
        }
        let kick = {
            let _moves = self.moves.lock();
            self.native.queue_kick_prepare(Queue::Move)
        };
        if kick {
            self.native.queue_notify(Queue::Move);
        }
        Ok(())
    }

    /// Puts the part of `data` from `done` on into the queue; returns its bytes.
    fn send_chunk(
        &self,
        token: u64,
        signal: bool,
        offset: u32,
        data: &Payload<'_>,
        done: usize,
    ) -> Result<usize> {
        let mut deadline = None;
        loop {
            let mut guard = self.moves.lock();
            let moves = guard.as_mut().ok_or(EIO)?;
            self.reclaim_moves(moves);
            if let Some(number) = moves.slots.iter().position(|slot| !slot.busy) {
                let part = data.part(done, moves.chunk);
                let last = part.len() >= data.len().saturating_sub(done);
                let at = offset.checked_add(done as u32).ok_or(EINVAL)?;
                self.post_move(moves, number, token, signal && last, at, &part)?;
                return Ok(part.len());
            }
            let kick = self.native.queue_kick_prepare(Queue::Move);
            drop(guard);
            if kick {
                self.native.queue_notify(Queue::Move);
            }
            let now = native::now_ns();
            if now > *deadline.get_or_insert(now.saturating_add(PATIENCE_NS)) || self.is_dead() {
                return Err(EIO);
            }
            thread::cpu_relax();
        }
    }

    fn post_move(
        &self,
        moves: &mut Moves,
        number: usize,
        token: u64,
        signal: bool,
        offset: u32,
        data: &Payload<'_>,
    ) -> Result {
        let request = MoveRequest {
            token,
            offset,
            len: data.len() as u32,
            signal: u32::from(signal),
            reserved: 0,
        };
        let at = number.wrapping_mul(HEADER_ROOM);
        moves.headers.write(at, &request.to_bytes()).ok_or(EINVAL)?;
        // "No reply yet" must not read as success.
        let unanswered = MoveReply {
            status: status::IO_ERROR,
        };
        let reply_at = at.wrapping_add(REPLY_AT);
        moves
            .headers
            .write(reply_at, &unanswered.to_bytes())
            .ok_or(EINVAL)?;
        let header = moves.headers.part(at, MoveRequest::SIZE);
        let reply = moves.headers.part(reply_at, MoveReply::SIZE);
        let slot = moves.slots.get_mut(number).ok_or(EINVAL)?;
        let payload = match data.len() {
            0 => NOTHING,
            _ => slot.payload.write(0, data).ok_or(EINVAL)?,
        };
        self.add_move(header, payload, reply, number)?;
        slot.token = token;
        slot.busy = true;
        Ok(())
    }

    #[allow(unsafe_code)] // The queue takes addresses.
    fn add_move(
        &self,
        header: (*mut u8, usize),
        payload: (*mut u8, usize),
        reply: (*mut u8, usize),
        number: usize,
    ) -> Result {
        // SAFETY: Headers and payloads live as long as the device, and a slot is not reused
        // before its buffer was used; the caller holds the queue's lock.
        unsafe {
            self.native
                .queue_add(Queue::Move, header, payload, reply, number.wrapping_add(1))
        }
    }

    /// With the queue's lock held.
    fn reclaim_moves(&self, moves: &mut Moves) {
        while let Some(used) = self.native.queue_used(Queue::Move) {
            let number = used.cookie.wrapping_sub(1);
            let Some(slot) = moves.slots.get_mut(number) else {
                continue;
            };
            slot.busy = false;
            let token = slot.token;
            let mut reply = [0; MoveReply::SIZE];
            let at = number.wrapping_mul(HEADER_ROOM).wrapping_add(REPLY_AT);
            let reply = moves.headers.read(at, &mut reply).map(|()| reply);
            let reply = reply.and_then(|reply| MoveReply::from_bytes(&reply));
            if reply.is_none_or(|reply| reply.status != status::OK) {
                self.grants.lock().fail(token);
            }
        }
    }
}
