// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Split virtqueues, driver side (virtio 1.3, section 2.7), in a memory file that only the daemon shares.
//!
//! Invariant: a descriptor is free or in one chain that the daemon holds; what the daemon writes into the used
//! ring is checked before it is believed.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};
use smc_ring::{Mapping, View, memory_file};

use super::{CONTROL_ROOM, QUEUES};
use crate::error::{Error, Result};
use crate::own::Own;

const DESC_F_NEXT: u16 = 1;
const DESC_F_WRITE: u16 = 2;
const AVAIL_F_NO_INTERRUPT: u16 = 1;
const USED_F_NO_NOTIFY: u16 = 1;
/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;
/// Bytes of an element of the used ring.
const ELEMENT: usize = 8;
/// The rings begin with le16 flags and le16 index.
const RING: usize = 4;
const PAGE: usize = 4096;

/// The driver's memory, which the daemon maps.
#[derive(Debug)]
pub(super) struct Ram {
    file: Own,
    len: usize,
}

impl Ram {
    /// Address of the first byte as the daemon is told; not 0, so that a forgotten address is outside.
    pub(super) const BASE: u64 = 0x10_0000;

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }
}

/// A part of a chain, in the queue's data area.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffer {
    at: u32,
    len: u32,
    device_writes: bool,
}

impl Buffer {
    /// Bytes that the device reads.
    pub(super) fn read(at: u32, len: u32) -> Self {
        Self { at, len, device_writes: false }
    }

    /// Bytes that the device writes.
    pub(super) fn write(at: u32, len: u32) -> Self {
        Self { at, len, device_writes: true }
    }
}

/// A chain that the device has used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    /// Its first descriptor.
    pub(super) head: u16,
    /// Bytes that the device says it wrote.
    pub(super) written: u32,
}

/// Where the parts of a queue are in the memory.
struct Layout {
    descriptors: usize,
    available: usize,
    used: usize,
    data: usize,
    end: usize,
}

impl Layout {
    /// The layout of a queue of `size` descriptors from `at` on.
    fn new(at: usize, size: u16, data: usize) -> Self {
        let size = usize::from(size);
        let available = at + DESCRIPTOR * size;
        let used = (available + RING + 2 * size + 2).next_multiple_of(4);
        let data_at = (used + RING + ELEMENT * size + 2).next_multiple_of(8);
        let end = (data_at + data).next_multiple_of(PAGE);
        Self { descriptors: at, available, used, data: data_at, end }
    }
}

/// Bytes of a queue's data area: room for a request and its reply, or for the longest event in each buffer.
const fn data_len(size: u16) -> usize {
    let events = size as usize * ism_abi::EVENT_SIZE;
    let control = 2 * CONTROL_ROOM as usize;
    if events > control { events } else { control }
}

/// All queues of the driver, in a memory of their own.
pub(super) fn all() -> Result<([Queue; QUEUES.len()], Ram)> {
    let mut at = 0;
    let layouts = QUEUES.map(|(_, size)| {
        let layout = Layout::new(at, size, data_len(size));
        at = layout.end;
        layout
    });
    let file =
        memory_file("ism-client", at as u64).map_err(Error::io("making memory for queues"))?;
    let memory = View::new(Arc::new(Mapping::new(&file, 0, at)?));
    let mut queues = Vec::with_capacity(QUEUES.len());
    for ((index, size), layout) in QUEUES.into_iter().zip(&layouts) {
        queues.push(Queue::new(index, size, layout, &memory)?);
    }
    let queues = queues.try_into().map_err(|_| Error::Device("no queues".into()))?;
    Ok((queues, Ram { file: Own::new(file), len: at }))
}

/// One queue: its rings, its doorbell and its interrupt.
#[derive(Debug)]
pub(super) struct Queue {
    index: u16,
    size: u16,
    addresses: [u64; 3],
    descriptors: View,
    available: View,
    used: View,
    data: View,
    data_address: u64,
    /// Free descriptors.
    free: Vec<u16>,
    /// For a head in flight: its chain's descriptors; empty: not in flight.
    chains: Vec<Vec<u16>>,
    next_available: u16,
    last_used: u16,
    kick: Own,
    call: Own,
}

