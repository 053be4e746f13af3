// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptor chains of a driver that may change them while they are parsed.
//!
//! Invariant: a descriptor is read once, into [`Chain`]; every later access uses that copy, and is
//! checked against guest memory when it happens. A chain costs at most [`MAX_DESCRIPTORS`] reads.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::Ordering;

use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions, VolatileSlice};

use crate::memory::GuestMemory;

/// The most descriptors of one chain: 1 MiB in 4 KiB pages, a header and a reply.
pub const MAX_DESCRIPTORS: usize = 258;

/// Why a chain is not served. The driver gets it back with nothing written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// More than [`MAX_DESCRIPTORS`], or a loop.
    TooLong,
    /// A descriptor says that another follows, and none can be read.
    Broken,
    /// A device-readable descriptor after a device-writable one (virtio 1.3, 2.7.4.2).
    Order,
    /// A buffer outside guest memory.
    Memory,
    /// Fewer device-readable bytes than the request has.
    Short,
    /// Fewer device-writable bytes than the reply needs.
    NoRoom,
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "a descriptor chain is too long or loops",
            Self::Broken => "a descriptor chain breaks off",
            Self::Order => "a readable descriptor follows a writable one",
            Self::Memory => "a buffer is not in guest memory",
            Self::Short => "a request is too short",
            Self::NoRoom => "there is no room for the reply",
        })
    }
}

impl std::error::Error for ChainError {}

#[derive(Clone, Copy, Debug)]
struct Piece {
    at: GuestAddress,
    len: u32,
}

/// One descriptor chain, read once. Kept and refilled, so that serving allocates nothing.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Piece>,
    writable: Vec<Piece>,
}

/// What [`Chain::pop`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Popped {
    /// No buffer is available.
    Nothing,
    /// The chain has been read.
    Chain,
    /// The next buffer cannot be served; `Chain::head` is still right.
    Bad(ChainError),
    /// The ring itself cannot be read, or says that it has more buffers than it is long. Nothing is
    /// taken from it as long as that is so.
    BadRing,
}

impl Chain {
    /// Takes the next available buffer from `queue` and reads its descriptors.
    pub fn pop(&mut self, queue: &mut Queue, memory: &GuestMemory) -> Popped {
        let chain = match queue.iter(memory) {
            Ok(mut available) => available.next(),
            Err(_) => return Popped::BadRing,
        };
        match chain {
            None => Popped::Nothing,
            Some(chain) => match self.read(chain, queue.size()) {
                Ok(()) => Popped::Chain,
                Err(error) => Popped::Bad(error),
            },
        }
    }

    fn read<M>(&mut self, chain: DescriptorChain<M>, queue_size: u16) -> Result<(), ChainError>
    where
        M: Deref<Target = GuestMemory>,
    {
        self.head = chain.head_index();
        self.readable.clear();
        self.writable.clear();
        if self.head >= queue_size {
            return Err(ChainError::Broken);
        }
        let mut last: Option<Descriptor> = None;
        for (read, descriptor) in chain.enumerate() {
            if read == MAX_DESCRIPTORS {
                return Err(ChainError::TooLong);
            }
            self.keep(&descriptor)?;
            last = Some(descriptor);
        }
        // The iterator ends alike for a chain that is complete and one that breaks off or loops.
        match last {
            Some(last) if last.has_next() => Err(ChainError::Broken),
            Some(_) => Ok(()),
            None => Err(ChainError::Broken),
        }
    }

    fn keep(&mut self, descriptor: &Descriptor) -> Result<(), ChainError> {
        let piece = Piece { at: descriptor.addr(), len: descriptor.len() };
        if descriptor.is_write_only() {
            self.writable.push(piece);
        } else if self.writable.is_empty() {
            self.readable.push(piece);
        } else {
            return Err(ChainError::Order);
        }
        Ok(())
    }

    /// The chain's first descriptor: its name in the used ring.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Device-readable bytes.
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Device-writable bytes.
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies readable bytes from the chain's start until `buffer` is full or they end; how many.
    ///
    /// # Errors
    /// [`ChainError::Memory`].
    pub fn read_start(&self, memory: &GuestMemory, buffer: &mut [u8]) -> Result<usize, ChainError> {
        let mut done = 0;
        let len = buffer.len().min(usize::try_from(self.readable_len()).unwrap_or(usize::MAX));
        for_each_slice(&self.readable, memory, Permissions::Read, 0, len, |slice| {
            let Some(rest) = buffer.get_mut(done..) else { return };
            done += slice.copy_to(rest);
        })?;
        Ok(done)
    }

