// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One vhost-user connection, brought up in the order in which QEMU does it.
//!
//! Invariant: no ring runs before SET_FEATURES, and the daemon has no descriptor of ours that this
//! file did not send it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use ism_abi::{Config, F_MOVE, F_WINDOW, QUEUE_COUNT, SHM_WINDOW};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::memory::GuestRam;
use crate::virtqueue::Virtqueue;
use crate::window::Window;

/// Virtio feature bit: chains may use indirect descriptor tables.
pub const VIRTIO_F_INDIRECT_DESC: u32 = 28;
/// Virtio feature bit: notifications are suppressed by index.
pub const VIRTIO_F_EVENT_IDX: u32 = 29;
/// Virtio feature bit: the device conforms to virtio 1.
pub const VIRTIO_F_VERSION_1: u32 = 32;

/// What the front-end is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Offer SHMEM, that is, have a window.
    pub shmem: bool,
    /// Make the mapped extents memory slots of the daemon too, as QEMU does.
    pub mirror_slots: bool,
    /// Accept EVENT_IDX.
    pub event_idx: bool,
    /// Bytes of RAM.
    pub ram: u64,
    /// Seal the RAM's memfd against shrinking and growing.
    pub sealed: bool,
    /// Descriptors of each queue: a power of two.
    pub queue_size: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shmem: true,
            mirror_slots: true,
            event_idx: true,
            ram: 64 << 20,
            sealed: true,
            queue_size: 128,
        }
    }
}

impl Options {
    /// A front-end without SHMEM: an older VMM, or a confidential VM.
    pub fn copied() -> Self {
        Self { shmem: false, ..Self::default() }
    }
}

/// The connection, before and after its rings run.
#[derive(Debug)]
pub struct Connection {
    /// Ends first: its thread uses the socket.
    channel: Option<Channel>,
    frontend: FrontendHandle,
    socket: UnixStream,
    window: Option<Arc<Window>>,
    ram: Arc<GuestRam>,
    options: Options,
    offered: u64,
    accepted: u64,
}

/// `vhost::vhost_user::Frontend` has no `Debug`.
struct FrontendHandle(Frontend);

impl std::fmt::Debug for FrontendHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Frontend")
    }
}

