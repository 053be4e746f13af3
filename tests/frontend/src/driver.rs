// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device driver: control requests, doorbells, moves and events over the four queues.
//!
//! Invariant: a buffer given to the device stays allocated until the device has used it, and every
//! wait has a deadline.

use std::path::Path;
use std::time::{Duration, Instant};

use ism_abi::{
    Config, MoveReply, MoveRequest, QUEUE_CONTROL, QUEUE_COUNT, QUEUE_EVENT, QUEUE_MOVE,
    QUEUE_SIGNAL, ReplyHeader, SignalRequest, status,
};

use crate::connection::{Connection, Options, VIRTIO_F_EVENT_IDX};
use crate::error::{Error, Result};
use crate::events::{Event, EventBuffers};
use crate::memory::SharedBytes;
use crate::virtqueue::{Buffer, Used, Virtqueue};

/// How long an answer may take before the device counts as dead: generous, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes kept for one control request, and for its reply.
const CONTROL_ROOM: u64 = 4096;

/// A member's driver.
#[derive(Debug)]
pub struct Driver {
    /// Ends before the queues: the daemon lets go of the rings when the socket closes.
    connection: Connection,
    queues: Vec<Virtqueue>,
    config: Config,
    request_at: u64,
    reply_at: u64,
    events: EventBuffers,
    move_at: u64,
    signal_at: u64,
}

impl Driver {
    /// Connects, reads the configuration and starts the rings. Sends no HELLO.
    pub fn connect(socket: &Path, options: Options) -> Result<Self> {
        Self::bring_up(Connection::open(socket, options)?)
    }

    /// As [`Driver::connect`], then HELLO.
    pub fn join(socket: &Path, options: Options) -> Result<Self> {
        let mut driver = Self::connect(socket, options)?;
        driver.hello()?;
        Ok(driver)
    }

    /// Starts the rings of an open connection.
    pub fn bring_up(mut connection: Connection) -> Result<Self> {
        let config = connection.config()?;
        let queues = new_queues(&connection)?;
        connection.start(&queues)?;
        let ram = connection.ram().clone();
        let mut driver = Self {
            request_at: ram.allocate(CONTROL_ROOM)?,
            reply_at: ram.allocate(CONTROL_ROOM)?,
            events: EventBuffers::new(&ram, connection.options().queue_size)?,
            move_at: ram.allocate(move_room(&config))?,
            signal_at: ram.allocate(signal_room(connection.options().queue_size))?,
            connection,
            queues,
            config,
        };
        driver.events.post_all(queue(&mut driver.queues, QUEUE_EVENT)?)?;
        Ok(driver)
    }

    /// Resets the device and starts its rings again, empty. Sends no HELLO.
    pub fn reset(&mut self) -> Result<()> {
        self.connection.stop()?;
        self.queues = new_queues(&self.connection)?;
        self.connection.start(&self.queues)?;
        self.events.forget();
        self.events.post_all(queue(&mut self.queues, QUEUE_EVENT)?)
    }

    /// The configuration space as read at the start.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The connection below.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// One of the queues, for single steps.
    pub fn queue(&mut self, index: u16) -> Result<&mut Virtqueue> {
        queue(&mut self.queues, index)
    }

    /// `len` bytes of the window, mapped.
    pub fn window(&self, offset: u64, len: u64) -> Result<SharedBytes> {
        let window = self.connection.window().ok_or(Error::NotMapped { offset, len })?;
        let extent = window.find(offset, len)?;
        let within = offset - extent.offset;
        SharedBytes::of_extent(extent).part(within, len)
    }

    // ---- Control queue --------------------------------------------------------------------------

    /// Sends `request` as it is, with room for `room` bytes of reply; all bytes of the reply.
    pub fn request(&mut self, request: &[u8], room: usize) -> Result<Vec<u8>> {
        self.start_request(request, room)?;
        self.finish_request(Instant::now() + PATIENCE)
    }

