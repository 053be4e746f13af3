// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest whose rings are wrong: loops, jumps, foreign addresses, and bytes that change while the
//! device reads them.
//!
//! Invariant: as `Siege`: nobody but the hostile member is affected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ism_abi::{
    MoveRequest, QUEUE_CONTROL, QUEUE_COUNT, QUEUE_EVENT, QUEUE_MOVE, QUEUE_SIGNAL, command, mode,
};
use ism_frontend::Driver;
use ism_frontend::commands::{encode, register_request};
use ism_frontend::memory::{GuestRam, SharedBytes};
use ism_frontend::virtqueue::{Buffer, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Virtqueue};
use ism_tests::fabric::{DMB, MODES, all_zero, gid, granted};
use ism_tests::random::Random;
use ism_tests::siege::Siege;

const QUEUES: [u16; 4] = [QUEUE_CONTROL, QUEUE_EVENT, QUEUE_SIGNAL, QUEUE_MOVE];

/// Makes `head` available, whatever it is, and rings.
fn offer(queue: &mut Virtqueue, head: u16) {
    let at = queue.next_avail();
    queue.write_avail_entry(at, head).expect("in the ring");
    queue.write_avail_index(at.wrapping_add(1)).expect("in the ring");
    queue.ring().expect("ring");
}

/// For each mode and queue, a fresh intruder that does `attack` to the queue.
fn for_each_queue(attack: impl Fn(&mut Driver, u16)) {
    for mode in MODES {
        let siege = Siege::begin(mode);
        for queue in QUEUES {
            let mut driver = siege.intruder();
            attack(&mut driver, queue);
            siege.others_work();
        }
        siege.end();
    }
}

#[test]
fn rings_that_loop() {
    for_each_queue(|driver, index| {
        let at = driver.connection().ram().allocate(4096).expect("RAM");
        let queue = driver.queue(index).expect("queue");
        let size = queue.size();
        for write in [0, DESC_F_WRITE] {
            let flags = DESC_F_NEXT | write;
            // To itself; to each other; once round the whole table; out of the table.
            queue.write_descriptor(0, at, 8, flags, 0).expect("descriptor");
            queue.write_descriptor(1, at, 8, flags, 2).expect("descriptor");
            queue.write_descriptor(2, at, 8, flags, 1).expect("descriptor");
            queue.write_descriptor(3, at, 8, flags, size).expect("descriptor");
            queue.write_descriptor(4, at, 8, flags, u16::MAX).expect("descriptor");
            for head in [0, 1, 2, 3, 4, size - 1, size, size + 1, u16::MAX] {
                offer(queue, head);
            }
            for n in 0..size {
                queue.write_descriptor(n, at, 8, flags, (n + 1) % size).expect("descriptor");
            }
            offer(queue, 0);
        }
    });
}

#[test]
fn indices_that_jump() {
    for_each_queue(|driver, index| {
        let mut random = Random::announced("indices_that_jump");
        let queue = driver.queue(index).expect("queue");
        let size = queue.size();
        for jump in [size, size + 1, 2 * size, 0x7fff, 0x8000, 0x8001, u16::MAX] {
            let next = queue.next_avail().wrapping_add(jump);
            queue.write_avail_index(next).expect("in the ring");
            queue.ring().expect("ring");
        }
        for _ in 0..500 {
            let index = u16::try_from(random.below(0x1_0000)).expect("small");
            queue.write_avail_index(index).expect("in the ring");
            queue.ring().expect("ring");
        }
    });
}