impl Connection {
    /// Connects and does what QEMU does when it realizes the device: features, protocol features,
    /// the backend-request channel, the window.
    pub fn open(socket: &Path, options: Options) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(Error::io("connecting to the daemon"))?;
        Self::over(stream, options)
    }

    /// As [`Connection::open`], over a connected socket.
    pub fn over(stream: UnixStream, options: Options) -> Result<Self> {
        let socket = stream.try_clone().map_err(Error::io("duplicating the socket"))?;
        let ram = Arc::new(GuestRam::new(options.ram, options.sealed)?);
        let mut frontend = Frontend::from_stream(stream, u64::from(QUEUE_COUNT));
        let offered = frontend.get_features().map_err(Error::message("GET_FEATURES"))?;
        // vhost takes what it may send from SET_FEATURES; QEMU sends the bit later, with the rest.
        negotiate_protocol(&mut frontend, &options)?;
        let queues = frontend.get_queue_num().map_err(Error::message("GET_QUEUE_NUM"))?;
        if queues < u64::from(QUEUE_COUNT) {
            return Err(Error::Device(format!("{queues} queues instead of {QUEUE_COUNT}")));
        }
        frontend.set_owner().map_err(Error::message("SET_OWNER"))?;
        let window = options.shmem.then(|| reserve_window(&mut frontend)).transpose()?.flatten();
        let channel = window
            .as_ref()
            .map(|window| Channel::open(&mut frontend, window, options.mirror_slots))
            .transpose()?;
        Ok(Self {
            channel,
            frontend: FrontendHandle(frontend),
            socket,
            window,
            ram,
            options,
            offered,
            accepted: 0,
        })
    }

    /// Does what QEMU does at the guest's DRIVER_OK: features, memory table, rings.
    pub fn start(&mut self, queues: &[Virtqueue]) -> Result<()> {
        let mut wanted = 1 << VIRTIO_F_VERSION_1
            | 1 << F_MOVE
            | 1 << VIRTIO_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        wanted |= if self.window.is_some() { 1 << F_WINDOW } else { 0 };
        wanted |= if self.options.event_idx { 1 << VIRTIO_F_EVENT_IDX } else { 0 };
        self.accepted = self.offered & wanted;
        let frontend = &mut self.frontend.0;
        frontend.set_features(self.accepted).map_err(Error::message("SET_FEATURES"))?;
        frontend
            .add_mem_region(&self.ram.region())
            .map_err(Error::message("ADD_MEM_REG of the RAM"))?;
        for (index, queue) in queues.iter().enumerate() {
            start_queue(frontend, index, queue)?;
        }
        for index in 0..queues.len() {
            frontend.set_vring_enable(index, true).map_err(Error::message("SET_VRING_ENABLE"))?;
        }
        Ok(())
    }

    /// Does what QEMU does when the guest resets the device: stops the rings and drops all maps.
    pub fn stop(&mut self) -> Result<()> {
        let frontend = &mut self.frontend.0;
        for index in 0..usize::from(QUEUE_COUNT) {
            frontend.set_vring_enable(index, false).map_err(Error::message("SET_VRING_ENABLE"))?;
            frontend.get_vring_base(index).map_err(Error::message("GET_VRING_BASE"))?;
        }
        frontend
            .remove_mem_region(&self.ram.region())
            .map_err(Error::message("REM_MEM_REG of the RAM"))?;
        if let (Some(window), Some(channel)) = (&self.window, &self.channel) {
            channel.drop_all(frontend, window)?;
        }
        Ok(())
    }

    /// The device's configuration space.
    pub fn config(&mut self) -> Result<Config> {
        let bytes = self.config_bytes(0, Config::SIZE)?;
        Config::from_bytes(&bytes).ok_or_else(|| Error::Device("short configuration space".into()))
    }

    /// `len` bytes from `offset` of the device's configuration space.
    pub fn config_bytes(&mut self, offset: usize, len: usize) -> Result<Vec<u8>> {
        let too_large = |_| Error::OutOfBounds { offset: 0, len: len as u64, size: 0 };
        let (at, size) =
            (u32::try_from(offset).map_err(too_large)?, u32::try_from(len).map_err(too_large)?);
        let flags = VhostUserConfigFlags::empty();
        let (_, payload) = self
            .frontend
            .0
            .get_config(at, size, flags, &vec![0; len])
            .map_err(Error::message("GET_CONFIG"))?;
        Ok(payload)
    }

    /// Writes to the configuration space, which has no writable field.
    pub fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        let flags = VhostUserConfigFlags::empty();
        self.frontend.0.set_config(offset, flags, bytes).map_err(Error::message("SET_CONFIG"))
    }

    /// Adds a memory region of the caller's making.
    pub fn add_region(&mut self, region: &VhostUserMemoryRegionInfo) -> Result<()> {
        let added = self.frontend.0.add_mem_region(region);
        added.map(drop).map_err(Error::message("ADD_MEM_REG"))
    }

    /// Replaces the memory table.
    pub fn set_table(&mut self, regions: &[VhostUserMemoryRegionInfo]) -> Result<()> {
        let set = self.frontend.0.set_mem_table(regions);
        set.map(drop).map_err(Error::message("SET_MEM_TABLE"))
    }

    /// The vhost-user messages themselves.
    pub fn messages(&mut self) -> &mut Frontend {
        &mut self.frontend.0
    }

    /// The socket itself.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// The window, if both sides have SHMEM.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.window.as_ref()
    }

    /// The backend-request channel, if there is a window.
    pub fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// Features the device offered.
    pub fn offered_features(&self) -> u64 {
        self.offered
    }

    /// Whether this feature bit was accepted by [`Connection::start`].
    pub fn accepted(&self, bit: u32) -> bool {
        self.accepted & (1 << bit) != 0
    }

    /// Whether the device offered this feature bit.
    pub fn offers(&self, bit: u32) -> bool {
        self.offered & (1 << bit) != 0
    }

    /// What the front-end is like.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

fn negotiate_protocol(frontend: &mut Frontend, options: &Options) -> Result<()> {
    let offered =
        frontend.get_protocol_features().map_err(Error::message("GET_PROTOCOL_FEATURES"))?;
    let mut wanted = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::RESET_DEVICE
        | VhostUserProtocolFeatures::BACKEND_REQ
        | VhostUserProtocolFeatures::BACKEND_SEND_FD;
    if options.shmem {
        wanted |= VhostUserProtocolFeatures::SHMEM;
    }
    frontend
        .set_protocol_features(offered & wanted)
        .map_err(Error::message("SET_PROTOCOL_FEATURES"))?;
    // Every request is acknowledged from here on, so that a refusal is seen where it belongs.
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    Ok(())
}

/// Reserves what GET_SHMEM_CONFIG says; `None` if the device has no window.
fn reserve_window(frontend: &mut Frontend) -> Result<Option<Arc<Window>>> {
    let config = frontend.get_shmem_config().map_err(Error::message("GET_SHMEM_CONFIG"))?;
    let size = config.memory_sizes.get(usize::from(SHM_WINDOW)).copied().unwrap_or(0);
    if size == 0 {
        return Ok(None);
    }
    if !size.is_power_of_two() {
        return Err(Error::Device(format!("window of {size:#x} bytes: QEMU needs a power of two")));
    }
    Ok(Some(Arc::new(Window::reserve(size)?)))
}

/// QEMU's vhost_virtqueue_start().
fn start_queue(frontend: &mut Frontend, index: usize, queue: &Virtqueue) -> Result<()> {
    frontend.set_vring_num(index, queue.size()).map_err(Error::message("SET_VRING_NUM"))?;
    frontend.set_vring_base(index, 0).map_err(Error::message("SET_VRING_BASE"))?;
    frontend.set_vring_addr(index, &queue.config()).map_err(Error::message("SET_VRING_ADDR"))?;
    frontend.set_vring_kick(index, queue.kick_fd()).map_err(Error::message("SET_VRING_KICK"))?;
    frontend.set_vring_call(index, queue.call_fd()).map_err(Error::message("SET_VRING_CALL"))
}
