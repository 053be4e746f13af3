// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The backend-request channel: the daemon asks, the front-end maps (SHMEM_MAP, SHMEM_UNMAP).
//!
//! Invariant: requests are answered in order by one thread, which ends before the channel is
//! dropped.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ism_abi::SHM_WINDOW;
use rustix::io::Errno;
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandler,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::error::{Error, Result};
use crate::window::{Extent, Window};

/// Guest-physical address of the window: where a 64-bit BAR would be.
const WINDOW_BASE: u64 = 0x80_0000_0000;

/// How this front-end answers SHMEM_MAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MapPolicy {
    /// Maps, as QEMU does.
    Map = 0,
    /// Answers with an error.
    Refuse = 1,
    /// Reads no request at all until the policy changes.
    Stall = 2,
}

/// A request the daemon made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapRequest {
    /// SHMEM_MAP that was carried out.
    Map {
        /// Place in the window, in bytes.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Device and inode of the file.
        inode: (u64, u64),
    },
    /// SHMEM_UNMAP that was carried out.
    Unmap {
        /// Place in the window, in bytes.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// What the channel's thread maps into, and what it has done.
struct Handler {
    window: Arc<Window>,
    policy: Arc<AtomicU8>,
    done: Mutex<Vec<Done>>,
}

/// A request carried out, with what the memory table needs to follow it.
enum Done {
    Mapped(Arc<Extent>),
    Unmapped(VhostUserMemoryRegionInfo, MapRequest),
}

impl Handler {
    fn done(&self, what: Done) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(Errno::INVAL.raw_os_error())
}

/// The errno goes to the daemon; the reason, which it cannot see, goes to the test's log.
fn refused(error: &Error) -> io::Error {
    eprintln!("front-end refuses a request: {error}");
    invalid()
}

impl VhostUserFrontendReqHandler for Handler {
    fn shmem_map(&self, request: &VhostUserMMap, fd: &dyn AsRawFd) -> HandlerResult<u64> {
        // The message is packed: its fields are copied before use.
        let VhostUserMMap { shmid, fd_offset, shm_offset, len, flags, .. } = *request;
        let writable = flags & VhostUserMMapFlags::WRITABLE.bits() != 0;
        let refuse = self.policy.load(Ordering::Acquire) == MapPolicy::Refuse as u8;
        if refuse || !writable || shmid != SHM_WINDOW {
            return Err(invalid());
        }
        let extent = self.window.map(fd, fd_offset, shm_offset, len).map_err(|e| refused(&e))?;
        self.done(Done::Mapped(extent));
        Ok(0)
    }

    fn shmem_unmap(&self, request: &VhostUserMMap) -> HandlerResult<u64> {
        let VhostUserMMap { shmid, shm_offset: offset, len, .. } = *request;
        if shmid != SHM_WINDOW {
            return Err(invalid());
        }
        let extent = self.window.unmap(offset, len).map_err(|e| refused(&e))?;
        self.done(Done::Unmapped(slot(&extent), MapRequest::Unmap { offset, len }));
        Ok(0)
    }
}

/// The memory slot QEMU makes of a mapping: guest-physical addresses are the BAR's.
fn slot(extent: &Extent) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: WINDOW_BASE + extent.offset,
        memory_size: extent.len,
        userspace_addr: extent.address_in_process(),
        mmap_offset: extent.file_offset,
        mmap_handle: extent.file.as_raw_fd(),
    }
}

/// The channel: owns the thread that answers.
#[derive(Debug)]
pub struct Channel {
    policy: Arc<AtomicU8>,
    log: Arc<Mutex<Vec<MapRequest>>>,
    wake: EventFd,
    stop: Arc<AtomicBool>,
    /// Held while a mapping and its memory slot change together.
    changing: Arc<Mutex<()>>,
    mirror: bool,
    thread: Option<JoinHandle<()>>,
}

