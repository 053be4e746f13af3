// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The vhost-user device: negotiation, and the worker's wake-ups.
//!
//! Invariant: a request handler never sends to the front-end and never waits for another VM; a
//! panic in the worker ends this VM's connection and nothing else.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ism_abi::layout::{
    F_BOARD, F_MOVE, F_WINDOW, QUEUE_CONTROL, QUEUE_COUNT, QUEUE_EVENT, SHM_WINDOW,
};
use ism_emulator::Abilities;
use vhost::vhost_user::Backend as FrontendRequests;
use vhost::vhost_user::message::{
    VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserVirtioFeatures,
};
use vhost_user_backend::{VhostUserBackend, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

use super::exit::ExitEvent;
use super::poll::{Poller, Seats};
use super::serve::Server;
use super::vring::{AtomicMemory, Vring, lock};
use super::{Kind, Link, Port, QUEUE_SIZE};
use crate::config::FabricConfig;
use crate::hub::Hub;
use crate::mapper::{Mapper, Who};
use crate::memory::check_guest_memory;

/// Kicks on an empty control queue after which its memory is suspected not to be shared.
const EMPTY_KICKS: u32 = 3;
/// How long the rings' stop waits for a copy into the VM's RAM; each takes well under 1 ms.
const QUIET_WAIT: Duration = Duration::from_millis(200);

/// The device of one front-end.
pub struct Device {
    hub: Arc<Hub>,
    port: Arc<Port>,
    link: Arc<Link>,
    config: FabricConfig,
    seats: Arc<Seats>,
    negotiated: Mutex<Negotiated>,
    /// Held by the worker during a pass.
    poller: Mutex<Poller>,
    /// Threads in [`Device::between_passes`].
    waiting: AtomicU32,
    running: AtomicBool,
    closing: AtomicBool,
    /// The memory hint was given, or is not needed.
    hinted: AtomicBool,
    empty_kicks: AtomicU32,
    exit: ExitEvent,
}

#[derive(Default)]
struct Negotiated {
    requests: Option<FrontendRequests>,
    asked_shmem: bool,
    abilities: Abilities,
    memory: bool,
}

impl Device {
    /// The device of a front-end that has just connected to `port`.
    ///
    /// # Errors
    /// No event descriptor can be made.
    pub fn new(
        hub: Arc<Hub>,
        port: Arc<Port>,
        config: FabricConfig,
        seats: Arc<Seats>,
    ) -> io::Result<Self> {
        let device = Self {
            hub,
            link: Arc::default(),
            seats,
            negotiated: Mutex::default(),
            poller: Mutex::new(Poller::new(config.poll)),
            waiting: AtomicU32::new(0),
            running: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            hinted: AtomicBool::new(false),
            empty_kicks: AtomicU32::new(0),
            exit: ExitEvent::new()?,
            port,
            config,
        };
        device.port.set_link(Some(Arc::clone(&device.link)));
        device.connect(Abilities { window: None, copied: true, board: true });
        Ok(device)
    }

    /// The connection has ended; what the worker still does, it does for nobody.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Takes the VM off the fabric, and frees what the connection had.
    pub fn disconnect(&self) {
        self.port.set_link(None);
        // Another VM's thread may have the link still. It must not take what is for the next
        // front-end and put it into this one's rings.
        for vring in self.link.vrings.get().into_iter().flatten() {
            vring.set_enabled(false);
        }
        drop(lock(&self.link.mapper).take());
        self.hub.call(|fabric, _| fabric.disconnect(self.port.id()));
    }

    /// Whether the front-end has given memory.
    pub fn has_memory(&self) -> bool {
        lock(&self.negotiated).memory
    }

    fn connect(&self, abilities: Abilities) {
        lock(&self.negotiated).abilities = abilities;
        let id = self.port.id();
        if let Err(error) = self.hub.call(|fabric, _| fabric.connect(id, abilities)) {
            log::error!("{}: {error}", self.port.title());
        }
    }

    /// Opens the window if the front-end can map: it gave a channel for requests, and asked how
    /// large the shared memory region is, which it does only if it knows of such regions.
    fn open_window(&self) {
        let mut negotiated = lock(&self.negotiated);
        let mut mapper = lock(&self.link.mapper);
        if !negotiated.asked_shmem || mapper.is_some() {
            return;
        }
        let Some(requests) = negotiated.requests.take() else { return };
        let window = self.config.window_size.bytes();
        let hub = Arc::downgrade(&self.hub);
        let who = Who {
            member: self.port.id(),
            name: self.port.name().to_string(),
            title: self.port.title().to_owned(),
        };
        match Mapper::start(&self.port.mappers, hub, who, requests, window) {
            Ok(started) => *mapper = Some(started),
            Err(error) => {
                log::error!("{}: no window: no thread for it: {error}", self.port.title());
                return;
            }
        }
        drop((negotiated, mapper));
        self.connect(Abilities { window: Some(window), copied: true, board: true });
    }

    fn serve(&self, event: u16, vrings: &[Vring]) {
        self.link.vrings.get_or_init(|| vrings.to_vec());
        let mut poller = lock(&self.poller);
        poller.woken(Instant::now());
        let started = !self.running.load(Ordering::Acquire);
        if started && !self.start(vrings) {
            return;
        }
        let mut events = started || event == QUEUE_EVENT;
        let mut kicks = true;
        let mut served = 0;
        while self.running.load(Ordering::Acquire) && !self.closing.load(Ordering::Acquire) {
            // Anew for each pass: a busy driver must not keep the worker on memory that its
            // front-end has replaced.
            let Some(memory) = self.link.memory() else { break };
            let (hub, port, link) = (&*self.hub, &*self.port, &*self.link);
            let server = Server { hub, port, link, memory: &memory };
            if std::mem::take(&mut events) {
                server.events();
            }
            if std::mem::take(&mut kicks) {
                server.disable_kicks();
            }
            let now = server.pass();
            served += now;
            if now == 0 && !poller.poll(&self.seats, || server.has_work()) {
                kicks = true;
                if !server.enable_kicks() {
                    break;
                }
            }
            poller = self.make_way(poller);
        }
        if event == QUEUE_CONTROL {
            self.watch_for_private_memory(served, vrings);
        }
        poller.sleeps(Instant::now());
    }

    /// Waits for the end of the worker's pass, and keeps it from the next until the guard goes.
    fn between_passes(&self) -> MutexGuard<'_, Poller> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let poller = lock(&self.poller);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        poller
    }

    /// Lets go of the pass for who waits in [`Device::between_passes`]: the lock alone would most
    /// likely go to this thread again, for as long as its driver keeps it busy.
    fn make_way<'a>(&'a self, pass: MutexGuard<'a, Poller>) -> MutexGuard<'a, Poller> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return pass;
        }
        drop(pass);
        while self.waiting.load(Ordering::Acquire) > 0 {
            rustix::thread::sched_yield();
        }
        lock(&self.poller)
    }

    /// Starts to serve if the control ring runs: it is what a device starts and stops with, and
    /// the one that QEMU stops first.
    fn start(&self, vrings: &[Vring]) -> bool {
        let control = vrings.get(usize::from(QUEUE_CONTROL));
        if control.and_then(|vring| vring.with_queue(|_| ())).is_none() {
            return false;
        }
        self.running.store(true, Ordering::Release);
        // A reset device starts at index 0; a VM that was paused goes on where it was.
        let resumed = vrings.iter().any(|vring| vring.queue_next_avail() != 0);
        if let Some(mapper) = lock(&self.link.mapper).as_ref() {
            mapper.started(resumed);
        }
        true
    }

    /// The control ring is stopped: the driver was removed, the guest reset, or the VM paused.
    fn stop(&self) {
        let ran = self.running.swap(false, Ordering::AcqRel);
        // From here on the worker's pass is over, and the next finds its ring stopped.
        let poller = self.between_passes();
        // Again: it may have been about to start when the ring was stopped.
        if !self.running.swap(false, Ordering::AcqRel) && !ran {
            return;
        }
        self.link.forget_waiting();
        if let Some(mapper) = lock(&self.link.mapper).as_ref() {
            mapper.stopped();
        }
        drop(poller);
        let id = self.port.id();
        self.hub.call(|fabric, _| fabric.reset(id));
        // A copy that entered before must be out before the guest has its RAM back.
        let started = Instant::now();
        while !self.hub.call(|fabric, _| fabric.is_quiet(id)) && started.elapsed() < QUIET_WAIT {
            rustix::thread::sched_yield();
        }
        log::info!("{}: reset", self.port.title());
    }

    /// RAM that the VMM maps privately looks to the daemon as if the rings stayed empty.
    fn watch_for_private_memory(&self, served: usize, vrings: &[Vring]) {
        if self.hinted.load(Ordering::Relaxed) {
            return;
        }
        if served > 0 {
            self.hinted.store(true, Ordering::Relaxed);
        } else if self.empty_kicks.fetch_add(1, Ordering::Relaxed) + 1 >= EMPTY_KICKS
            && vrings.iter().all(|vring| vring.queue_next_avail() == 0)
        {
            self.hinted.store(true, Ordering::Relaxed);
            log::warn!(
                "{}: kicks, but its rings stay empty: is its memory shared with the daemon? \
                 QEMU: -object memory-backend-memfd,…,share=on -machine memory-backend=…",
                self.port.title()
            );
        }
    }

    fn log_connected(&self, abilities: Abilities, asked_shmem: bool) {
        let title = self.port.title();
        match (abilities.window, abilities.copied) {
            (Some(bytes), _) => log::info!("{title}: connected, window {} MiB", bytes >> 20),
            (None, false) => {
                log::warn!("{title}: connected, but its driver takes neither window nor move queue")
            }
            (None, true) if asked_shmem => {
                log::info!("{title}: connected, copied mode: its driver takes no window");
            }
            (None, true) => log::info!(
                "{title}: connected, copied mode: its front-end has no shared memory regions \
                 (QEMU before 11.1, or not a vhost-user-test-device-pci)"
            ),
        }
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        usize::from(QUEUE_COUNT)
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    /// `F_WINDOW` is offered before it is known whether the front-end can map; a driver learns
    /// that from the configuration space, where `window_size` is then 0.
    fn features(&self) -> u64 {
        (1 << VIRTIO_F_VERSION_1)
            | (1 << VIRTIO_RING_F_EVENT_IDX)
            | (1 << VIRTIO_RING_F_INDIRECT_DESC)
            | (1 << F_WINDOW)
            | (1 << F_MOVE)
            | (1 << F_BOARD)
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        let (before, asked_shmem, has_window) = {
            let negotiated = lock(&self.negotiated);
            let has_window = lock(&self.link.mapper).is_some();
            (negotiated.abilities, negotiated.asked_shmem, has_window)
        };
        let window = has_window && features & (1 << F_WINDOW) != 0;
        let abilities = Abilities {
            window: window.then_some(self.config.window_size.bytes()),
            copied: features & (1 << F_MOVE) != 0,
            board: features & (1 << F_BOARD) != 0,
        };
        if abilities != before {
            self.connect(abilities);
        }
        self.log_connected(abilities, asked_shmem);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let bells = match self.port.kind() {
            Kind::Process => VhostUserProtocolFeatures::SHARED_OBJECT,
            Kind::Vm => VhostUserProtocolFeatures::empty(),
        };
        bells
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::SHMEM
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&self) {
        self.stop();
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The library has told the queues.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let id = self.port.id();
        let config = self.hub.call(|fabric, _| fabric.config(id));
        // The library checks that the range is inside 256 bytes; past our fields it is zeros.
        let bytes = config.into_iter().chain(std::iter::repeat(0));
        bytes.skip(offset as usize).take(size as usize).collect()
    }

    fn set_config(&self, _offset: u32, _bytes: &[u8]) -> io::Result<()> {
        // The configuration is read-only; QEMU sends the whole of it for a guest's single write.
        Ok(())
    }

    fn update_memory(&self, memory: AtomicMemory) -> io::Result<()> {
        let memory = memory.memory().into_inner();
        if let Err(error) = check_guest_memory(&memory, self.config.allow_unsealed_memory) {
            self.link.set_memory(None);
            log::error!("{}: {error}", self.port.title());
            return Err(io::Error::other(error));
        }
        self.link.set_memory(Some(memory));
        lock(&self.negotiated).memory = true;
        // A front-end may have taken RAM away for a moment: who looked at a ring then has found
        // nothing, and is not kicked again for what was there.
        for vring in self.link.vrings.get().into_iter().flatten() {
            vring.wake_worker();
        }
        Ok(())
    }

    fn set_backend_req_fd(&self, requests: FrontendRequests) {
        lock(&self.negotiated).requests = Some(requests);
        self.open_window();
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        lock(&self.negotiated).asked_shmem = true;
        self.open_window();
        let mut sizes = [0; SHM_WINDOW as usize + 1];
        if let Some(size) = sizes.last_mut() {
            *size = self.config.window_size.bytes();
        }
        Ok(VhostUserShMemConfig::new(1, &sizes))
    }

    /// The shared object named by a peer's GID is an end of the bell of the two.
    fn get_shared_object(&self, object: VhostUserSharedMsg) -> io::Result<File> {
        let end = self.hub.bell(&self.port, object.uuid.as_bytes());
        end.map(File::from).inspect_err(|error| {
            log::debug!("{}: no bell with {}: {error}", self.port.title(), object.uuid);
        })
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit.take()
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        if queue == u32::from(QUEUE_CONTROL) {
            self.stop();
        }
        // Whatever queue it is: a pass that took buffers from it is over.
        drop(self.between_passes());
        Ok(())
    }

    fn handle_event(&self, event: u16, _: EventSet, vrings: &[Vring], _: usize) -> io::Result<()> {
        // An error here would end the worker silently, and a panic even without its locks.
        if catch_unwind(AssertUnwindSafe(|| self.serve(event, vrings))).is_err() {
            log::error!("{}: its worker panicked; it is not served on", self.port.title());
            self.close();
        }
        Ok(())
    }
}
