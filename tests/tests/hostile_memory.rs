// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A front-end whose memory table lies: overlapping, huge, short, unsealed or shrinking regions,
//! rings outside of memory, and arenas it would like to resize.
//!
//! Invariant: as `Siege`: nobody but the hostile member is affected.

use std::fs::File;
use std::os::fd::AsRawFd;

use ism_abi::{QUEUE_COUNT, mode, status};
use ism_frontend::memory::GuestRam;
use ism_frontend::virtqueue::Virtqueue;
use ism_frontend::{Connection, Driver, Options};
use ism_tests::fabric::{DMB, MODES, gid, granted, refused};
use ism_tests::random::Random;
use ism_tests::siege::{HOSTILE, Siege};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

fn memfd(size: u64, seals: SealFlags) -> File {
    let fd = memfd_create("hostile", MemfdFlags::ALLOW_SEALING).expect("memfd");
    ftruncate(&fd, size).expect("size");
    fcntl_add_seals(&fd, seals).expect("seal");
    fd.into()
}

fn region(file: &File, guest: u64, size: u64, offset: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: guest,
        memory_size: size,
        userspace_addr: 0x7000_0000_0000 + (guest & 0xffff_ffff_ffff),
        mmap_offset: offset,
        mmap_handle: file.as_raw_fd(),
    }
}

fn open(siege: &Siege) -> Connection {
    siege.daemon.open(HOSTILE, Options::default()).expect("open")
}

#[test]
fn memory_that_can_shrink_is_refused_with_a_reason() {
    let siege = Siege::begin(mode::MAPPED);
    let options = Options { sealed: false, ..Options::default() };
    // Refused as a message, or by closing the connection: in both cases no ring runs.
    let driver = Driver::join(&siege.socket(), options);
    assert!(driver.is_err(), "unsealed memory is served");
    let line = siege.daemon.wait_for_log("can shrink").expect("the reason in the log");
    assert!(line.contains("memory-backend-memfd"), "no advice: {line}");
    drop(driver);
    siege.end();
}

#[test]
fn memory_that_can_shrink_is_served_where_the_operator_says_so() {
    let siege = Siege::begin_with(mode::MAPPED, "allow-unsealed-memory = true");
    let options = Options { sealed: false, ..Options::default() };
    let mut driver = Driver::join(&siege.socket(), options).expect("allowed");
    driver.ping(1).expect("ping");
    drop(driver);
    siege.end();
}

#[test]
fn regions_that_are_not_what_they_say() {
    let siege = Siege::begin(mode::MAPPED);
    let shrink = SealFlags::SHRINK;
    let good = memfd(1 << 20, shrink | SealFlags::GROW);
    let read_only = memfd(1 << 20, shrink | SealFlags::WRITE);
    let (reader, _writer) = std::io::pipe().expect("pipe");
    let pipe = File::from(std::os::fd::OwnedFd::from(reader));
    let null = File::options().read(true).write(true).open("/dev/zero").expect("zero");
    let huge = [1 << 40, 1 << 47, u64::MAX - 4095, u64::MAX];
    let mut regions: Vec<VhostUserMemoryRegionInfo> =
        huge.iter().map(|size| region(&good, 0, *size, 0)).collect();
    regions.extend([
        region(&good, 0, 2 << 20, 0),    // Longer than the file.
        region(&good, 0, 1 << 20, 4096), // Ends behind the file.
        region(&good, 0, 4096, 1 << 20), // Begins behind the file.
        region(&good, 0, 4096, u64::MAX - 4095),
        region(&good, 0, 4096, 1), // Offset of no page.
        region(&good, 1, 4095, 0),
        region(&good, u64::MAX - 4095, 4096, 0),
        region(&read_only, 0, 1 << 20, 0),
        region(&pipe, 0, 4096, 0),
        region(&null, 0, 4096, 0),
    ]);
    for bad in &regions {
        // The daemon serves one connection of a VM at a time: each ends before the next.
        let _ = open(&siege).add_region(bad);
        let _ = open(&siege).set_table(&[*bad]);
        // After good memory, and before it.
        let mut connection = open(&siege);
        let ram = connection.ram().region();
        let _ = connection.set_table(&[ram, *bad]);
        let _ = connection.set_table(&[*bad, ram]);
    }
    siege.end();
}

