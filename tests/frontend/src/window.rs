// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The window: address space the device maps memory into (shared memory region 1).
//!
//! Invariant: the whole window is reserved without access from start to end; an [`Extent`] is the
//! only way to its bytes and keeps them mapped, and its range occupied, for as long as it lives.
#![expect(unsafe_code, reason = "mapping at a fixed address has no safe interface")]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::fstat;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use vm_memory::VolatileSlice;

use crate::error::{Error, Result};

/// Offsets and lengths of mappings are multiples of this.
const PAGE: u64 = 4096;

/// Reserved address space; unmapped when the last extent in it is gone.
#[derive(Debug)]
struct Reservation {
    base: usize,
    len: usize,
    /// Ranges (offset, bytes) of all extents that live.
    occupied: Mutex<Vec<(u64, u64)>>,
}

impl Reservation {
    fn new(len: usize) -> Result<Self> {
        // SAFETY: the kernel chooses the place, so no memory in use is replaced.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let base = base.map_err(Error::os("reserving the window"))?;
        Ok(Self { base: base.expose_provenance(), len, occupied: Mutex::default() })
    }

    fn occupied(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        // Changed by single calls only, so a panic elsewhere leaves the list whole.
        self.occupied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let base = ptr::with_exposed_provenance_mut(self.base);
        // SAFETY: `new` mapped exactly this range and nothing refers to it: each extent holds an
        // `Arc` of this reservation. A failure leaks address space only.
        let _ = unsafe { munmap(base, self.len) };
    }
}

/// A mapping in the window.
#[derive(Debug)]
pub struct Extent {
    window: Arc<Reservation>,
    /// Place in the window, in bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// First byte's place in the file.
    pub file_offset: u64,
    /// The file's device and inode numbers: its identity.
    pub inode: (u64, u64),
    /// The file.
    pub file: File,
    offset_in_process: usize,
    size: usize,
}

impl Extent {
    /// The extent's first byte in this process: vhost-user gives addresses so.
    pub fn address_in_process(&self) -> u64 {
        (self.window.base + self.offset_in_process) as u64
    }

    /// The extent's bytes.
    pub fn bytes(&self) -> VolatileSlice<'_> {
        let base = ptr::with_exposed_provenance_mut(self.window.base + self.offset_in_process);
        // SAFETY: `Window::map` checked that the range is inside the reservation and mapped it
        // readable and writable; it stays so until `drop`, and the slice borrows `self`.
        unsafe { VolatileSlice::new(base, self.size) }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        let place = ptr::with_exposed_provenance_mut(self.window.base + self.offset_in_process);
        let mut occupied = self.window.occupied();
        // SAFETY: replaces this extent's own range, to which no slice can be left (they borrow
        // the extent) and which nobody else maps while it is in the occupied list.
        let reserved = unsafe {
            mmap_anonymous(
                place,
                self.size,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )
        };
        // If it fails (no memory for the kernel), the range stays mapped and so occupied.
        if reserved.is_ok() {
            occupied.retain(|range| *range != (self.offset, self.len));
        }
    }
}

/// The window of one front-end.
#[derive(Debug)]
pub struct Window {
    reservation: Arc<Reservation>,
    extents: Mutex<Vec<Arc<Extent>>>,
}

impl Window {
    /// Reserves `len` bytes.
    pub fn reserve(len: u64) -> Result<Self> {
        let len = usize::try_from(len).map_err(|_| Error::NoRam(len))?;
        Ok(Self { reservation: Arc::new(Reservation::new(len)?), extents: Mutex::default() })
    }

    /// Bytes of the window.
    pub fn len(&self) -> u64 {
        self.reservation.len as u64
    }

    /// Whether the window has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.reservation.len == 0
    }

    /// Maps `len` bytes of a file at `offset`, as QEMU does for SHMEM_MAP: only whole pages inside
    /// the window, and never over another mapping.
    pub fn map(
        &self,
        fd: &dyn AsRawFd,
        file_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<Arc<Extent>> {
        let outside = || Error::OutOfBounds { offset, len, size: self.len() };
        let end = offset.checked_add(len).filter(|end| *end <= self.len()).ok_or_else(outside)?;
        if len == 0 || [offset, len, file_offset].iter().any(|n| n % PAGE != 0) {
            return Err(Error::Device(format!(
                "SHMEM_MAP of {len:#x} bytes at {offset:#x} from {file_offset:#x}: not whole pages"
            )));
        }
        let mut occupied = self.reservation.occupied();
        if occupied.iter().any(|(other, size)| *other < end && offset < other + size) {
            return Err(Error::Device(format!(
                "SHMEM_MAP of {len:#x} bytes at {offset:#x} over another mapping"
            )));
        }
        // SAFETY: the caller's object owns the descriptor and is borrowed for this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        let stat = fstat(fd).map_err(Error::os("fstat of a SHMEM_MAP descriptor"))?;
        let file = fd.try_clone_to_owned().map_err(Error::io("duplicating a descriptor"))?;
        let file = File::from(file);
        let offset_in_process = usize::try_from(offset).map_err(|_| outside())?;
        let size = usize::try_from(len).map_err(|_| outside())?;
        let place = ptr::with_exposed_provenance_mut(self.reservation.base + offset_in_process);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range is inside the reservation and no living extent's (both checked above,
        // the latter under the lock that is still held).
        let mapped = unsafe { mmap(place, size, access, flags, fd, file_offset) };
        mapped.map_err(Error::os("mapping a SHMEM_MAP descriptor"))?;
        let extent = Arc::new(Extent {
            window: self.reservation.clone(),
            offset,
            len,
            file_offset,
            inode: (stat.st_dev, stat.st_ino),
            file,
            offset_in_process,
            size,
        });
        occupied.push((offset, len));
        drop(occupied);
        self.lock().push(extent.clone());
        Ok(extent)
    }

    /// Forgets the mapping of exactly this range, as QEMU does for SHMEM_UNMAP; it is unmapped when
    /// its last user, the caller included, is gone.
    pub fn unmap(&self, offset: u64, len: u64) -> Result<Arc<Extent>> {
        let mut extents = self.lock();
        let found = extents.iter().position(|e| e.offset == offset && e.len == len);
        Ok(extents.swap_remove(found.ok_or(Error::NotMapped { offset, len })?))
    }

    /// The extent that holds `len` bytes at `offset`.
    pub fn find(&self, offset: u64, len: u64) -> Result<Arc<Extent>> {
        let missing = || Error::NotMapped { offset, len };
        let end = offset.checked_add(len).ok_or_else(missing)?;
        let extents = self.lock();
        let found = extents.iter().find(|e| e.offset <= offset && end <= e.offset + e.len);
        found.cloned().ok_or_else(missing)
    }

    /// All mappings.
    pub fn extents(&self) -> Vec<Arc<Extent>> {
        self.lock().clone()
    }

    /// Forgets every mapping, as QEMU does when the guest resets the device; each is unmapped when
    /// its last user is gone.
    pub fn clear(&self) -> Vec<Arc<Extent>> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Extent>>> {
        // As for `Reservation::occupied`.
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
