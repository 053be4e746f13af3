// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Events of the device, and the buffers they come in.
//!
//! Invariant: a buffer is either at the device or here; its bytes are read before it goes back.

use std::sync::Arc;

use ism_abi::{
    DmbGranted, DmbUnregistered, EVENT_SIZE, EventHeader, PeerGone, Signals, SoftwareEvent, event,
};

use crate::error::{Error, Result};
use crate::memory::GuestRam;
use crate::virtqueue::{Buffer, Used, Virtqueue};

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// DMBs of this member have been written.
    Signals(Signals),
    /// A peer lets this member write a DMB.
    Granted(DmbGranted),
    /// A granted DMB is gone.
    Unregistered(DmbUnregistered),
    /// A peer is gone.
    PeerGone(PeerGone),
    /// A peer sent a software event.
    Software(SoftwareEvent),
}

impl Event {
    /// Reads an event; an error unless every reserved byte is zero and the kind is known.
    pub fn from_bytes(bytes: &[u8; EVENT_SIZE]) -> Result<Self> {
        let broken = |what: &str| Error::Device(format!("an event with {what}: {bytes:02x?}"));
        let header = EventHeader::from_bytes(bytes).ok_or_else(|| broken("no header"))?;
        let body = bytes.get(EventHeader::SIZE..).unwrap_or_default();
        let (event, len) = match header.event {
            event::SIGNALS => (Signals::from_bytes(body).map(Self::Signals), Signals::SIZE),
            event::DMB_GRANTED => {
                (DmbGranted::from_bytes(body).map(Self::Granted), DmbGranted::SIZE)
            }
            event::DMB_UNREGISTERED => {
                (DmbUnregistered::from_bytes(body).map(Self::Unregistered), DmbUnregistered::SIZE)
            }
            event::PEER_GONE => (PeerGone::from_bytes(body).map(Self::PeerGone), PeerGone::SIZE),
            event::SOFTWARE_EVENT => {
                (SoftwareEvent::from_bytes(body).map(Self::Software), SoftwareEvent::SIZE)
            }
            _ => (None, 0),
        };
        let event = event.ok_or_else(|| broken("an unknown kind"))?;
        let rest_is_zero = body.iter().skip(len).all(|byte| *byte == 0);
        if header.reserved != [0; 6] || !rest_is_zero || !event.reserved_is_zero() {
            return Err(broken("reserved bytes that are not zero"));
        }
        Ok(event)
    }

    fn reserved_is_zero(&self) -> bool {
        match self {
            Self::Signals(body) => body.reserved == 0,
            Self::Granted(body) => body.reserved == [0; 7],
            Self::Software(body) => body.reserved == 0,
            Self::Unregistered(_) | Self::PeerGone(_) => true,
        }
    }
}

/// The buffers of the event queue: one descriptor each.
#[derive(Debug)]
pub(crate) struct EventBuffers {
    ram: Arc<GuestRam>,
    base: u64,
    count: u16,
    /// Buffer of each head in flight.
    at_device: Vec<Option<u64>>,
    /// Buffers held back from the device.
    here: Vec<u64>,
    return_at_once: bool,
}

impl EventBuffers {
    pub(crate) fn new(ram: &Arc<GuestRam>, count: u16) -> Result<Self> {
        let base = ram.allocate(room(count))?;
        let mut buffers = Self {
            ram: ram.clone(),
            base,
            count,
            at_device: Vec::new(),
            here: Vec::new(),
            return_at_once: true,
        };
        buffers.forget();
        Ok(buffers)
    }

    /// Takes all buffers back: the device was reset.
    pub(crate) fn forget(&mut self) {
        self.at_device = vec![None; usize::from(self.count)];
        self.here = (0..u64::from(self.count)).map(|n| self.base + n * EVENT_SIZE as u64).collect();
    }

    /// Gives the device every buffer that is here.
    pub(crate) fn post_all(&mut self, queue: &mut Virtqueue) -> Result<()> {
        let mut added = 0;
        while let Some(address) = self.here.pop() {
            self.post(queue, address)?;
            added += 1;
        }
        if added > 0 { queue.notify(added) } else { Ok(()) }
    }

    pub(crate) fn return_at_once(&mut self, queue: &mut Virtqueue, at_once: bool) -> Result<()> {
        self.return_at_once = at_once;
        if at_once { self.post_all(queue) } else { Ok(()) }
    }

    /// Reads a used buffer.
    pub(crate) fn take(&mut self, queue: &mut Virtqueue, used: Used) -> Result<Event> {
        let slot = self.at_device.get_mut(usize::from(used.head)).and_then(Option::take);
        let address = slot.ok_or_else(|| Error::Device("an event in no buffer".into()))?;
        let mut bytes = [0; EVENT_SIZE];
        self.ram.bytes(address, EVENT_SIZE as u64)?.read(0, &mut bytes)?;
        if self.return_at_once {
            self.post(queue, address)?;
            queue.notify(1)?;
        } else {
            self.here.push(address);
        }
        if usize::try_from(used.written).ok() != Some(EVENT_SIZE) {
            return Err(Error::Device(format!("an event of {} bytes", used.written)));
        }
        Event::from_bytes(&bytes)
    }

    fn post(&mut self, queue: &mut Virtqueue, address: u64) -> Result<()> {
        let len = u32::try_from(EVENT_SIZE).map_err(|_| Error::RingFull)?;
        let head = queue.add(&[Buffer::writable(address, len)])?;
        if let Some(slot) = self.at_device.get_mut(usize::from(head)) {
            *slot = Some(address);
        }
        Ok(())
    }
}

fn room(count: u16) -> u64 {
    u64::from(count) * EVENT_SIZE as u64
}