/// Rings in the part of a region that is behind the end of its file: to touch them is SIGBUS.
#[test]
fn rings_behind_the_end_of_the_file() {
    let siege = Siege::begin(mode::MAPPED);
    let file = memfd(1 << 20, SealFlags::SHRINK | SealFlags::GROW);
    for (size, offset) in [(2 << 20, 0), (1 << 20, 1 << 20), (1 << 20, 64 << 20), (1 << 20, 4096)] {
        let mut connection = open(&siege);
        let lie = region(&file, 0x4000_0000, size, offset);
        // A front-end whose region was refused is hung up on, or fails in what follows.
        let _ = connection.add_region(&lie);
        let end = lie.userspace_addr + size;
        let config = VringConfigData {
            queue_max_size: 64,
            queue_size: 64,
            flags: 0,
            desc_table_addr: end - 4096,
            used_ring_addr: end - 2048,
            avail_ring_addr: end - 3072,
            log_addr: None,
        };
        let queue = Virtqueue::new(connection.ram(), 64, true).expect("queue");
        let messages = connection.messages();
        for index in 0..usize::from(QUEUE_COUNT) {
            let _ = messages.set_vring_num(index, 64);
            let _ = messages.set_vring_addr(index, &config);
            let _ = messages.set_vring_kick(index, queue.kick_fd());
            let _ = messages.set_vring_enable(index, true);
        }
        queue.ring().expect("ring");
    }
    siege.end();
}

#[test]
fn regions_that_overlap() {
    let siege = Siege::begin(mode::MAPPED);
    let file = memfd(1 << 20, SealFlags::SHRINK);
    let mut random = Random::announced("regions_that_overlap");
    for _ in 0..60 {
        let mut connection = open(&siege);
        let count = 2 + random.index(30);
        let page = |random: &mut Random, limit| u64::from(random.below(limit)) * 4096;
        let regions: Vec<_> = (0..count)
            .map(|_| {
                let size = 4096 + page(&mut random, 64);
                let guest = page(&mut random, 300);
                region(&file, guest, size, page(&mut random, 128))
            })
            .collect();
        let _ = connection.set_table(&regions);
        for region in regions.iter().take(4) {
            let _ = connection.add_region(region);
            let _ = connection.messages().remove_mem_region(region);
        }
    }
    siege.end();
}

#[test]
fn memory_that_is_taken_away_under_running_rings() {
    for mode in MODES {
        let siege = Siege::begin(mode);
        let mut hostile = siege.intruder();
        let mut victim = siege.victim();
        let dmb = hostile.register(gid(&victim), 0, DMB, mode).expect("register");
        let grant = granted(&mut victim);
        let ram = hostile.connection().ram().region();
        let _ = hostile.connection().messages().remove_mem_region(&ram);
        // The victim writes to a DMB, and rings, where there is no memory now.
        for _ in 0..50 {
            victim.signal(grant.token).expect("signal");
            if mode == mode::COPIED {
                let moved = victim.move_to(grant.token, 0, &[0xbd; 4096], true);
                let known = [status::IO_ERROR, status::NO_TOKEN].map(Some);
                let gone = moved.err().map(|error| error.status());
                assert!(gone.is_some_and(|status| known.contains(&status)), "{gone:?}");
            }
            hostile.queue(0).and_then(|queue| queue.ring()).expect("ring");
        }
        victim.flush_signals().expect("the victim's own queue is served");
        // Other memory in its place.
        let other = memfd(ram.memory_size, SealFlags::SHRINK);
        let _ = hostile.connection().set_table(&[region(&other, GuestRam::BASE, 1 << 20, 0)]);
        victim.signal(grant.token).expect("signal");
        victim.ping(1).expect("ping");
        siege.others_work();
        drop((dmb, hostile, victim));
        siege.end();
    }
}

