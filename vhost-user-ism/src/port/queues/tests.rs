// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Chains of descriptors, good and hostile.
//!
//! Invariant: each ends in an element or in an error that says why.

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
        ("a loop of one", vec![descriptor(DATA, 1, NEXT, 0)], 0, Popped::Bad(ChainError::Broken)),
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
        assert_eq!(readable.read_start(&memory, &mut [0; 8]), Err(ChainError::Memory), "{at:#x}");
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
