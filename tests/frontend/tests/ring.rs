// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver side of the rings against rust-vmm's device side.
//!
//! Invariant: every chain comes back once with what the device wrote, with and without EVENT_IDX.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ism_frontend::memory::GuestRam;
use ism_frontend::virtqueue::{Buffer, Virtqueue};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

type Memory = GuestMemoryMmap<()>;

/// A device that answers every chain with its readable bytes, each plus one.
struct Device {
    memory: Arc<Memory>,
    queue: Queue,
    kick: EventFd,
    call: EventFd,
    interrupts: u32,
}

impl Device {
    fn new(ram: &GuestRam, ring: &Virtqueue, event_idx: bool) -> Self {
        let file = FileOffset::new(ram.file().try_clone().expect("dup"), 0);
        let size = usize::try_from(ram.size()).expect("fits");
        let range = (GuestAddress(GuestRam::BASE), size, Some(file));
        let memory = Arc::new(Memory::from_ranges_with_files([range]).expect("map"));
        let config = ring.config();
        let guest = |address: u64| {
            let address = address - ram.address_in_process(GuestRam::BASE) + GuestRam::BASE;
            Some(u32::try_from(address).expect("below 4 GiB"))
        };
        let mut queue = Queue::new(ring.size()).expect("queue");
        queue.set_size(ring.size());
        queue.set_desc_table_address(guest(config.desc_table_addr), None);
        queue.set_avail_ring_address(guest(config.avail_ring_addr), None);
        queue.set_used_ring_address(guest(config.used_ring_addr), None);
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(&*memory), "the rings are placed as virtio asks");
        let kick = ring.kick_fd().try_clone().expect("dup");
        let call = ring.call_fd().try_clone().expect("dup");
        Self { memory, queue, kick, call, interrupts: 0 }
    }

    /// Serves until `count` chains are done, asleep between doorbells.
    fn serve(&mut self, count: usize) {
        let epoll = Epoll::new().expect("epoll");
        let interest = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, self.kick.as_raw_fd(), interest).expect("ctl");
        let mut done = 0;
        while done < count {
            self.queue.disable_notification(&*self.memory).expect("ring");
            while let Some(chain) = self.queue.pop_descriptor_chain(self.memory.clone()) {
                self.answer(chain);
                done += 1;
            }
            let more = self.queue.enable_notification(&*self.memory).expect("ring");
            if !more && done < count {
                epoll.wait(30_000, &mut [EpollEvent::default()]).expect("a doorbell");
                let _ = self.kick.read();
            }
        }
    }

    fn answer(&mut self, chain: virtio_queue::DescriptorChain<Arc<Memory>>) {
        let head = chain.head_index();
        let mut bytes = Vec::new();
        let mut written = 0;
        for descriptor in chain {
            if descriptor.is_write_only() {
                let reply: Vec<u8> = bytes.iter().map(|byte: &u8| byte.wrapping_add(1)).collect();
                self.memory.write_slice(&reply, descriptor.addr()).expect("write");
                written = u32::try_from(reply.len()).expect("small");
            } else {
                let mut part = vec![0; descriptor.len() as usize];
                self.memory.read_slice(&mut part, descriptor.addr()).expect("read");
                bytes.extend(part);
            }
        }
        self.queue.add_used(&*self.memory, head, written).expect("used");
        if self.queue.needs_notification(&*self.memory).expect("ring") {
            self.interrupts += 1;
            self.call.write(1).expect("call");
        }
    }
}

/// Several times round a small ring, with chains of two to four descriptors.
fn round_trips(event_idx: bool) -> u32 {
    const COUNT: usize = 10_000;
    let ram = Arc::new(GuestRam::new(1 << 20, true).expect("ram"));
    let mut ring = Virtqueue::new(&ram, 16, event_idx).expect("ring");
    let mut device = Device::new(&ram, &ring, event_idx);
    let request = ram.allocate(64).expect("request");
    let reply = ram.allocate(64).expect("reply");
    let thread = std::thread::spawn(move || {
        device.serve(COUNT);
        device.interrupts
    });
    for n in 0..COUNT {
        let text = n.to_le_bytes();
        ram.bytes(request, 8).expect("place").write(0, &text).expect("write");
        let parts = 1 + u32::try_from(n % 3).expect("small");
        let mut chain: Vec<Buffer> = (0..parts)
            .map(|part| {
                let len = if part + 1 == parts { 8 - 2 * part } else { 2 };
                Buffer::readable(request + 2 * u64::from(part), len)
            })
            .collect();
        chain.push(Buffer::writable(reply, 8));
        let head = ring.add(&chain).expect("room");
        ring.notify(1).expect("kick");
        let deadline = Instant::now() + Duration::from_secs(30);
        let used = ring.wait(deadline).expect("ring").expect("an answer");
        assert_eq!((used.head, used.written), (head, 8));
        let answer = ram.bytes(reply, 8).expect("place").to_vec().expect("read");
        let expected: Vec<u8> = text.iter().map(|byte| byte.wrapping_add(1)).collect();
        assert_eq!(answer, expected);
        assert_eq!(ring.free_descriptors(), 16);
    }
    thread.join().expect("device")
}

#[test]
fn chains_come_back_with_their_answers() {
    round_trips(false);
}

#[test]
fn chains_come_back_with_their_answers_under_event_idx() {
    round_trips(true);
}

#[test]
fn a_full_ring_is_an_error_and_stays_whole() {
    let ram = Arc::new(GuestRam::new(1 << 20, true).expect("ram"));
    let mut ring = Virtqueue::new(&ram, 4, false).expect("ring");
    let buffer = Buffer::readable(ram.allocate(8).expect("buffer"), 8);
    ring.add(&[buffer; 3]).expect("room for three");
    assert!(ring.add(&[buffer; 2]).is_err());
    ring.add(&[buffer]).expect("room for one");
    assert!(ring.add(&[buffer]).is_err());
}

#[test]
fn a_device_that_invents_used_chains_is_noticed() {
    let ram = Arc::new(GuestRam::new(1 << 20, true).expect("ram"));
    let order = std::sync::atomic::Ordering::SeqCst;
    let mut ring = Virtqueue::new(&ram, 4, false).expect("ring");
    ring.used_ring().store(2, 1u16.to_le(), order).expect("store");
    assert!(ring.poll().is_err(), "chain 0 is not in flight");
    let mut ring = Virtqueue::new(&ram, 4, false).expect("ring");
    ring.used_ring().store(2, 5u16.to_le(), order).expect("store");
    assert!(ring.poll().is_err(), "five used chains in a ring of four");
}
