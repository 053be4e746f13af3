// SPDX-License-Identifier: GPL-2.0

//! The event queue: what the device tells of its own accord.
//!
//! Invariant: events are handled one after another in the queue's order, in any context (under
//! the queue's lock), and each buffer goes back to the device at once.

use kernel::prelude::*;

use crate::{
    abi::{
        event, mode, signal_page, DmbGranted, DmbUnregistered, EventHeader, PeerGone, Signals,
        SoftwareEvent, EVENT_SIZE,
    },
    counters::Counter,
    device::{log_err, log_info, log_warn, Device},
    grants::{Grant, Path},
    memory::{Buffer, NOTHING},
    native::{DibsEvent, Native, Queue, Work},
    peers::{Gone, Uuid},
};

/// DIBS_BUF_UNREGISTERED and DIBS_DEV_DISABLED (include/linux/dibs.h).
const BUFFER_UNREGISTERED: u32 = 0;
const DEVICE_DISABLED: u32 = 1;

/// Buffers for events, at most; a device keeps what finds none.
const DEPTH: usize = 256;

pub(crate) struct Events {
    buffer: Buffer,
    depth: usize,
}

impl Events {
    /// For a queue of `size` descriptors.
    pub(crate) fn new(size: usize) -> Result<Self> {
        let depth = size.clamp(1, DEPTH);
        let buffer = Buffer::new(depth * EVENT_SIZE)?;
        Ok(Self { buffer, depth })
    }

    /// Gives buffer `number` to the device.
    #[allow(unsafe_code)] // The queue takes addresses.
    fn post(&self, native: Native, number: usize) -> Result {
        let part = self
            .buffer
            .part(number.wrapping_mul(EVENT_SIZE), EVENT_SIZE);
        if part.1 == 0 {
            return Err(EINVAL);
        }
        // SAFETY: The buffer lives as long as the device; `self` is reached through the queue's
        // lock only.
        unsafe { native.queue_add(Queue::Event, NOTHING, NOTHING, part, number.wrapping_add(1)) }
    }
}

impl Device {
    /// Gives the device all buffers, once.
    pub(crate) fn start_events(&self) -> Result {
        let events = self.events.lock();
        for number in 0..events.depth {
            events.post(self.native, number)?;
        }
        let kick = self.native.queue_kick_prepare(Queue::Event);
        drop(events);
        if kick {
            self.native.queue_notify(Queue::Event);
        }
        Ok(())
    }

    /// Handles the events that are there, and not without end those that come meanwhile. True:
    /// there were some, so look again. Any context.
    pub(crate) fn drain(&self) -> bool {
        let mut any = false;
        let mut kick = false;
        let events = self.events.lock();
        // There are no more buffers than that to be used at a time.
        for _ in 0..events.depth {
            let Some(used) = self.native.queue_used(Queue::Event) else {
                break;
            };
            any = true;
            let number = used.cookie.wrapping_sub(1);
            let mut bytes = [0; EVENT_SIZE];
            let read = events
                .buffer
                .read(number.wrapping_mul(EVENT_SIZE), &mut bytes);
            // The bytes are copied, so the buffer can go back.
            let posted = events.post(self.native, number);
            if read.is_none() || posted.is_err() {
                log_err!(self, "the device returned an event buffer it does not have");
                continue;
            }
            let valid = bytes.get(..used.len.min(EVENT_SIZE)).unwrap_or(&[]);
            if self.handle(valid).is_none() {
                log_warn!(self, "a malformed event was dropped ({} bytes)", used.len);
            }
        }
        if any {
            kick = self.native.queue_kick_prepare(Queue::Event);
        }
        drop(events);
        if kick {
            self.native.queue_notify(Queue::Event);
        }
        any
    }

    fn handle(&self, bytes: &[u8]) -> Option<()> {
        let header = EventHeader::from_bytes(bytes)?;
        let body = bytes.get(EventHeader::SIZE..)?;
        match header.event {
            event::SIGNALS => self.on_signals(&Signals::from_bytes(body)?),
            event::DMB_GRANTED => self.on_granted(&DmbGranted::from_bytes(body)?)?,
            event::DMB_UNREGISTERED => self.on_unregistered(&DmbUnregistered::from_bytes(body)?),
            event::PEER_GONE => self.on_peer_gone(&PeerGone::from_bytes(body)?),
            event::SOFTWARE_EVENT => {
                let event = SoftwareEvent::from_bytes(body)?;
                self.native
                    .dibs_event(DibsEvent::Software, event.code, &event.gid, 0, event.info);
            }
            // A later version's.
            _ => {}
        }
        Some(())
    }

    fn on_signals(&self, signals: &Signals) {
        let mut local = self.local.lock();
        let told = local.signal(self.native, signals.base, signals.mask, None);
        self.counters.add(Counter::SignalsDelivered, told.into());
    }

    fn on_granted(&self, granted: &DmbGranted) -> Option<()> {
        let len = u64::from(granted.len);
        let path = match (granted.mode, self.window.as_ref()) {
            (mode::MAPPED, Some(window)) => {
                let page_len = signal_page::SIZE as u64;
                let (offset, signal_page) = (granted.window_offset, granted.signal_offset);
                let sound = offset % 4096 == 0
                    && signal_page % page_len == 0
                    && window.contains(offset, len)
                    && window.contains(signal_page, page_len)
                    && granted.index < 64 * signal_page::PENDING_WORDS as u32;
                sound.then_some(Path::Mapped {
                    offset,
                    signal_page,
                })?
            }
            (mode::COPIED, _) => Path::Copied,
            _ => return None,
        };
        let grant = Grant {
            token: granted.token,
            owner: granted.gid,
            len: granted.len,
            index: granted.index,
            path,
        };
        if self.grants.lock().insert(grant).is_err() {
            // The connection will fail at its first write, and others go on.
            log_warn!(self, "no memory for a peer's DMB");
        }
        Some(())
    }

    fn on_unregistered(&self, gone: &DmbUnregistered) {
        self.grants.lock().remove(gone.token);
        self.native.dibs_event(
            DibsEvent::Buffer,
            BUFFER_UNREGISTERED,
            &gone.gid,
            gone.token,
            0,
        );
    }

    fn on_peer_gone(&self, gone: &PeerGone) {
        log_info!(self, "peer {} is gone", Uuid(&gone.gid));
        self.grants.lock().remove_owner(&gone.gid);
        let gone = Gone {
            gid: gone.gid,
            instance: gone.instance,
        };
        if self.peers.lock().note_gone(gone).is_err() {
            log_warn!(
                self,
                "no memory to forget a peer; its part of the window stays used"
            );
        }
        self.native
            .dibs_event(DibsEvent::Device, DEVICE_DISABLED, &gone.gid, 0, 0);
        self.native.work_queue(Work::Reap, 1);
    }
}
