// SPDX-License-Identifier: GPL-2.0

//! move_data(): writes into a peer's DMB and tells its owner.
//!
//! Invariant: never sleeps; the data is visible before the owner's bit, and the bit before the
//! question whether to ring. A failure is negative, for net/smc takes anything else for success.

use core::sync::atomic::{
    fence,
    Ordering::{Release, SeqCst},
};
use kernel::prelude::*;

use crate::{
    abi::signal_page,
    counters::Counter,
    device::Device,
    early::{self, Cdc, Verdict},
    grants::{Grant, Path},
    local,
    memory::{Payload, Window},
    native::{self, Work},
};

/// Whether the owner looks by itself.
#[derive(PartialEq, Eq)]
enum Doorbell {
    Ring,
    Silent,
}

impl Device {
    /// dibs: writes `data` at `offset` of `token`'s DMB; `signal`: and tells the owner. Process
    /// context or softirq.
    pub(crate) fn move_data(
        &self,
        token: u64,
        signal: bool,
        offset: u32,
        data: Payload<'_>,
    ) -> Result {
        let result = self.move_to(token, signal, offset, &data);
        match &result {
            Ok(()) => {
                self.counters.one(Counter::Moves);
                self.counters.add(Counter::MoveBytes, data.len() as u64);
            }
            Err(_) => self.counters.one(Counter::MoveErrors),
        }
        if signal {
            self.note_traffic();
        }
        result
    }

    fn move_to(&self, token: u64, signal: bool, offset: u32, data: &Payload<'_>) -> Result {
        if self.is_dead() {
            return Err(EIO);
        }
        let grant = self.grant(token)?;
        let end = u64::from(offset).saturating_add(data.len() as u64);
        if end > u64::from(grant.len) {
            return Err(EINVAL);
        }
        if signal && offset == 0 {
            if let Some(cdc) = data.array() {
                return self.send_cdc(&grant, &cdc);
            }
        }
        self.write(&grant, signal, offset, data)
    }

    /// Sends a CDC message, unless it must wait.
    fn send_cdc(&self, grant: &Grant, cdc: &Cdc) -> Result {
        let verdict = loop {
            match self.judge(grant, cdc) {
                // Another CPU is in `send_held`, with bottom halves off: it takes no time.
                Verdict::Wait if self.is_dead() => return Err(EIO),
                Verdict::Wait => native::thread::cpu_relax(),
                verdict => break verdict,
            }
        };
        match verdict {
            Verdict::Kept => {
                self.native.work_queue(Work::Held, early::HOLD_MS);
                return Ok(());
            }
            Verdict::SendAfter(held) => self.write(grant, true, 0, &Payload::of(&held))?,
            Verdict::Send | Verdict::Wait => {}
        }
        self.write(grant, true, 0, &Payload::of(cdc))
    }

    fn judge(&self, grant: &Grant, cdc: &Cdc) -> Verdict {
        self.grants.lock().judge(grant.token, cdc, native::now_ns())
    }

    /// Sends the messages that have waited long enough. Process context.
    pub(crate) fn send_held(&self) {
        loop {
            // Bottom halves off is a reader's section too (`native::wait_for_readers`).
            let more = native::without_bh(|| {
                if self.is_dead() {
                    return Err(false);
                }
                let (due, more) = self.grants.lock().take_due(native::now_ns());
                let (grant, cdc) = due.ok_or(more)?;
                // A failure would be the next message's too.
                let _ = self.write(&grant, true, 0, &Payload::of(&cdc));
                self.grants.lock().written(grant.token);
                Ok(())
            });
            match more {
                Ok(()) => {}
                Err(true) => return self.native.work_queue(Work::Held, early::HOLD_MS),
                Err(false) => return,
            }
        }
    }

    /// Writes within bounds that were checked.
    fn write(&self, grant: &Grant, signal: bool, offset: u32, data: &Payload<'_>) -> Result {
        match grant.path {
            Path::Copied => self.move_copied(grant.token, signal, offset, data),
            Path::Mapped {
                offset: base,
                signal_page,
            } => {
                let window = self.window.as_ref().ok_or(EIO)?;
                let at = base.checked_add(offset.into()).ok_or(EINVAL)?;
                // Before this data, what was written earlier: a reader that sees a cursor finds
                // the bytes it speaks of.
                fence(Release);
                window.write(at, data).ok_or(EINVAL)?;
                if signal {
                    self.signal(window, grant, signal_page);
                }
                Ok(())
            }
        }
    }

    fn grant(&self, token: u64) -> Result<Grant> {
        let known = self.grants.lock().get(token);
        let (grant, failed) = match known {
            Some(known) => known,
            None => {
                // The event is on the queue before the peer can tell the token, but its
                // interrupt may be late.
                self.drain();
                self.grants.lock().get(token).ok_or(ENOENT)?
            }
        };
        if failed {
            self.grants.lock().clear_failure(token);
            return Err(EIO);
        }
        Ok(grant)
    }

    fn signal(&self, window: &Window, grant: &Grant, page: u64) {
        if ask_to_ring(window, page, grant.index) == Some(Doorbell::Ring) {
            self.counters.one(Counter::SignalsRung);
            self.ring(grant.token);
        } else {
            self.counters.one(Counter::SignalsSuppressed);
        }
    }
}

/// Sets the owner's bits, then asks whether it wants to be rung.
///
/// `core`'s atomics and not the kernel's: those leave the lock prefix out on a machine with one
/// CPU, while the other side of this memory runs on a CPU of another machine.
fn ask_to_ring(window: &Window, page: u64, index: u32) -> Option<Doorbell> {
    // A grant's index is below 64 * 64 (events.rs).
    let (word, bit) = (index / 64, 1u64.wrapping_shl(index % 64));
    let word_bit = 1u64.wrapping_shl(word);
    let pending = window.word64(page.wrapping_add(local::pending_at(word)))?;
    let summary = window.word64(page.wrapping_add(signal_page::SUMMARY as u64))?;
    // Orders the data before the bit as well.
    pending.fetch_or(bit, SeqCst);
    if summary.load(SeqCst) & word_bit == 0 {
        summary.fetch_or(word_bit, SeqCst);
    }
    let doorbell = window.word32(page.wrapping_add(signal_page::DOORBELL as u64))?;
    match doorbell.load(SeqCst) {
        // A plain store is enough: who finds ARMED rings, so at worst two do.
        signal_page::ARMED => {
            doorbell.store(signal_page::SILENT, SeqCst);
            Some(Doorbell::Ring)
        }
        signal_page::SILENT => Some(Doorbell::Silent),
        // RING_ALWAYS; and a value that no driver writes is none to be trusted.
        _ => Some(Doorbell::Ring),
    }
}
