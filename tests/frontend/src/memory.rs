// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest RAM in a memfd, and views of shared bytes.
//!
//! Invariant: a block that [`GuestRam::allocate`] handed out belongs to its holder until it is
//! given back, and a [`SharedBytes`] keeps its memory mapped.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{AtomicAccess, Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use crate::error::{Error, Result};
use crate::window::Extent;

/// Alignment of every block.
pub const PAGE: u64 = 4096;

/// A VM's memory: one memfd, one region of guest-physical addresses from [`GuestRam::BASE`].
#[derive(Debug)]
pub struct GuestRam {
    region: Arc<MmapRegion>,
    file: Arc<File>,
    size: u64,
    /// Free blocks as (address, bytes), in address order, neighbours merged.
    free: Mutex<Vec<(u64, u64)>>,
}

impl GuestRam {
    /// Guest-physical address of the first byte; not 0, so that a forgotten address is outside.
    pub const BASE: u64 = 0x10_0000;

    /// A memfd of `size` bytes, sealed against shrinking and growing (as QEMU's
    /// memory-backend-memfd is) if `sealed`.
    pub fn new(size: u64, sealed: bool) -> Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("ism-frontend-ram", flags).map_err(Error::os("memfd_create"))?;
        ftruncate(&fd, size).map_err(Error::os("sizing the RAM's memfd"))?;
        if sealed {
            let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            fcntl_add_seals(&fd, seals).map_err(Error::os("sealing the RAM's memfd"))?;
        }
        let file = Arc::new(File::from(fd));
        let bytes = usize::try_from(size).map_err(|_| Error::NoRam(size))?;
        let region = MmapRegion::from_file(FileOffset::from_arc(file.clone(), 0), bytes)
            .map_err(|error| Error::Device(format!("mapping the RAM's memfd: {error}")))?;
        let free = Mutex::new(vec![(Self::BASE, size)]);
        Ok(Self { region: Arc::new(region), file, size, free })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The memfd.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The region as it stands in the memory table.
    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: Self::BASE,
            memory_size: self.size,
            userspace_addr: self.address_in_process(Self::BASE),
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// Where `address` is in this process: vhost-user gives ring addresses so.
    pub fn address_in_process(&self, address: u64) -> u64 {
        let base = self.region.as_ptr().expose_provenance() as u64;
        base.wrapping_add(address.wrapping_sub(Self::BASE))
    }

    /// `len` bytes at the guest-physical `address`.
    pub fn bytes(&self, address: u64, len: u64) -> Result<SharedBytes> {
        let all = SharedBytes { memory: Memory::Ram(self.region.clone()), at: 0, len: self.size };
        let offset = address.checked_sub(Self::BASE);
        let offset = offset.ok_or(Error::OutOfBounds { offset: address, len, size: self.size })?;
        all.part(offset, len)
    }

    /// A zeroed block of at least `len` bytes, aligned to [`PAGE`]; its guest-physical address.
    pub fn allocate(&self, len: u64) -> Result<u64> {
        let len = len.max(1).next_multiple_of(PAGE);
        let address = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let block = free.iter_mut().find(|(_, size)| *size >= len);
            let (start, size) = block.ok_or(Error::NoRam(len))?;
            let address = *start;
            *start += len;
            *size -= len;
            free.retain(|(_, size)| *size > 0);
            address
        };
        self.bytes(address, len)?.fill(0)?;
        Ok(address)
    }

    /// Gives back a block of [`GuestRam::allocate`]; `len` as asked for then.
    pub fn free(&self, address: u64, len: u64) {
        let len = len.max(1).next_multiple_of(PAGE);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push((address, len));
        free.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(free.len());
        for (start, size) in free.drain(..) {
            match merged.last_mut() {
                Some((last, bytes)) if *last + *bytes == start => *bytes += size,
                _ => merged.push((start, size)),
            }
        }
        *free = merged;
    }
}

/// What keeps shared bytes mapped.
#[derive(Clone, Debug)]
enum Memory {
    Ram(Arc<MmapRegion>),
    Window(Arc<Extent>),
}

/// A run of bytes that others may change at any time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedBytes {
    memory: Memory,
    at: u64,
    len: u64,
}

impl SharedBytes {
    /// All bytes of a mapping in the window.
    pub fn of_extent(extent: Arc<Extent>) -> Self {
        let len = extent.len;
        Self { memory: Memory::Window(extent), at: 0, len }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes from `offset`.
    pub fn part(&self, offset: u64, len: u64) -> Result<Self> {
        let outside = Error::OutOfBounds { offset, len, size: self.len };
        match offset.checked_add(len) {
            Some(end) if end <= self.len => {
                Ok(Self { memory: self.memory.clone(), at: self.at + offset, len })
            }
            _ => Err(outside),
        }
    }

    /// Copies bytes from `offset` into `buffer`.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let slice = self.slice(offset, buffer.len() as u64)?;
        slice.copy_to(buffer);
        Ok(())
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        let mut copy = vec![0; usize::try_from(self.len).map_err(|_| Error::NoRam(self.len))?];
        self.read(0, &mut copy)?;
        Ok(copy)
    }

    /// Copies `bytes` to `offset`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.slice(offset, bytes.len() as u64)?.copy_from(bytes);
        Ok(())
    }

    /// Sets every byte.
    pub fn fill(&self, byte: u8) -> Result<()> {
        let bytes = [byte; 4096];
        let mut at = 0;
        while at < self.len {
            let n = (self.len - at).min(bytes.len() as u64);
            let part = bytes.get(..usize::try_from(n).unwrap_or(0)).unwrap_or_default();
            self.write(at, part)?;
            at += n;
        }
        Ok(())
    }

    /// Reads an integer atomically; `offset` must be aligned for it.
    pub fn load<T: AtomicAccess>(&self, offset: u64, order: Ordering) -> Result<T> {
        let size = size_of::<T>() as u64;
        let outside = |_| Error::OutOfBounds { offset, len: size, size: self.len };
        self.slice(offset, size)?.load(0, order).map_err(outside)
    }

    /// Writes an integer atomically; `offset` must be aligned for it.
    pub fn store<T: AtomicAccess>(&self, offset: u64, value: T, order: Ordering) -> Result<()> {
        let size = size_of::<T>() as u64;
        let outside = |_| Error::OutOfBounds { offset, len: size, size: self.len };
        self.slice(offset, size)?.store(value, 0, order).map_err(outside)
    }

    /// Runs `work` on the atomic integer at `offset`, which must be aligned for it.
    pub fn atomic<T, R>(&self, offset: u64, work: impl FnOnce(&T) -> R) -> Result<R>
    where
        T: vm_memory::AtomicInteger,
    {
        let size = size_of::<T>() as u64;
        let outside = |_| Error::OutOfBounds { offset, len: size, size: self.len };
        let slice = self.slice(offset, size)?;
        slice.get_atomic_ref::<T>(0).map(work).map_err(outside)
    }

    fn slice(&self, offset: u64, len: u64) -> Result<VolatileSlice<'_>> {
        let outside = || Error::OutOfBounds { offset, len, size: self.len };
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(outside());
        }
        let at = usize::try_from(self.at + offset).map_err(|_| outside())?;
        let len = usize::try_from(len).map_err(|_| outside())?;
        let all = match &self.memory {
            Memory::Ram(region) => region.as_volatile_slice(),
            Memory::Window(extent) => extent.bytes(),
        };
        all.subslice(at, len).map_err(|_| outside())
    }
}
