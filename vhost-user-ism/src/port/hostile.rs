// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests: one device whose driver or front-end breaks the rules, or is gone.
//!
//! Invariant: nothing here needs a second thread to be hostile. A ring is never empty because its
//! available and its used ring lie at one address and share their index: each buffer given back
//! makes another available, and whoever serves it until it is empty never ends.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ism_abi::layout::{QUEUE_CONTROL, QUEUE_COUNT, QUEUE_EVENT, QUEUE_SIGNAL};
use ism_emulator::{Fabric, FabricConfig as EmulatorConfig, MemberConfig, Quota, TOKEN_KEY_SIZE};
use rustix::event::{EventfdFlags, eventfd};
use vhost_user_backend::{VhostUserBackend, VringT};
use virtio_queue::QueueT;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use super::backend::Device;
use super::poll::Seats;
use super::queues::{Chain, Popped};
use super::vring::{AtomicMemory, Vring};
use super::{Kind, Link, Port};
use crate::config::{FabricConfig, Name};
use crate::hub::Hub;
use crate::memory::GuestMemory;

const TABLE: u64 = 0x1000;
/// Both rings.
const RINGS: u64 = 0x2000;
const WRITE: u16 = 2;

/// A VM on a fabric of its own.
fn vm() -> (Arc<Hub>, Arc<Port>) {
    let fabric = Fabric::new(EmulatorConfig::new(0xff00), &[7; TOKEN_KEY_SIZE]).expect("fabric");
    let hub = Hub::start(fabric).expect("thread");
    let config = MemberConfig {
        name: "vm".to_owned(),
        gid: [1; 16],
        groups: Vec::new(),
        vlans: None,
        quota: Quota::default(),
    };
    let port = hub.add_port(|fabric| {
        let id = fabric.add_member(config)?;
        let signals = fabric.signals(id).expect("a member");
        Ok(Arc::new(Port::new(id, Name::default_vm(), signals, Kind::Vm)))
    });
    (hub, port.expect("member"))
}

/// RAM in which every entry of the ring names descriptor 0, a buffer that is too small for anything.
fn ram() -> GuestMemory {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000)]).expect("memory");
    let buffer = RawDescriptor::from(Descriptor::new(0x8000, 1, WRITE, 0));
    memory.write_obj(buffer, GuestAddress(TABLE)).expect("write");
    memory.write_obj(1u16, GuestAddress(RINGS + 2)).expect("write");
    memory
}

fn idle() -> Vring {
    Vring::new(AtomicMemory::new(GuestMemory::new()), 16).expect("16 is a power of two")
}

fn endless() -> Vring {
    let vring = idle();
    vring.set_queue_info(TABLE, RINGS, RINGS).expect("aligned");
    // As the library takes it from the used ring in RAM.
    vring.set_queue_next_used(1);
    vring.set_queue_ready(true);
    vring.set_enabled(true);
    vring
}

#[test]
fn it_is_endless() {
    let (memory, vring) = (ram(), endless());
    let taken = vring.with_queue(|queue| {
        let mut chain = Chain::default();
        (0..100_000).all(|_| {
            chain.pop(queue, &memory) == Popped::Chain && queue.add_used(&memory, 0, 0).is_ok()
        })
    });
    assert_eq!(taken, Some(true));
}

/// The thread may be another VM's, and holds the queue's lock.
#[test]
fn an_endless_event_ring_does_not_keep_who_delivers() {
    let (hub, port) = vm();
    let link = Link::default();
    let vrings = (0..QUEUE_COUNT).map(|n| if n == QUEUE_EVENT { endless() } else { idle() });
    assert!(link.vrings.set(vrings.collect()).is_ok());
    link.set_memory(Some(Arc::new(ram())));
    port.set_link(Some(Arc::new(link)));
    port.signals.set(0);
    hub.carry_out(port.deliver(&hub, false)); // would never return
    assert!(!port.signals.is_empty(), "the signal waits for a buffer that can hold it");
}

#[test]
fn an_endless_control_ring_does_not_keep_who_stops_another() {
    let (hub, port) = vm();
    let seats = Arc::new(Seats::new(1));
    let device = Device::new(hub, Arc::clone(&port), FabricConfig::default(), seats);
    let device = device.expect("descriptors");
    port.link().expect("the device's").set_memory(Some(Arc::new(ram())));
    let vrings: Vec<Vring> =
        (0..QUEUE_COUNT).map(|n| if n == QUEUE_CONTROL { endless() } else { idle() }).collect();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let served = device.handle_event(QUEUE_CONTROL, EventSet::IN, &vrings, 0);
            ended.store(true, Ordering::Release);
            served.expect("no error ends the worker");
        });
        // Until the worker is at it.
        let at = || vrings.first().map(VringT::queue_next_avail);
        while at() == Some(0) {
            std::thread::yield_now();
        }
        device.stop_vring(u32::from(QUEUE_SIGNAL)).expect("stopped"); // would never return
        assert!(!ended.load(Ordering::Acquire), "the other queues are served on");
        device.stop_vring(u32::from(QUEUE_CONTROL)).expect("stopped");
    });
}

/// A thread of another VM has looked up the link, and is overtaken by a new connection.
#[test]
fn a_front_end_that_is_gone_gets_nothing_more() {
    let (hub, port) = vm();
    let seats = Arc::new(Seats::new(1));
    let device = Device::new(hub, Arc::clone(&port), FabricConfig::default(), seats);
    let device = device.expect("descriptors");
    let link = port.link().expect("the device's");
    assert!(link.vrings.set(vec![endless()]).is_ok());
    let runs = || link.vring(QUEUE_CONTROL).and_then(|vring| vring.with_queue(|_| ())).is_some();
    assert!(runs());
    device.disconnect();
    assert!(!runs());
}

/// Whoever looked at a ring while its memory was away has found nothing, and nobody kicks again.
#[test]
fn new_memory_wakes_the_worker() {
    let (hub, port) = vm();
    let seats = Arc::new(Seats::new(1));
    let device = Device::new(hub, Arc::clone(&port), FabricConfig::default(), seats);
    let device = device.expect("descriptors");
    let (vring, kick) = (idle(), eventfd(0, EventfdFlags::NONBLOCK).expect("eventfd"));
    vring.set_kick(Some(File::from(kick.try_clone().expect("dup"))));
    assert!(port.link().expect("the device's").vrings.set(vec![vring]).is_ok());
    device.update_memory(AtomicMemory::new(GuestMemory::new())).expect("memory");
    assert!(rustix::io::read(&kick, &mut [0; 8]).is_ok(), "nobody was woken");
}
