// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copied mode: the checks before a copy, and what follows it.
//!
//! Invariant: as long as a `MoveTarget` exists, its DMB's RAM is not given back to the owner's
//! driver: the gate was entered before the lock was released, and is left when the target goes.

use std::sync::Arc;
use std::time::Duration;

use ism_abi::MoveRequest;

use crate::cdc::CdcCheck;
use crate::config::Mode;
use crate::fabric::Fabric;
use crate::gate::{Gate, Leave};
use crate::refusal::Refusal;
use crate::signals::SignalSet;
use crate::stats::{Counters, count};
use crate::wish::MemberId;

/// A move that may be carried out. Dropped without [`MoveTarget::finish`], it counts as failed.
#[derive(Debug)]
pub struct MoveTarget {
    /// Whose RAM to write.
    pub owner: MemberId,
    /// Guest-physical address of the first byte; `addr + len` does not overflow.
    pub addr: u64,
    /// Bytes to write.
    pub len: u32,
    /// If set, the payload must pass this check before a byte of it is written: read the payload
    /// once into own memory, check that, write that.
    pub cdc: Option<CdcCheck>,
    /// The DMB's index, if the owner is to be signalled.
    signal: Option<u32>,
    /// Signals to count: one, even if the rate limit keeps it for later.
    counted: u64,
    signals: Arc<SignalSet>,
    counters: Arc<Counters>,
    /// Taken when it has been left.
    gate: Option<Arc<Gate>>,
}

/// What follows a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The member that has to look at its [`SignalSet`].
    pub tell: Option<MemberId>,
    /// Call [`Fabric::settle`]: somebody waited for this copy to leave.
    pub settle: bool,
}

impl Fabric {
    /// Checks a move request. `header`: the request without its payload; `payload_len`: bytes of
    /// payload in the buffer. Needs the fabric's lock; the copy itself does not.
    ///
    /// # Errors
    /// The status to answer with; nothing was written, and the member's error is counted. For a
    /// status found later (I/O error, bad CDC header) use [`MoveTarget::fail`].
    pub fn begin_move(
        &mut self,
        id: MemberId,
        header: &[u8],
        payload_len: usize,
        now: Duration,
    ) -> Result<MoveTarget, Refusal> {
        let target = self.check_move(id, header, payload_len, now);
        if target.is_err()
            && let Some(member) = self.members.get(&id)
        {
            count(&member.counters.errors, 1);
        }
        target
    }

    fn check_move(
        &mut self,
        id: MemberId,
        header: &[u8],
        payload_len: usize,
        now: Duration,
    ) -> Result<MoveTarget, Refusal> {
        let member = self.members.get_mut(&id).ok_or(Refusal::NotReady)?;
        if !member.ready {
            return Err(Refusal::NotReady);
        }
        let request = MoveRequest::from_bytes(header).ok_or(Refusal::Invalid)?;
        let well_formed = header.len() == MoveRequest::SIZE
            && request.signal <= 1
            && request.reserved == 0
            && request.len <= self.config.max_move_len
            && usize::try_from(request.len).is_ok_and(|len| len == payload_len);
        if !well_formed {
            return Err(Refusal::Invalid);
        }
        let grant = member.grants.get(&request.token).ok_or(Refusal::NoToken)?;
        if grant.mode != Mode::Copied {
            return Err(Refusal::WrongMode);
        }
        let end = request.offset.checked_add(request.len).ok_or(Refusal::OutOfRange)?;
        if end > grant.len {
            return Err(Refusal::OutOfRange);
        }
        // REGISTER checked that ram_addr + DMB length does not overflow.
        let addr =
            grant.ram_addr.checked_add(u64::from(request.offset)).ok_or(Refusal::OutOfRange)?;
        if !grant.gate.enter() {
            return Err(Refusal::NoToken);
        }
        let check = CdcCheck { offset: request.offset, dmb_len: grant.len };
        let mut target = MoveTarget {
            owner: grant.owner,
            addr,
            len: request.len,
            cdc: (grant.check_cdc && check.applies(request.len)).then_some(check),
            signal: (request.signal == 1).then_some(grant.index),
            counted: u64::from(request.signal),
            signals: Arc::clone(&grant.signals),
            counters: Arc::clone(&member.counters),
            gate: Some(Arc::clone(&grant.gate)),
        };
        if target.signal.is_some() && !member.signal_rate.take(now) {
            // Goes out when the rate allows it and the copy has left.
            target.signal = None;
            self.defer_signal(id, request.token);
        }
        Ok(target)
    }
}

impl MoveTarget {
    /// The payload is in place: signals the owner if the request said so, and lets go of the DMB.
    /// Needs no lock.
    pub fn finish(mut self) -> Finished {
        count(&self.counters.moves, 1);
        count(&self.counters.signals_sent, self.counted);
        count(&self.counters.move_bytes, u64::from(self.len));
        let told = self.signal.is_some_and(|index| self.signals.set(index));
        Finished { tell: told.then_some(self.owner), settle: self.leave() == Leave::Settle }
    }

    /// The payload was not written (bad CDC header, RAM out of reach): the owner is not signalled.
    pub fn fail(mut self) -> Finished {
        count(&self.counters.errors, 1);
        Finished { tell: None, settle: self.leave() == Leave::Settle }
    }

    fn leave(&mut self) -> Leave {
        self.gate.take().map_or(Leave::Done, |gate| gate.leave())
    }
}

impl Drop for MoveTarget {
    fn drop(&mut self) {
        // After a panic of the copying thread; who waits finds out by `handle_timeout`.
        self.leave();
    }
}