#[test]
fn tables_in_tables() {
    for_each_queue(|driver, index| {
        let ram = driver.connection().ram().clone();
        let end = GuestRam::BASE + ram.size();
        let table_at = ram.allocate(4096).expect("RAM");
        let table = ram.bytes(table_at, 4096).expect("RAM");
        // Inside the table: an indirect descriptor, one to itself, one outside, and a long chain.
        let put = |n: u64, address: u64, len: u32, flags: u16, next: u16| {
            table.store(16 * n, address, Ordering::Relaxed).expect("in the table");
            table.store(16 * n + 8, len, Ordering::Relaxed).expect("in the table");
            table.store(16 * n + 12, flags, Ordering::Relaxed).expect("in the table");
            table.store(16 * n + 14, next, Ordering::Relaxed).expect("in the table");
        };
        let queue = driver.queue(index).expect("queue");
        let offer_table = |queue: &mut Virtqueue, address: u64, len: u32, more: u16| {
            let flags = DESC_F_INDIRECT | more;
            queue.write_descriptor(5, address, len, flags, 5).expect("descriptor");
            offer(queue, 5);
        };
        put(0, table_at, 4096, DESC_F_INDIRECT, 0);
        offer_table(queue, table_at, 4096, 0);
        put(0, table_at, 16, DESC_F_NEXT, 0);
        offer_table(queue, table_at, 4096, 0);
        put(0, end - 8, 16, DESC_F_NEXT | DESC_F_WRITE, 1);
        put(1, u64::MAX - 7, 16, DESC_F_WRITE, 0);
        offer_table(queue, table_at, 32, 0);
        for n in 0..256 {
            put(n, table_at, 16, DESC_F_NEXT, u16::try_from(n + 1).expect("small"));
        }
        for len in [0, 1, 15, 16, 17, 4096, 65_535 * 16, 65_536 * 16, u32::MAX - 15, u32::MAX] {
            for more in [0, DESC_F_NEXT, DESC_F_WRITE, DESC_F_NEXT | DESC_F_WRITE] {
                for address in [table_at, table_at + 1, 0, end - 16, end, u64::MAX, u64::MAX - 15] {
                    offer_table(queue, address, len, more);
                }
            }
        }
    });
}

#[test]
fn buffers_outside_of_memory() {
    for_each_queue(|driver, index| {
        let ram = driver.connection().ram().clone();
        let end = GuestRam::BASE + ram.size();
        let queue = driver.queue(index).expect("queue");
        // Addresses that are not RAM, not all RAM, or the rings themselves.
        let own = queue.config();
        let base = ram.address_in_process(GuestRam::BASE);
        let rings = [own.desc_table_addr, own.avail_ring_addr, own.used_ring_addr];
        let rings = rings.map(|address| address - base + GuestRam::BASE);
        let outside = [0, 8, GuestRam::BASE - 8, end - 8, end, end + 4096, 1 << 47, u64::MAX - 3];
        for address in outside.into_iter().chain(rings) {
            for len in [0, 1, 8, 24, 64, 4096, 1 << 20, 1 << 31, u32::MAX] {
                for flags in [0, DESC_F_WRITE] {
                    queue.write_descriptor(9, address, len, flags, 0).expect("descriptor");
                    offer(queue, 9);
                }
                // Readable from good memory, the answer to a bad place; and the reverse order.
                let good = GuestRam::BASE + 0x1000;
                for (first, second) in [(0, DESC_F_WRITE), (DESC_F_WRITE, 0)] {
                    queue.write_descriptor(10, good, 16, first | DESC_F_NEXT, 11).expect("first");
                    queue.write_descriptor(11, address, len, second, 0).expect("second");
                    offer(queue, 10);
                }
            }
        }
    });
}

/// Runs `work` while another thread keeps changing memory with `spoil`.
fn while_changing(spoil: impl Fn(&mut Random) + Send + 'static, work: impl FnOnce()) {
    let stop: Arc<AtomicBool> = Arc::default();
    let ending = stop.clone();
    let thread = std::thread::spawn(move || {
        let mut random = Random::new(3);
        while !ending.load(Ordering::Relaxed) {
            spoil(&mut random);
        }
    });
    work();
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("the spoiling thread");
}

#[test]
fn descriptors_that_change_while_they_are_read() {
    for_each_queue(|driver, index| {
        let ram = driver.connection().ram().clone();
        let (end, buffer) = (GuestRam::BASE + ram.size(), ram.allocate(1 << 20).expect("RAM"));
        let queue = driver.queue(index).expect("queue");
        let (table, size) = (queue.descriptor_table(), u64::from(queue.size()));
        let spoil = move |random: &mut Random| {
            let at = 16 * (random.word() % size);
            let address = random.pick(&[0, buffer, buffer + 8, end - 4, end, u64::MAX]);
            let len = random.pick(&[0u32, 8, 16, 24, 56, 4096, u32::MAX]);
            let next = u16::try_from(random.below(200)).expect("small");
            let flags = u16::try_from(random.below(8)).expect("small");
            let store = |offset, value: u64| table.store(at + offset, value, Ordering::Relaxed);
            store(0, address).expect("in the table");
            let tail = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
            store(8, tail).expect("in the table");
        };
        while_changing(spoil, || {
            let mut random = Random::announced("descriptors_that_change");
            for _ in 0..3000 {
                offer(queue, u16::try_from(random.below(128)).expect("small"));
            }
        });
    });
}