    /// The first half of [`Driver::request`]: makes the request available and rings.
    pub fn start_request(&mut self, request: &[u8], room: usize) -> Result<()> {
        let ram = self.connection.ram();
        ram.bytes(self.request_at, CONTROL_ROOM)?.write(0, request)?;
        let outside = Error::OutOfBounds { offset: 0, len: room as u64, size: CONTROL_ROOM };
        if room as u64 > CONTROL_ROOM {
            return Err(outside);
        }
        let mut chain = Vec::with_capacity(2);
        for (address, len, device_writes) in
            [(self.request_at, request.len(), false), (self.reply_at, room, true)]
        {
            if len > 0 {
                let len = u32::try_from(len).map_err(|_| Error::RingFull)?;
                chain.push(Buffer { address, len, device_writes });
            }
        }
        let control = queue(&mut self.queues, QUEUE_CONTROL)?;
        control.add(&chain)?;
        control.notify(1)
    }

    /// The second half of [`Driver::request`]: waits for the answer.
    pub fn finish_request(&mut self, deadline: Instant) -> Result<Vec<u8>> {
        let control = queue(&mut self.queues, QUEUE_CONTROL)?;
        let used = control.wait(deadline)?.ok_or(Error::Timeout("answer to a control request"))?;
        let ram = self.connection.ram();
        ram.bytes(self.reply_at, CONTROL_ROOM)?.part(0, u64::from(used.written))?.to_vec()
    }

    /// Sends a command and reads its answer's body, of exactly `body` bytes.
    pub(crate) fn command(&mut self, request: &[u8], body: usize) -> Result<Vec<u8>> {
        let reply = self.request(request, ReplyHeader::SIZE + body)?;
        let short = || Error::Device(format!("a control reply of {} bytes", reply.len()));
        let header = ReplyHeader::from_bytes(&reply).ok_or_else(short)?;
        if header.status != status::OK {
            return Err(Error::Status(header.status));
        }
        let rest = reply.get(ReplyHeader::SIZE..).filter(|rest| rest.len() == body);
        rest.map(<[u8]>::to_vec).ok_or_else(short)
    }

    // ---- Signals and moves ----------------------------------------------------------------------

    /// Rings for the DMB of this token, through the device. Does not wait: whoever the token is
    /// not for is not told.
    pub fn signal(&mut self, token: u64) -> Result<()> {
        let signals = queue(&mut self.queues, QUEUE_SIGNAL)?;
        while signals.poll()?.is_some() {}
        if signals.free_descriptors() == 0 {
            let deadline = Instant::now() + PATIENCE;
            signals.wait(deadline)?.ok_or(Error::Timeout("room in the signal queue"))?;
        }
        // A place for each descriptor, so that none is written while the device may read it.
        let slot = signals.next_free().ok_or(Error::RingFull)?;
        let address = self.signal_at + u64::from(slot) * SignalRequest::SIZE as u64;
        let request = SignalRequest { token }.to_bytes();
        let place = self.connection.ram().bytes(address, request.len() as u64)?;
        place.write(0, &request)?;
        signals.add(&[Buffer::readable(address, len32(request.len())?)])?;
        signals.notify(1)
    }

    /// Waits until the device has taken every signal of [`Driver::signal`].
    pub fn flush_signals(&mut self) -> Result<()> {
        let signals = queue(&mut self.queues, QUEUE_SIGNAL)?;
        while signals.free_descriptors() < usize::from(signals.size()) {
            let deadline = Instant::now() + PATIENCE;
            signals.wait(deadline)?.ok_or(Error::Timeout("signals taken by the device"))?;
        }
        Ok(())
    }

