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
mod tests {
    use super::*;
    use virtio_queue::desc::RawDescriptor;
    use virtio_queue::mock::MockSplitQueue;

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;
    const SIZE: u16 = 16;
    const RAM: usize = 1 << 20;
    /// Where buffers are; the queue is below.
    const DATA: u64 = 0x10000;

    fn ram() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).expect("memory")
    }

    fn descriptor(at: u64, len: u32, flags: u16, next: u16) -> RawDescriptor {
        RawDescriptor::from(Descriptor::new(at, len, flags, next))
    }

    /// Makes `descriptors` the table from 0 on, and `head` available; pops it.
    fn pop(memory: &GuestMemory, descriptors: &[RawDescriptor], head: u16) -> (Popped, Chain) {
        let mock = MockSplitQueue::create(memory, GuestAddress(0x1000), SIZE);
        for (index, descriptor) in (0..).zip(descriptors) {
            mock.desc_table().store(index, *descriptor).expect("in the table");
        }
        mock.avail().ring().ref_at(0).expect("ring").store(head);
        mock.avail().idx().store(1);
        let mut queue: Queue = mock.create_queue().expect("queue");
        let mut chain = Chain::default();
        (chain.pop(&mut queue, memory), chain)
    }

    #[test]
    fn a_chain_is_read_in_order() {
        let memory = ram();
        memory.write_slice(b"abcdef", GuestAddress(DATA)).expect("write");
        let table = [
            descriptor(DATA, 2, NEXT, 2),
            descriptor(DATA + 0x100, 4, WRITE, 0),
            descriptor(DATA + 2, 4, NEXT, 1),
        ];
        let (popped, chain) = pop(&memory, &table, 0);
        assert_eq!(popped, Popped::Chain);
        assert_eq!((chain.readable_len(), chain.writable_len()), (6, 4));
        let mut buffer = [0; 9];
        assert_eq!(chain.read_start(&memory, &mut buffer), Ok(6));
        assert_eq!(&buffer, b"abcdef\0\0\0");
        assert_eq!(chain.write_reply(&memory, b"wxyz"), Ok(4));
        let mut written = [0; 5];
        memory.read_slice(&mut written, GuestAddress(DATA + 0x100)).expect("read");
        assert_eq!(&written, b"wxyz\0");
    }

    #[test]
    fn a_reply_that_does_not_fit_is_not_begun() {
        let memory = ram();
        let table = [descriptor(DATA, 3, WRITE, 0)];
        let (_, chain) = pop(&memory, &table, 0);
        assert_eq!(chain.write_reply(&memory, b"wxyz"), Err(ChainError::NoRoom));
        assert_eq!(memory.read_obj::<[u8; 3]>(GuestAddress(DATA)).expect("read"), [0; 3]);
    }

    #[test]
    fn hostile_chains_end() {
        let memory = ram();
        let end = RAM as u64;
        let table: [(&str, Vec<RawDescriptor>, u16, Popped); 10] = [
            (
                "a loop of one",
                vec![descriptor(DATA, 1, NEXT, 0)],
                0,
                Popped::Bad(ChainError::Broken),
            ),
            (
                "a loop of two",
                vec![descriptor(DATA, 1, NEXT, 1), descriptor(DATA, 1, NEXT, 0)],
                0,
                Popped::Bad(ChainError::Broken),
            ),
            (
                "next past the table",
                vec![descriptor(DATA, 1, NEXT, 999)],
                0,
                Popped::Bad(ChainError::Broken),
            ),
            ("a head past the table", vec![], 999, Popped::Bad(ChainError::Broken)),
            (
                "readable behind writable",
                vec![descriptor(DATA, 1, WRITE | NEXT, 1), descriptor(DATA, 1, 0, 0)],
                0,
                Popped::Bad(ChainError::Order),
            ),
            (
                "an indirect table of no entry",
                vec![descriptor(DATA, 0, INDIRECT, 0)],
                0,
                Popped::Bad(ChainError::Broken),
            ),
            (
                "half an indirect entry",
                vec![descriptor(DATA, 8, INDIRECT, 0)],
                0,
                Popped::Bad(ChainError::Broken),
            ),
            (
                "an indirect table outside",
                vec![descriptor(end, 32, INDIRECT, 0)],
                0,
                Popped::Bad(ChainError::Broken),
            ),
            (
                "more than 2^32 bytes",
                vec![descriptor(DATA, u32::MAX, NEXT, 1), descriptor(DATA, 1, 0, 0)],
                0,
                Popped::Bad(ChainError::Broken),
            ),
            ("nothing at all", vec![descriptor(0, 0, 0, 0)], 0, Popped::Chain),
        ];
        for (what, descriptors, head, expected) in table {
            let (popped, _) = pop(&memory, &descriptors, head);
            assert_eq!(popped, expected, "{what}");
        }
    }

    #[test]
    fn long_indirect_tables_are_cut_off() {
        let memory = ram();
        let entries = u32::try_from(MAX_DESCRIPTORS).expect("small") + 1;
        for entry in 0..entries {
            let next = u16::try_from(entry).expect("small") + 1;
            let at = GuestAddress(DATA + u64::from(entry) * 16);
            let flags = if entry + 1 == entries { 0 } else { NEXT };
            memory.write_obj(descriptor(DATA, 1, flags, next), at).expect("write");
        }
        let popped = |entries| pop(&memory, &[descriptor(DATA, entries * 16, INDIRECT, 0)], 0).0;
        assert_eq!(popped(entries), Popped::Bad(ChainError::TooLong));
        // The last entry of a shorter table says that another follows.
        assert_eq!(popped(entries - 1), Popped::Bad(ChainError::Broken));
    }

    #[test]
    fn an_indirect_table_in_an_indirect_table_is_refused() {
        let memory = ram();
        memory.write_obj(descriptor(DATA, 16, INDIRECT, 0), GuestAddress(DATA)).expect("write");
        let (popped, _) = pop(&memory, &[descriptor(DATA, 16, INDIRECT, 0)], 0);
        assert_eq!(popped, Popped::Bad(ChainError::Broken));
    }

    #[test]
    fn buffers_outside_memory_are_refused_when_they_are_used() {
        let memory = ram();
        for at in [RAM as u64 - 1, RAM as u64, u64::MAX, u64::MAX - 7] {
            let readable = pop(&memory, &[descriptor(at, 8, 0, 0)], 0).1;
            assert_eq!(
                readable.read_start(&memory, &mut [0; 8]),
                Err(ChainError::Memory),
                "{at:#x}"
            );
            let writable = pop(&memory, &[descriptor(at, 8, WRITE, 0)], 0).1;
            assert_eq!(writable.write_reply(&memory, &[0; 8]), Err(ChainError::Memory), "{at:#x}");
        }
    }

    #[test]
    fn an_available_index_that_lies_is_a_broken_ring() {
        let memory = ram();
        let mock = MockSplitQueue::create(&memory, GuestAddress(0x1000), SIZE);
        mock.avail().idx().store(SIZE + 1);
        let mut queue: Queue = mock.create_queue().expect("queue");
        assert!(!is_available(&queue, &memory));
        assert_eq!(Chain::default().pop(&mut queue, &memory), Popped::BadRing);
    }

    #[test]
    fn a_ring_that_ends_outside_memory_has_no_buffers() {
        let memory = ram();
        let mock = MockSplitQueue::create(&memory, GuestAddress(0x1000), SIZE);
        let mut queue: Queue = mock.create_queue().expect("queue");
        // The index is in memory, the entry is not.
        queue.try_set_avail_ring_address(GuestAddress(RAM as u64 - 4)).expect("aligned");
        memory.write_obj(1u16, GuestAddress(RAM as u64 - 2)).expect("write");
        assert_eq!(queue.avail_idx(&memory, Ordering::Acquire).expect("index").0, 1);
        assert!(!is_available(&queue, &memory));
        assert_eq!(Chain::default().pop(&mut queue, &memory), Popped::Nothing);
    }

    #[test]
    fn a_ring_at_address_0_has_no_buffers() {
        let memory = ram();
        let mock = MockSplitQueue::create(&memory, GuestAddress(0x1000), SIZE);
        let mut queue: Queue = mock.create_queue().expect("queue");
        queue.try_set_avail_ring_address(GuestAddress(0)).expect("aligned");
        memory.write_obj(1u16, GuestAddress(2)).expect("write");
        assert_eq!(Chain::default().pop(&mut queue, &memory), Popped::BadRing);
        assert!(!is_available(&queue, &memory));
    }

    #[test]
    fn a_ring_across_regions_that_do_not_fit_has_no_buffers() {
        // The ring's entries are at odd addresses of the daemon's: they cannot be read whole.
        let edge = 0x10_0000 - 1;
        let ranges = [(GuestAddress(0), edge), (GuestAddress(edge as u64), RAM)];
        let memory = GuestMemory::from_ranges(&ranges).expect("memory");
        let mock = MockSplitQueue::create(&memory, GuestAddress(0x1000), SIZE);
        let mut queue: Queue = mock.create_queue().expect("queue");
        // Flags and index end where the first region does, but for a byte.
        queue.try_set_avail_ring_address(GuestAddress(edge as u64 - 5)).expect("aligned");
        memory.write_obj(1u16, GuestAddress(edge as u64 - 3)).expect("write");
        assert_eq!(queue.avail_idx(&memory, Ordering::Acquire).expect("index").0, 1);
        assert_eq!(Chain::default().pop(&mut queue, &memory), Popped::Nothing);
        assert!(!is_available(&queue, &memory));
    }

    #[test]
    fn a_head_past_the_table_has_no_place_in_the_used_ring() {
        let memory = ram();
        let mock = MockSplitQueue::create(&memory, GuestAddress(0x1000), SIZE);
        let mut queue: Queue = mock.create_queue().expect("queue");
        assert!(!give_back(&mut queue, &memory, SIZE, 0));
        assert!(give_back(&mut queue, &memory, SIZE - 1, 0));
        assert_eq!(queue.used_idx(&memory, Ordering::Acquire).expect("index").0, 1);
    }

    #[test]
    fn descriptors_that_change_after_they_were_read_change_nothing() {
        let memory = ram();
        let (_, chain) = pop(&memory, &[descriptor(DATA, 4, WRITE, 0)], 0);
        // The driver points the same descriptor elsewhere, and makes it longer.
        let mock = MockSplitQueue::create(&memory, GuestAddress(0x1000), SIZE);
        mock.desc_table().store(0, descriptor(DATA + 0x100, 64, WRITE, 0)).expect("store");
        assert_eq!(chain.writable_len(), 4);
        assert_eq!(chain.write_reply(&memory, b"wxyz"), Ok(4));
        assert_eq!(&memory.read_obj::<[u8; 4]>(GuestAddress(DATA)).expect("read"), b"wxyz");
    }

    #[test]
    fn a_copy_between_guests_is_all_or_nothing() {
        let (from, to) = (ram(), ram());
        from.write_slice(b"headpayload", GuestAddress(DATA)).expect("write");
        let table = [descriptor(DATA, 6, NEXT, 1), descriptor(DATA + 6, 5, 0, 0)];
        let (_, chain) = pop(&from, &table, 0);
        let target = |at| GuestAddress(at);
        assert_eq!(chain.copy_to_guest(&from, 4, 7, &to, target(0x2000)), Ok(()));
        assert_eq!(&to.read_obj::<[u8; 8]>(target(0x2000)).expect("read"), b"payload\0");
        let edge = RAM as u64 - 6;
        let table = [
            (4, 8, 0x3000, ChainError::Short),
            (usize::MAX, 2, 0x3000, ChainError::Short),
            (4, 7, edge, ChainError::Memory),
            (4, 7, u64::MAX - 3, ChainError::Memory),
        ];
        for (skip, len, at, error) in table {
            let copied = chain.copy_to_guest(&from, skip, len, &to, target(at));
            assert_eq!(copied, Err(error), "{skip} {len} {at:#x}");
        }
        assert_eq!(to.read_obj::<[u8; 6]>(target(edge)).expect("read"), [0; 6]);
        assert_eq!(to.read_obj::<[u8; 8]>(target(0x3000)).expect("read"), [0; 8]);
    }
}