impl Queue {
    fn new(index: u16, size: u16, layout: &Layout, memory: &View) -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd = || eventfd(0, flags).map(Own::new).map_err(Error::io("eventfd"));
        let address = |at: usize| Ram::BASE + at as u64;
        let part = |from: usize, to: usize| memory.part(from, to - from);
        Ok(Self {
            index,
            size,
            addresses: [layout.descriptors, layout.available, layout.used].map(address),
            descriptors: part(layout.descriptors, layout.available)?,
            available: part(layout.available, layout.used)?,
            used: part(layout.used, layout.data)?,
            data: part(layout.data, layout.end)?,
            data_address: address(layout.data),
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); size.into()],
            next_available: 0,
            last_used: 0,
            kick: eventfd()?,
            call: eventfd()?,
        })
    }

    /// The queue's number.
    pub(super) fn index(&self) -> u16 {
        self.index
    }

    /// Descriptors.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Addresses of descriptors, available ring and used ring, as the daemon is told.
    pub(super) fn addresses(&self) -> [u64; 3] {
        self.addresses
    }

    /// The doorbell.
    pub(super) fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// The interrupt.
    pub(super) fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Another descriptor of the interrupt.
    pub(super) fn dup_call(&self) -> Result<Own> {
        Own::copy(&self.call).map_err(Error::io("dup"))
    }

    /// The bytes that buffers lie in.
    pub(super) fn data(&self) -> &View {
        &self.data
    }

    /// The descriptor that the next chain of one buffer gets.
    pub(super) fn free(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Makes a chain available. The device is not told: see [`Queue::kick`].
    pub(super) fn give(&mut self, buffers: &[Buffer]) -> Result<()> {
        let left = self.free.len().checked_sub(buffers.len());
        let left = left.ok_or_else(|| Error::Device("it keeps all buffers".into()))?;
        let chain = self.free.split_off(left);
        for (n, (buffer, index)) in buffers.iter().zip(&chain).enumerate() {
            self.describe(*index, buffer, chain.get(n + 1).copied())?;
        }
        let Some(head) = chain.first().copied() else { return Ok(()) };
        if let Some(slot) = self.chains.get_mut(usize::from(head)) {
            *slot = chain;
        }
        self.offer(head)
    }

    /// Makes every descriptor a buffer of `len` bytes that the device writes, and available.
    pub(super) fn give_all(&mut self, len: u32) -> Result<()> {
        while let Some(head) = self.free() {
            self.give(&[Buffer::write(u32::from(head) * len, len)])?;
        }
        Ok(())
    }

    fn describe(&self, index: u16, buffer: &Buffer, next: Option<u16>) -> Result<()> {
        let mut bytes = [0; DESCRIPTOR];
        let mut flags = if buffer.device_writes { DESC_F_WRITE } else { 0 };
        flags |= if next.is_some() { DESC_F_NEXT } else { 0 };
        let address = (self.data_address + u64::from(buffer.at)).to_le_bytes();
        let fields = address.into_iter().chain(buffer.len.to_le_bytes());
        let fields = fields.chain(flags.to_le_bytes()).chain(next.unwrap_or(0).to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
        Ok(self.descriptors.write(usize::from(index) * DESCRIPTOR, &bytes)?)
    }

    fn offer(&mut self, head: u16) -> Result<()> {
        let slot = usize::from(self.next_available % self.size);
        let entry = self.available.u16(RING + 2 * slot)?;
        entry.store(head.to_le(), Ordering::Relaxed);
        self.next_available = self.next_available.wrapping_add(1);
        self.available.u16(2)?.store(self.next_available.to_le(), Ordering::Release);
        Ok(())
    }

    /// Tells the device that chains are available, if it wants to be told.
    pub(super) fn kick(&self) -> Result<()> {
        fence(Ordering::SeqCst); // The index must be visible before the device's wish is read.
        if u16::from_le(self.used.u16(0)?.load(Ordering::Relaxed)) & USED_F_NO_NOTIFY == 0 {
            // A full counter is being looked at.
            let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// The next chain that the device has used.
    pub(super) fn used(&mut self) -> Result<Option<Used>> {
        let index = u16::from_le(self.used.u16(2)?.load(Ordering::Acquire));
        match index.wrapping_sub(self.last_used) {
            0 => return Ok(None),
            new if new > self.size => {
                return Err(Error::Device(format!("its used index jumped by {new}")));
            }
            _ => {}
        }
        let slot = RING + ELEMENT * usize::from(self.last_used % self.size);
        let head = u32::from_le(self.used.u32(slot)?.load(Ordering::Relaxed));
        let written = u32::from_le(self.used.u32(slot + 4)?.load(Ordering::Relaxed));
        self.last_used = self.last_used.wrapping_add(1);
        let unknown = || Error::Device(format!("used element {head} is no chain in flight"));
        let head = u16::try_from(head).map_err(|_| unknown())?;
        let chain = self.chains.get_mut(usize::from(head)).ok_or_else(unknown)?;
        if chain.is_empty() {
            return Err(unknown());
        }
        // So that the head is the next that is free.
        self.free.extend(chain.drain(..).rev());
        Ok(Some(Used { head, written }))
    }

    /// Whether the device has used nothing that was not seen.
    pub(super) fn is_quiet(&self) -> Result<bool> {
        Ok(u16::from_le(self.used.u16(2)?.load(Ordering::Acquire)) == self.last_used)
    }

    /// Asks for the interrupt at the next used chain, or for none.
    pub(super) fn want_call(&self, wanted: bool) -> Result<()> {
        let flags = if wanted { 0 } else { AVAIL_F_NO_INTERRUPT };
        self.available.u16(0)?.store(flags.to_le(), Ordering::Relaxed);
        fence(Ordering::SeqCst); // The wish must be visible before the used index is read again.
        Ok(())
    }

    /// Makes the interrupt's descriptor unreadable.
    pub(super) fn drain(&self) {
        // Empty if nothing came.
        let _ = rustix::io::read(&self.call, &mut [0; 8]);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// What a daemon writes into the used ring: elements from the start on, and the index.
    fn use_up(queue: &Queue, elements: &[(u32, u32)], index: u16) {
        for (n, (head, written)) in elements.iter().enumerate() {
            let at = RING + ELEMENT * n;
            queue.used.write(at, &head.to_le_bytes()).unwrap();
            queue.used.write(at + 4, &written.to_le_bytes()).unwrap();
        }
        queue.used.u16(2).unwrap().store(index.to_le(), Ordering::Release);
    }

    fn control() -> Queue {
        let ([control, ..], _ram) = all().unwrap();
        control
    }

    #[test]
    fn chains_are_described_as_virtio_wants_them() {
        let mut queue = control();
        queue.give(&[Buffer::read(0, 24), Buffer::write(256, 56)]).unwrap();
        let head =
            usize::from(u16::from_le(queue.available.u16(RING).unwrap().load(Ordering::Relaxed)));
        assert_eq!(u16::from_le(queue.available.u16(2).unwrap().load(Ordering::Relaxed)), 1);
        let mut first = [0; DESCRIPTOR];
        queue.descriptors.read(head * DESCRIPTOR, &mut first).unwrap();
        assert_eq!(first[..8], queue.data_address.to_le_bytes());
        assert_eq!(first[8..14], [24, 0, 0, 0, 1, 0], "24 bytes, NEXT");
        let next = usize::from(u16::from_le_bytes([first[14], first[15]]));
        let mut second = [0; DESCRIPTOR];
        queue.descriptors.read(next * DESCRIPTOR, &mut second).unwrap();
        assert_eq!(second[..8], (queue.data_address + 256).to_le_bytes());
        assert_eq!(second[8..14], [56, 0, 0, 0, 2, 0], "56 bytes, WRITE");
    }

    #[test]
    fn what_was_used_can_be_given_again() {
        let mut queue = control();
        for round in 0..100u16 {
            queue.give(&[Buffer::read(0, 8), Buffer::write(256, 8)]).unwrap();
            assert!(queue.used().unwrap().is_none());
            let slot = usize::from(round % queue.size);
            let entry = RING + 2 * slot;
            let head = u16::from_le(queue.available.u16(entry).unwrap().load(Ordering::Relaxed));
            let at = RING + ELEMENT * slot;
            queue.used.write(at, &u32::from(head).to_le_bytes()).unwrap();
            queue.used.write(at + 4, &8u32.to_le_bytes()).unwrap();
            queue.used.u16(2).unwrap().store((round + 1).to_le(), Ordering::Release);
            let used = queue.used().unwrap().unwrap();
            assert_eq!((used.head, used.written), (head, 8));
            assert_eq!(queue.free(), Some(head), "the head is the next that is free");
        }
    }

    #[test]
    fn a_lying_used_ring_is_an_error() {
        let table: [(&[(u32, u32)], u16); 5] = [
            (&[(7, 0)], 1), // no chain in flight
            (&[(4, 0)], 1), // past the table
            (&[(u32::MAX, 0)], 1),
            (&[], 5),        // more than the queue has
            (&[], u16::MAX), // backwards
        ];
        for (elements, index) in table {
            let mut queue = control();
            queue.give(&[Buffer::read(0, 8)]).unwrap();
            use_up(&queue, elements, index);
            assert!(queue.used().is_err(), "{elements:?} {index}");
        }
        // The same chain twice.
        let mut queue = control();
        queue.give(&[Buffer::read(0, 8)]).unwrap();
        use_up(&queue, &[(0, 0), (0, 0)], 2);
        assert!(queue.used().is_ok_and(|used| used.is_some()));
        assert!(queue.used().is_err());
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut queue = control();
        for _ in 0..queue.size {
            queue.give(&[Buffer::read(0, 8)]).unwrap();
        }
        assert!(queue.free().is_none());
        assert!(queue.give(&[Buffer::read(0, 8)]).is_err());
    }
}