#[test]
fn rings_outside_of_memory() {
    let siege = Siege::begin(mode::MAPPED);
    let mut random = Random::announced("rings_outside_of_memory");
    for round in 0..80 {
        let mut connection = open(&siege);
        let ram = connection.ram().clone();
        let (base, end) = (ram.address_in_process(GuestRam::BASE), ram.size());
        let queues: Vec<Virtqueue> =
            (0..QUEUE_COUNT).map(|_| Virtqueue::new(&ram, 64, true).expect("queue")).collect();
        connection.start(&queues).expect("start");
        let place = |random: &mut Random| {
            random.pick(&[0, 16, base - 16, base, base + end - 16, base + end, u64::MAX - 15])
        };
        for (index, queue) in queues.iter().enumerate() {
            let config = VringConfigData {
                queue_max_size: 64,
                queue_size: 64,
                flags: 0,
                desc_table_addr: place(&mut random),
                used_ring_addr: place(&mut random),
                avail_ring_addr: place(&mut random),
                log_addr: None,
            };
            let messages = connection.messages();
            let _ = messages.set_vring_enable(index, false);
            let _ = messages.get_vring_base(index);
            let size = random.pick(&[0, 1, 3, 64, 128, 32768, u16::MAX]);
            let _ = messages.set_vring_num(index, size);
            let _ = messages.set_vring_base(index, random.pick(&[0, 1, 63, 64, u16::MAX]));
            let _ = messages.set_vring_addr(index, &config);
            let _ = messages.set_vring_kick(index, queue.kick_fd());
            let _ = messages.set_vring_enable(index, true);
            queue.ring().expect("ring");
        }
        if round % 20 == 0 {
            siege.others_work();
        }
    }
    siege.end();
}

#[test]
fn arenas_keep_their_size_and_seals() {
    let siege = Siege::begin(mode::MAPPED);
    let mut driver = siege.intruder();
    let own = gid(&driver);
    let dmb = driver.register(own, 0, DMB, mode::MAPPED).expect("register");
    let window = driver.connection().window().expect("a window").clone();
    for extent in window.extents() {
        for size in [0, 4096, extent.len - 4096, extent.len + 4096] {
            assert!(ftruncate(&extent.file, size).is_err(), "an arena was resized to {size}");
        }
        // With these a peer could make the other's writes fail, or its own be the last.
        for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
            assert!(fcntl_add_seals(&extent.file, seal).is_err(), "an arena was sealed further");
        }
    }
    drop((dmb, driver));
    siege.end();
}

#[test]
fn windows_are_not_the_guests_memory() {
    let siege = Siege::begin(mode::COPIED);
    let mut driver = siege.intruder();
    let own = gid(&driver);
    // A memory slot made of the hostile member's own file beside its RAM, used for a DMB whose
    // end would reach past it.
    let file = memfd(1 << 20, SealFlags::SHRINK);
    let base = 0x4000_0000;
    let slot = region(&file, base, 1 << 20, 0);
    driver.connection().add_region(&slot).expect("a second region");
    let mut request = ism_frontend::commands::register_request(own, 0, DMB, mode::COPIED);
    request.ram_addr = base + (1 << 20) - 4096;
    match driver.register_raw(&request) {
        Ok(reply) => {
            granted(&mut driver);
            let moved = driver.move_to(reply.token, 0, &[0xbd; 8192], false);
            refused(moved, status::IO_ERROR);
        }
        Err(error) => assert!(error.status().is_some(), "{error}"),
    }
    driver.ping(1).expect("ping");
    drop(driver);
    siege.end();
}
