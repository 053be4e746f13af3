// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A split virtqueue, driver side (virtio 1.3, section 2.7).
//!
//! Invariant: a descriptor is either in the free list or in one chain that the device holds; what
//! the device writes into the used ring is checked before it is believed.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use vhost::VringConfigData;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use std::os::fd::AsRawFd;

use crate::error::{Error, Result};
use crate::memory::{GuestRam, PAGE, SharedBytes};

/// Descriptor flag: `next` is valid.
pub const DESC_F_NEXT: u16 = 1;
/// Descriptor flag: the device writes the buffer.
pub const DESC_F_WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const DESC_F_INDIRECT: u16 = 4;

const DESCRIPTOR_SIZE: u64 = 16;
const USED_ELEMENT_SIZE: u64 = 8;
/// The rings start with le16 flags, le16 idx.
const RING: u64 = 4;
const AVAIL_F_NO_INTERRUPT: u16 = 1;
const USED_F_NO_NOTIFY: u16 = 1;

/// A part of a chain: guest-physical address, bytes, and who writes it.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes it (else it reads it).
    pub device_writes: bool,
}

impl Buffer {
    /// A buffer that the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        Self { address, len, device_writes: false }
    }

    /// A buffer that the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        Self { address, len, device_writes: true }
    }
}

/// A chain that the device has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain's first descriptor.
    pub head: u16,
    /// Bytes the device says it wrote.
    pub written: u32,
}

/// One queue: its rings in guest RAM, its doorbell and its interrupt.
#[derive(Debug)]
pub struct Virtqueue {
    ram: Arc<GuestRam>,
    size: u16,
    descriptors_at: u64,
    avail_at: u64,
    used_at: u64,
    descriptors: SharedBytes,
    avail: SharedBytes,
    used: SharedBytes,
    event_idx: bool,
    /// Free descriptors.
    free: Vec<u16>,
    /// For a head in flight: the chain's descriptors.
    chains: Vec<Vec<u16>>,
    next_avail: u16,
    last_used: u16,
    /// The doorbell.
    kick: EventFd,
    /// The interrupt.
    call: EventFd,
    waiter: Epoll,
}