    /// Writes `bytes` to the start of the writable part.
    ///
    /// # Errors
    /// [`ChainError::NoRoom`] before anything is written; [`ChainError::Memory`].
    pub fn write_reply(&self, memory: &GuestMemory, bytes: &[u8]) -> Result<u32, ChainError> {
        let len = u32::try_from(bytes.len()).map_err(|_| ChainError::NoRoom)?;
        if self.writable_len() < u64::from(len) {
            return Err(ChainError::NoRoom);
        }
        let mut rest = bytes;
        for_each_slice(&self.writable, memory, Permissions::Write, 0, bytes.len(), |slice| {
            slice.copy_from(rest);
            rest = rest.get(slice.len()..).unwrap_or_default();
        })?;
        Ok(len)
    }

    /// Copies `len` readable bytes, `skip` bytes into the chain, to another guest's RAM at `to`,
    /// without a copy of the daemon's own in between.
    ///
    /// # Errors
    /// [`ChainError::Short`] or [`ChainError::Memory`]; bytes before the place may be written.
    pub fn copy_to_guest(
        &self,
        memory: &GuestMemory,
        skip: usize,
        len: usize,
        target: &GuestMemory,
        to: GuestAddress,
    ) -> Result<(), ChainError> {
        let end = skip.checked_add(len).ok_or(ChainError::Short)?;
        if self.readable_len() < u64::try_from(end).unwrap_or(u64::MAX) {
            return Err(ChainError::Short);
        }
        // Both ranges are checked before the first byte is written.
        if !target.check_range(to, len, Permissions::Write) {
            return Err(ChainError::Memory);
        }
        let mut at = to;
        let mut result = Ok(());
        for_each_slice(&self.readable, memory, Permissions::Read, skip, len, |from| {
            if result.is_ok() {
                result = copy_slice_to_guest(&from, target, at);
                at = GuestAddress(at.0.wrapping_add(from.len() as u64));
            }
        })?;
        result
    }
}

/// Whether [`Chain::pop`] will find a buffer. It has to say what `pop` will do: who goes on because
/// of a buffer that cannot be taken is kept busy for ever.
pub fn is_available(queue: &Queue, memory: &GuestMemory) -> bool {
    let Ok(index) = queue.avail_idx(memory, Ordering::Acquire) else { return false };
    let (next, ring) = (queue.next_avail(), queue.avail_ring());
    let available = index.0.wrapping_sub(next);
    // The library takes nothing from a ring at address 0.
    if ring == 0 || !(1..=queue.size()).contains(&available) {
        return false;
    }
    // The entry as `pop` reads it: behind flags and index, outside of memory or across two
    // regions' edge it cannot be.
    let entry = 4 + 2 * u64::from(next % queue.size());
    ring.checked_add(entry)
        .is_some_and(|at| memory.load::<u16>(GuestAddress(at), Ordering::Relaxed).is_ok())
}

/// Gives a buffer back to the driver, `len` bytes of it written; false: it has no place in the
/// used ring, as its driver made it.
pub fn give_back(queue: &mut Queue, memory: &GuestMemory, head: u16, len: u32) -> bool {
    // The library would log each head past the table: a line for each wrong word of the guest.
    head < queue.size() && queue.add_used(memory, head, len).is_ok()
}

fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.len)).sum()
}

fn copy_slice_to_guest(
    from: &VolatileSlice<'_>,
    target: &GuestMemory,
    to: GuestAddress,
) -> Result<(), ChainError> {
    let mut done = 0;
    let slices =
        target.get_slices(to, from.len(), Permissions::Write).map_err(|_| ChainError::Memory)?;
    for slice in slices {
        let slice = slice.map_err(|_| ChainError::Memory)?;
        let part = from.subslice(done, slice.len()).map_err(|_| ChainError::Memory)?;
        done += slice.len();
        part.copy_to_volatile_slice(slice);
    }
    Ok(())
}

/// Calls `each` with the guest memory of `pieces`, from `skip` bytes on and for `len` bytes.
fn for_each_slice(
    pieces: &[Piece],
    memory: &GuestMemory,
    access: Permissions,
    mut skip: usize,
    mut len: usize,
    mut each: impl FnMut(VolatileSlice<'_>),
) -> Result<(), ChainError> {
    for piece in pieces {
        if len == 0 {
            break;
        }
        let size = piece.len as usize;
        if skip >= size {
            skip -= size;
            continue;
        }
        let start = piece.at.0.checked_add(skip as u64).ok_or(ChainError::Memory)?;
        let count = (size - skip).min(len);
        skip = 0;
        len -= count;
        let slices = memory
            .get_slices(GuestAddress(start), count, access)
            .map_err(|_| ChainError::Memory)?;
        for slice in slices {
            each(slice.map_err(|_| ChainError::Memory)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