/// Alternates between two contents of the same place.
fn flip(place: SharedBytes, one: Vec<u8>, other: Vec<u8>) -> impl Fn(&mut Random) + Send {
    move |random| {
        let bytes = if random.below(2) == 0 { &one } else { &other };
        place.write(0, bytes).expect("the request's place");
    }
}

#[test]
fn requests_that_change_while_they_are_read() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut driver = siege.intruder();
        let own = gid(&driver);
        let ram = driver.connection().ram().clone();
        let (request_at, reply_at) =
            (ram.allocate(64).expect("RAM"), ram.allocate(64).expect("RAM"));
        let place = ram.bytes(request_at, 48).expect("RAM");
        let mut good = register_request(own, 0, DMB, mode);
        good.ram_addr = if mode == mode::COPIED { GuestRam::BASE + 0x8000 } else { 0 };
        let mut bad = good;
        (bad.index, bad.len, bad.ram_addr) = (u32::MAX, u32::MAX, u64::MAX - 1);
        let bytes =
            |request: &ism_abi::RegisterRequest| encode(command::REGISTER, &request.to_bytes());
        while_changing(flip(place, bytes(&good), bytes(&bad)), || {
            let control = driver.queue(QUEUE_CONTROL).expect("queue");
            for _ in 0..2000 {
                let chain = [Buffer::readable(request_at, 48), Buffer::writable(reply_at, 64)];
                control.add(&chain).expect("room");
                control.ring().expect("ring");
                let used = control.wait(ism_tests::fabric::soon()).expect("ring");
                assert!(used.is_some(), "a request is not answered");
            }
        });
        drop(driver);
        siege.end();
    }
}

#[test]
fn moves_that_change_while_they_are_read() {
    let siege = Siege::begin(mode::COPIED);
    let mut driver = siege.intruder();
    let own = gid(&driver);
    let dmbs = [0, 1, 2].map(|n| driver.register(own, n, DMB, mode::COPIED).expect("register"));
    for _ in &dmbs {
        granted(&mut driver);
    }
    let ram = driver.connection().ram().clone();
    let at = ram.allocate(8192).expect("RAM");
    let header = ram.bytes(at, MoveRequest::SIZE as u64).expect("RAM");
    ram.bytes(at + 24, 4096).expect("RAM").fill(0xbd).expect("fill");
    let (token, len) = (dmbs[1].token(), 4096);
    let inside = MoveRequest { token, offset: 0, len, signal: 0, reserved: 0 };
    let outside = MoveRequest { offset: DMB - 8, ..inside };
    let flipping = flip(header, inside.to_bytes().to_vec(), outside.to_bytes().to_vec());
    while_changing(flipping, || {
        let moves = driver.queue(QUEUE_MOVE).expect("queue");
        for _ in 0..3000 {
            let chain = [Buffer::readable(at, 24 + len), Buffer::writable(at + 8000, 4)];
            moves.add(&chain).expect("room");
            moves.ring().expect("ring");
            assert!(moves.wait(ism_tests::fabric::soon()).expect("ring").is_some(), "no answer");
        }
    });
    all_zero(&dmbs[0].bytes);
    all_zero(&dmbs[2].bytes);
    let written = dmbs[1].bytes.to_vec().expect("read");
    assert!(written[4096..].iter().all(|byte| *byte == 0), "an offset of neither request");
    drop((dmbs, driver));
    siege.end();
}

#[test]
fn rings_of_random_bytes() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut random = Random::announced("rings_of_random_bytes");
        for round in 0..40 {
            let mut driver = siege.intruder();
            for index in 0..QUEUE_COUNT {
                let queue = driver.queue(index).expect("queue");
                for part in [queue.descriptor_table(), queue.avail_ring(), queue.used_ring()] {
                    let len = usize::try_from(part.len()).expect("small");
                    part.write(0, &random.bytes(len)).expect("fill");
                }
                queue.ring().expect("ring");
            }
            if round % 8 == 0 {
                siege.others_work();
            }
        }
        siege.end();
    }
}