impl Virtqueue {
    /// A queue of `size` descriptors (a power of two), its rings in fresh RAM.
    pub fn new(ram: &Arc<GuestRam>, size: u16, event_idx: bool) -> Result<Self> {
        let n = u64::from(size);
        let table = n * DESCRIPTOR_SIZE;
        // Each ring ends with the le16 of EVENT_IDX.
        let (avail_len, used_len) = (RING + 2 * n + 2, RING + USED_ELEMENT_SIZE * n + 2);
        let descriptors_at = ram.allocate(table)?;
        let avail_at = ram.allocate(avail_len)?;
        let used_at = ram.allocate(used_len)?;
        let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::io("eventfd"));
        let (kick, call) = (eventfd()?, eventfd()?);
        let waiter = Epoll::new().map_err(Error::io("epoll_create"))?;
        waiter
            .ctl(ControlOperation::Add, call.as_raw_fd(), EpollEvent::new(EventSet::IN, 0))
            .map_err(Error::io("epoll_ctl"))?;
        Ok(Self {
            ram: ram.clone(),
            size,
            descriptors_at,
            avail_at,
            used_at,
            descriptors: ram.bytes(descriptors_at, table)?,
            avail: ram.bytes(avail_at, avail_len)?,
            used: ram.bytes(used_at, used_len)?,
            event_idx,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            next_avail: 0,
            last_used: 0,
            kick,
            call,
            waiter,
        })
    }

    /// What SET_VRING_ADDR and SET_VRING_NUM say about the queue.
    pub fn config(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: self.ram.address_in_process(self.descriptors_at),
            used_ring_addr: self.ram.address_in_process(self.used_at),
            avail_ring_addr: self.ram.address_in_process(self.avail_at),
            log_addr: None,
        }
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The doorbell's eventfd.
    pub fn kick_fd(&self) -> &EventFd {
        &self.kick
    }

    /// The interrupt's eventfd.
    pub fn call_fd(&self) -> &EventFd {
        &self.call
    }

    /// Descriptors not in flight.
    pub fn free_descriptors(&self) -> usize {
        self.free.len()
    }

    /// The descriptor with which the next chain of one buffer begins, if one is free.
    pub fn next_free(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Makes a chain available; its head. The device is not told: see [`Virtqueue::notify`].
    pub fn add(&mut self, buffers: &[Buffer]) -> Result<u16> {
        if buffers.is_empty() || buffers.len() > self.free.len() {
            return Err(Error::RingFull);
        }
        let chain = self.free.split_off(self.free.len() - buffers.len());
        for (at, (buffer, index)) in buffers.iter().zip(&chain).enumerate() {
            let next = chain.get(at + 1).copied();
            let mut flags = if buffer.device_writes { DESC_F_WRITE } else { 0 };
            flags |= if next.is_some() { DESC_F_NEXT } else { 0 };
            self.write_descriptor(*index, buffer.address, buffer.len, flags, next.unwrap_or(0))?;
        }
        let head = chain.first().copied().ok_or(Error::RingFull)?;
        if let Some(slot) = self.chains.get_mut(usize::from(head)) {
            *slot = chain;
        }
        self.write_avail_entry(self.next_avail, head)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        self.avail.store(2, self.next_avail.to_le(), Ordering::Release)?;
        Ok(head)
    }

    /// Rings the doorbell if the device asks for it, after `added` chains were made available.
    pub fn notify(&self, added: u16) -> Result<()> {
        fence(Ordering::SeqCst); // The index must be visible before the device's wish is read.
        let wanted = if self.event_idx {
            let at = RING + USED_ELEMENT_SIZE * u64::from(self.size);
            let event = u16::from_le(self.used.load(at, Ordering::Relaxed)?);
            // vring_need_event(): was `event` passed by one of the chains added?
            self.next_avail.wrapping_sub(event).wrapping_sub(1) < added
        } else {
            u16::from_le(self.used.load(0, Ordering::Relaxed)?) & USED_F_NO_NOTIFY == 0
        };
        if wanted { self.ring() } else { Ok(()) }
    }

    /// Rings the doorbell in any case.
    pub fn ring(&self) -> Result<()> {
        self.kick.write(1).map_err(Error::io("ringing a doorbell"))
    }

    /// The next chain the device has used, if there is one.
    pub fn poll(&mut self) -> Result<Option<Used>> {
        let index = u16::from_le(self.used.load(2, Ordering::Acquire)?);
        let pending = index.wrapping_sub(self.last_used);
        if pending == 0 {
            return Ok(None);
        }
        if pending > self.size {
            return Err(Error::Device(format!("the used index jumped by {pending}")));
        }
        let slot = u64::from(self.last_used % self.size);
        let at = RING + USED_ELEMENT_SIZE * slot;
        let head = u32::from_le(self.used.load(at, Ordering::Relaxed)?);
        let written = u32::from_le(self.used.load(at + 4, Ordering::Relaxed)?);
        self.last_used = self.last_used.wrapping_add(1);
        let unknown = || Error::Device(format!("used element {head} is no chain in flight"));
        let head = u16::try_from(head).map_err(|_| unknown())?;
        let chain = self.chains.get_mut(usize::from(head)).ok_or_else(unknown)?;
        if chain.is_empty() {
            return Err(unknown());
        }
        self.free.append(chain);
        Ok(Some(Used { head, written }))
    }

    /// Waits for the next used chain until `deadline`, asleep; `None` if none came.
    pub fn wait(&mut self, deadline: Instant) -> Result<Option<Used>> {
        loop {
            self.enable_interrupts(true)?;
            let used = self.poll()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if used.is_some() || left.is_zero() {
                self.enable_interrupts(false)?;
                return Ok(used);
            }
            // Rounded up: a wait of 0 ms would spin for the last millisecond.
            let millis = i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
            match self.waiter.wait(millis, &mut [EpollEvent::default()]) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(Error::io("waiting for an interrupt")(error));
                }
                _ => {}
            }
            // Empty if nothing came; it does not block.
            let _ = self.call.read();
        }
    }

    /// Asks the device for an interrupt at the next used chain, or for none.
    pub fn enable_interrupts(&self, enable: bool) -> Result<()> {
        if self.event_idx {
            // Half the index space away is as good as never.
            let event = self.last_used.wrapping_sub(if enable { 0 } else { 0x8000 });
            self.avail.store(RING + 2 * u64::from(self.size), event.to_le(), Ordering::Relaxed)?;
        } else {
            let flags = if enable { 0 } else { AVAIL_F_NO_INTERRUPT };
            self.avail.store(0, flags.to_le(), Ordering::Relaxed)?;
        }
        fence(Ordering::SeqCst); // The wish must be visible before the used index is read again.
        Ok(())
    }

    // ---- Below: single steps, also for those who do not keep the rules --------------------------

    /// Writes one descriptor.
    pub fn write_descriptor(
        &self,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) -> Result<()> {
        let at = u64::from(index) * DESCRIPTOR_SIZE;
        self.descriptors.store(at, address.to_le(), Ordering::Relaxed)?;
        self.descriptors.store(at + 8, len.to_le(), Ordering::Relaxed)?;
        self.descriptors.store(at + 12, flags.to_le(), Ordering::Relaxed)?;
        self.descriptors.store(at + 14, next.to_le(), Ordering::Relaxed)
    }

    /// Writes the available ring's entry for the running number `position`.
    pub fn write_avail_entry(&self, position: u16, head: u16) -> Result<()> {
        let slot = u64::from(position % self.size);
        self.avail.store(RING + 2 * slot, head.to_le(), Ordering::Relaxed)
    }

    /// Writes the available index as it is, and takes it as this side's own.
    pub fn write_avail_index(&mut self, index: u16) -> Result<()> {
        self.next_avail = index;
        self.avail.store(2, index.to_le(), Ordering::Release)
    }

    /// The number the next available chain gets.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// The descriptor table, to be written at the same time as the device reads it.
    pub fn descriptor_table(&self) -> SharedBytes {
        self.descriptors.clone()
    }

    /// The available ring.
    pub fn avail_ring(&self) -> SharedBytes {
        self.avail.clone()
    }

    /// The used ring.
    pub fn used_ring(&self) -> SharedBytes {
        self.used.clone()
    }
}

impl Drop for Virtqueue {
    fn drop(&mut self) {
        for (address, len) in [
            (self.descriptors_at, self.descriptors.len()),
            (self.avail_at, self.avail.len()),
            (self.used_at, self.used.len()),
        ] {
            self.ram.free(address, len);
        }
    }
}

const _: () = assert!(PAGE.is_multiple_of(DESCRIPTOR_SIZE), "rings are aligned by their page");
