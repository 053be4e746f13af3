// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A port through the daemon: this process is the vhost-user front-end and the driver in one.
//!
//! Invariant: the daemon sees what it sees of QEMU, in the same order; a daemon that dies, hangs or lies is an
//! [`Error`] here.
//!
//! [`door`] gets this process in, [`connection`] brings the device up, [`channel`] answers its map requests
//! from a thread of its own into the [`window`], and the [`queue`]s are in a memory file of this process.

mod channel;
mod connection;
mod door;
mod message;
mod queue;
mod window;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ism_abi::{EVENT_SIZE, Gid, QUEUE_CONTROL, QUEUE_EVENT, QUEUE_SIGNAL, SignalRequest};
use rustix::event::{PollFd, PollFlags, poll};
use smc_ring::View;

use crate::codec::{Carrier, Coded};
use crate::driver::Device;
use crate::error::{Error, Result};
use crate::own::Own;
use channel::Channel;
use connection::Connection;
use queue::{Buffer, Queue};
use window::Window;

pub use door::enter;

/// Where the daemon's socket for processes is if nobody says anything else.
pub const SOCKET: &str = "/run/vhost-user-ism/apps.sock";

/// How long the daemon may take for an answer; it waits for peers for 2 s at most. One that takes longer is
/// taken as dead (ISM-DRV-14).
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an event's buffer.
const EVENT_LEN: u32 = 64;
const _: () = assert!(EVENT_LEN as usize == EVENT_SIZE, "the longest event fits");
/// Bytes kept for a request, and for its reply.
const CONTROL_ROOM: u32 = 256;

/// Becomes a member through the daemon's door at `socket`.
///
/// # Errors
/// Nobody listens there, the daemon does not let this process in, or cannot serve it.
pub fn join(socket: &Path) -> Result<Device> {
    over(door::enter(socket)?)
}

/// As [`join`], on the connection that the door gave.
///
/// # Errors
/// The daemon cannot serve this process.
pub fn over(connection: UnixStream) -> Result<Device> {
    let (port, config) = Port::new(connection)?;
    Device::new(Box::new(Coded::new(port, &config)?))
}

/// The queues and what is behind them. Fields are dropped in this order: the thread, then the socket.
struct Port {
    _channel: Channel,
    connection: Mutex<Connection>,
    /// The connection's socket, to see it hang up.
    socket: Own,
    /// It has hung up.
    gone: AtomicBool,
    /// The process that joined. A child of fork has these queues too, but no part in them.
    process: u32,
    window: Arc<Window>,
    control: Mutex<Queue>,
    events: Mutex<Queue>,
    /// The events' interrupt, outside of the lock.
    interrupt: Own,
    signals: Mutex<Queue>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a queue is held leaves it whole: it is changed by single calls.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Port {
    fn new(stream: UnixStream) -> Result<(Self, Vec<u8>)> {
        let socket = Own::copy(&stream).map_err(Error::io("dup"))?;
        let mut connection = Connection::open(stream)?;
        let window = Arc::new(Window::default());
        let channel = Channel::open(&mut connection, &window)?;
        let config = connection.config()?;
        let (queues, ram) = queue::all()?;
        connection.start(&queues, &ram)?;
        let [control, mut events, signals] = queues;
        events.give_all(EVENT_LEN)?;
        events.kick()?;
        let interrupt = events.dup_call()?;
        let port = Self {
            _channel: channel,
            gone: AtomicBool::new(false),
            process: std::process::id(),
            interrupt,
            connection: Mutex::new(connection),
            socket,
            window,
            control: Mutex::new(control),
            events: Mutex::new(events),
            signals: Mutex::new(signals),
        };
        Ok((port, config))
    }

    /// Whether the daemon has hung up.
    fn check(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&zero)).is_ok_and(|ready| ready > 0) {
            self.gone.store(true, Ordering::Relaxed);
        }
        self.is_gone()
    }

    /// Whether it was seen to have hung up. Costs no system call.
    fn is_gone(&self) -> Result<()> {
        if self.gone.load(Ordering::Relaxed) { Err(Error::Gone) } else { Ok(()) }
    }

    /// Refuses a child of fork, which would spoil the queues for its parent.
    fn check_process(&self) -> Result<()> {
        if std::process::id() == self.process { Ok(()) } else { Err(Error::Gone) }
    }

    /// The daemon did not answer: what it still writes must not be taken for the next answer.
    fn give_up(&self) {
        self.gone.store(true, Ordering::Relaxed);
        // Its end of the socket closes, so whoever sleeps is woken, and peers are told.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Waits until a queue's descriptor is readable or the daemon hangs up.
    fn wait(&self, what: &'static str, queue: &Queue, until: Instant) -> Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout(what));
        }
        let timeout = rustix::time::Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [
            PollFd::from_borrowed_fd(queue.call_fd(), PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::RDHUP),
        ];
        // EINTR: look again.
        let _ = poll(&mut fds, Some(&timeout));
        let [_, socket] = &fds;
        if socket.revents().is_empty() { Ok(()) } else { Err(Error::Gone) }
    }
}