    /// Copied mode: has the device copy `payload` to `offset` of the DMB, and signal its owner.
    pub fn move_to(&mut self, token: u64, offset: u32, payload: &[u8], signal: bool) -> Result<()> {
        let len = len32(payload.len())?;
        let signal = u32::from(signal);
        let request = MoveRequest { token, offset, len, signal, reserved: 0 };
        self.move_raw(&request.to_bytes(), payload)
    }

    /// As [`Driver::move_to`], with the request's bytes as they are.
    pub fn move_raw(&mut self, request: &[u8], payload: &[u8]) -> Result<()> {
        let total = (request.len() + payload.len()) as u64;
        let room = move_room(&self.config);
        let reply_at = total.next_multiple_of(8);
        let bytes = self.connection.ram().bytes(self.move_at, room)?;
        bytes.write(0, request)?;
        bytes.write(request.len() as u64, payload)?;
        bytes.store(reply_at, u32::MAX, std::sync::atomic::Ordering::Relaxed)?;
        let moves = queue(&mut self.queues, QUEUE_MOVE)?;
        let readable = u32::try_from(total).map_err(|_| Error::RingFull)?;
        moves.add(&[
            Buffer::readable(self.move_at, readable),
            Buffer::writable(self.move_at + reply_at, len32(MoveReply::SIZE)?),
        ])?;
        moves.notify(1)?;
        let deadline = Instant::now() + PATIENCE;
        let Used { written, .. } =
            moves.wait(deadline)?.ok_or(Error::Timeout("answer to a move"))?;
        let mut reply = [0; MoveReply::SIZE];
        bytes.read(reply_at, &mut reply)?;
        match MoveReply::from_bytes(&reply) {
            Some(MoveReply { status: status::OK }) if written == len32(MoveReply::SIZE)? => Ok(()),
            Some(MoveReply { status }) if written == len32(MoveReply::SIZE)? => {
                Err(Error::Status(status))
            }
            _ => Err(Error::Device(format!("a move reply of {written} bytes"))),
        }
    }

    // ---- Events ---------------------------------------------------------------------------------

    /// The next event if one is there now.
    pub fn poll_event(&mut self) -> Result<Option<Event>> {
        let events = queue(&mut self.queues, QUEUE_EVENT)?;
        let used = events.poll()?;
        used.map(|used| self.events.take(events, used)).transpose()
    }

    /// The next event, waited for until `deadline`.
    pub fn next_event(&mut self, deadline: Instant) -> Result<Event> {
        let events = queue(&mut self.queues, QUEUE_EVENT)?;
        let used = events.wait(deadline)?.ok_or(Error::Timeout("event"))?;
        self.events.take(events, used)
    }

    /// Whether event buffers go back to the device as soon as they are read (they do at first).
    /// When they do again, all that were kept go back at once.
    pub fn return_event_buffers(&mut self, at_once: bool) -> Result<()> {
        self.events.return_at_once(queue(&mut self.queues, QUEUE_EVENT)?, at_once)
    }
}

fn new_queues(connection: &Connection) -> Result<Vec<Virtqueue>> {
    let event_idx = connection.offers(VIRTIO_F_EVENT_IDX) && connection.options().event_idx;
    let size = connection.options().queue_size;
    (0..QUEUE_COUNT).map(|_| Virtqueue::new(connection.ram(), size, event_idx)).collect()
}

fn queue(queues: &mut [Virtqueue], index: u16) -> Result<&mut Virtqueue> {
    let count = queues.len() as u64;
    let outside = Error::OutOfBounds { offset: index.into(), len: 1, size: count };
    queues.get_mut(usize::from(index)).ok_or(outside)
}

/// Bytes for one move request with the longest payload and its reply.
fn move_room(config: &Config) -> u64 {
    (MoveRequest::SIZE + MoveReply::SIZE + 8) as u64 + u64::from(config.max_move_len)
}

fn signal_room(queue_size: u16) -> u64 {
    u64::from(queue_size) * SignalRequest::SIZE as u64
}

fn len32(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| Error::NoRam(len as u64))
}