impl Channel {
    /// Opens the channel: hands one end to the daemon and starts to answer on the other. With
    /// `mirror`, each mapping becomes a memory slot of the daemon's table too, as under QEMU.
    pub fn open(frontend: &mut Frontend, window: &Arc<Window>, mirror: bool) -> Result<Self> {
        let policy = Arc::new(AtomicU8::new(MapPolicy::Map as u8));
        let handler = Arc::new(Handler {
            window: window.clone(),
            policy: policy.clone(),
            done: Mutex::default(),
        });
        let failed = |source| Error::Protocol { what: "SET_BACKEND_REQ_FD", source };
        let mut requests = FrontendReqHandler::new(handler.clone())
            .map_err(|error| failed(vhost::Error::VhostUserProtocol(error)))?;
        requests.set_reply_ack_flag(true);
        let daemon_end = requests.get_tx_raw_fd();
        frontend.set_backend_request_fd(&daemon_end).map_err(failed)?;
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::io("eventfd"))?;
        let log: Arc<Mutex<Vec<MapRequest>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let changing: Arc<Mutex<()>> = Arc::default();
        let mut server = Server {
            changing: changing.clone(),
            requests,
            handler,
            policy: policy.clone(),
            wake: wake.try_clone().map_err(Error::io("duplicating an eventfd"))?,
            stop: stop.clone(),
            log: log.clone(),
            table: mirror.then(|| frontend.clone()),
        };
        let thread = std::thread::Builder::new()
            .name("backend-channel".into())
            .spawn(move || server.run())
            .map_err(Error::io("starting the channel's thread"))?;
        Ok(Self { policy, log, wake, stop, changing, mirror, thread: Some(thread) })
    }

    /// Drops every mapping and its memory slot, as QEMU does when the guest resets the device.
    pub fn drop_all(&self, frontend: &mut Frontend, window: &Window) -> Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for extent in window.clear().into_iter().filter(|_| self.mirror) {
            frontend
                .remove_mem_region(&slot(&extent))
                .map_err(Error::message("REM_MEM_REG of a mapping"))?;
        }
        Ok(())
    }

    /// Changes how SHMEM_MAP is answered.
    pub fn set_policy(&self, policy: MapPolicy) -> Result<()> {
        self.policy.store(policy as u8, Ordering::Release);
        self.wake.write(1).map_err(Error::io("waking the channel"))
    }

    /// Every request carried out so far.
    pub fn log(&self) -> Vec<MapRequest> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Fails only if the counter is full, and then the thread is being woken already.
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; the requests it left unanswered are the
            // daemon's to report.
            let _ = thread.join();
        }
    }
}

/// Asks epoll for `events` of `fd`, to be told apart by the descriptor's number.
fn interest(fd: RawFd, events: EventSet) -> EpollEvent {
    EpollEvent::new(events, u64::from(fd.unsigned_abs()))
}

/// The thread's state.
struct Server {
    changing: Arc<Mutex<()>>,
    requests: FrontendReqHandler<Handler>,
    handler: Arc<Handler>,
    policy: Arc<AtomicU8>,
    wake: EventFd,
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<MapRequest>>>,
    /// Where mapped memory is announced, if it is.
    table: Option<Frontend>,
}

impl Server {
    fn run(&mut self) {
        if let Err(error) = self.serve() {
            eprintln!("front-end's channel ends: {error}");
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let epoll = Epoll::new()?;
        for fd in [self.wake.as_raw_fd(), self.requests.as_raw_fd()] {
            epoll.ctl(ControlOperation::Add, fd, interest(fd, EventSet::IN))?;
        }
        let mut stalled = false;
        while !self.stop.load(Ordering::Acquire) {
            let stall = self.is_to_stall();
            if stall != stalled {
                // While stalled, the requests' socket must not wake the thread.
                let fd = self.requests.as_raw_fd();
                let events = if stall { EventSet::empty() } else { EventSet::IN };
                epoll.ctl(ControlOperation::Modify, fd, interest(fd, events))?;
                stalled = stall;
            }
            let mut ready = [EpollEvent::default(); 2];
            let n = match epoll.wait(-1, &mut ready) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            for event in ready.iter().take(n) {
                if event.fd() == self.wake.as_raw_fd() {
                    // Empty only if somebody else read it: nobody does.
                    let _ = self.wake.read();
                } else if !self.is_to_stall() {
                    // What is asked after it was told to stall can come together with that.
                    self.answer().map_err(io::Error::other)?;
                }
            }
        }
        Ok(())
    }

    fn is_to_stall(&self) -> bool {
        self.policy.load(Ordering::Acquire) == MapPolicy::Stall as u8
    }

    fn answer(&mut self) -> std::result::Result<(), vhost::vhost_user::Error> {
        let changing = self.changing.clone();
        let _changing = changing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.requests.handle_request() {
            // Answered with an error; the channel goes on.
            Ok(_) | Err(vhost::vhost_user::Error::ReqHandlerError(_)) => {}
            Err(error) => return Err(error),
        }
        let done =
            std::mem::take(&mut *self.handler.done.lock().unwrap_or_else(PoisonError::into_inner));
        for what in done {
            let (entry, sent) = match what {
                Done::Mapped(extent) => {
                    let sent = self
                        .table
                        .as_mut()
                        .map(|table| table.add_mem_region(&slot(&extent)).map(drop));
                    let (offset, len, inode) = (extent.offset, extent.len, extent.inode);
                    (MapRequest::Map { offset, len, inode }, sent)
                }
                Done::Unmapped(slot, entry) => {
                    (entry, self.table.as_mut().map(|table| table.remove_mem_region(&slot)))
                }
            };
            if let Some(Err(error)) = sent {
                eprintln!("front-end's memory slot after {entry:?}: {error}");
            }
            self.log.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
        Ok(())
    }
}