impl Carrier for Port {
    fn request(&self, what: &'static str, request: &[u8], room: usize) -> Result<Vec<u8>> {
        let too_long = || Error::Device(format!("{what} of {} bytes", request.len().max(room)));
        let len = u32::try_from(request.len()).ok().filter(|len| *len <= CONTROL_ROOM);
        let len = len.ok_or_else(too_long)?;
        let room = u32::try_from(room).ok().filter(|room| *room <= CONTROL_ROOM);
        let room = room.ok_or_else(too_long)?;
        self.check_process()?;
        let mut queue = lock(&self.control);
        self.check()?;
        let (from, to) = (Buffer::read(0, len), Buffer::write(CONTROL_ROOM, room));
        queue.data().write(0, request)?;
        queue.give(&[from, to])?;
        queue.kick()?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = queue.used()? {
                let written = used.written.min(room) as usize;
                let mut reply = vec![0; written];
                queue.data().read(CONTROL_ROOM as usize, &mut reply)?;
                return Ok(reply);
            }
            self.wait(what, &queue, until).inspect_err(|_| self.give_up())?;
            queue.drain();
        }
    }

    fn window(&self, offset: u64, len: usize) -> Result<View> {
        self.window.view(offset, len)
    }

    fn event(&self) -> Result<Option<[u8; EVENT_SIZE]>> {
        let mut queue = lock(&self.events);
        if queue.is_quiet()? {
            // A hang-up is looked for by who was woken.
            return self.is_gone().map(|()| None);
        }
        self.check_process()?;
        let Some(used) = queue.used()? else { return Ok(None) };
        let mut event = [0; EVENT_SIZE];
        let at = usize::from(used.head) * EVENT_SIZE;
        queue.data().read(at, &mut event)?;
        // The descriptor that is free first is the one that was used.
        queue.give(&[Buffer::write(u32::from(used.head) * EVENT_LEN, EVENT_LEN)])?;
        queue.kick()?;
        Ok(Some(event))
    }

    fn ring(&self, token: u64) -> Result<()> {
        self.check_process()?;
        let mut queue = lock(&self.signals);
        while queue.used()?.is_some() {}
        let until = Instant::now() + PATIENCE;
        let size = u32::try_from(SignalRequest::SIZE).unwrap_or(u32::MAX);
        let head = loop {
            if let Some(head) = queue.free() {
                break head;
            }
            // The daemon is behind by a whole queue.
            queue.want_call(true)?;
            if queue.used()?.is_none() {
                self.wait("signal", &queue, until).inspect_err(|_| self.give_up())?;
                queue.drain();
            }
        };
        // A place for each descriptor, so that none is written while the daemon may read it.
        let at = u32::from(head) * size;
        queue.data().write(at as usize, &SignalRequest { token }.to_bytes())?;
        queue.give(&[Buffer::read(at, size)])?;
        queue.kick()
    }

    fn arm(&self) -> Result<bool> {
        // A hang-up makes the socket readable, so it need not be asked for.
        self.is_gone()?;
        let queue = lock(&self.events);
        queue.want_call(true)?;
        queue.is_quiet()
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.interrupt.as_fd(), self.socket.as_fd()]
    }

    fn drain(&self) {
        lock(&self.events).drain();
        // What it finds is told by the next look.
        let _ = self.check();
    }

    fn bell(&self, gid: Gid) -> Result<Option<OwnedFd>> {
        self.check_process()?;
        let connection = lock(&self.connection);
        // The daemon gives an end once: one that finds no free descriptor here is lost for as long as the pair lives.
        drop(Own::copy(&self.socket).map_err(Error::io("dup"))?);
        connection.shared_object(gid)
    }
}

/// The queues of a driver without a move queue, in their order.
const QUEUES: [(u16, u16); 3] = [(QUEUE_CONTROL, 4), (QUEUE_EVENT, 256), (QUEUE_SIGNAL, 64)];
