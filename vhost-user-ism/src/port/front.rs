// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One VM's front-ends, one after the other: accept, serve, clean up.
//!
//! Invariant: when a front-end is gone, whatever the reason, its VM is off the fabric before the
//! next is accepted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::{Error as DaemonError, ShutdownHandle, VhostUserDaemon};

use super::Port;
use super::backend::Device;
use super::poll::Seats;
use super::vring::{AtomicMemory, lock};
use crate::config::FabricConfig;
use crate::hub::Hub;
use crate::memory::GuestMemory;
use crate::socket::Listening;

/// Rest after a front-end that could not be served: what was missing (a descriptor, say) may be
/// missing at once again, with a line in the log each time.
const BREATH: Duration = Duration::from_millis(100);

/// A VM that is served by a thread of its own, until it is dropped.
pub struct Front {
    port: Arc<Port>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

struct Stop {
    wake: OwnedFd,
    stopping: AtomicBool,
    connection: Mutex<Option<ShutdownHandle>>,
}

/// What a VM is served with.
pub struct Served {
    /// The fabric.
    pub hub: Arc<Hub>,
    /// The VM.
    pub port: Arc<Port>,
    /// What all VMs share.
    pub config: FabricConfig,
    /// Who may poll.
    pub seats: Arc<Seats>,
    /// Called by the thread when it has served one front-end and ends; `None`: it serves the next.
    pub ended: Option<Box<dyn Fn() + Send>>,
}

impl Front {
    /// Starts serving a VM at `listening`.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn start(served: Served, listening: Listening) -> io::Result<Self> {
        let stop = Arc::new(Stop {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stopping: AtomicBool::new(false),
            connection: Mutex::new(None),
        });
        let port = Arc::clone(&served.port);
        let own_stop = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(format!("vm-{}", port.name()))
            .spawn(move || serve(&served, &listening, &own_stop))?;
        Ok(Self { port, stop, thread: Some(thread) })
    }

    /// The VM.
    pub fn port(&self) -> &Port {
        &self.port
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.stopping.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes());
        if let Some(connection) = lock(&self.stop.connection).take() {
            connection.shutdown();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("{}: its thread panicked", self.port.title());
        }
    }
}

fn serve(served: &Served, listening: &Listening, stop: &Stop) {
    let title = served.port.title();
    while wait_for_front_end(listening, stop) {
        let device = match Device::new(
            Arc::clone(&served.hub),
            Arc::clone(&served.port),
            served.config.clone(),
            Arc::clone(&served.seats),
        ) {
            Ok(device) => Arc::new(device),
            Err(error) => {
                log::error!("{title}: a front-end is turned away: {error}");
                drop(listening.socket().accept());
                if served.ended.is_some() {
                    break;
                }
                std::thread::sleep(BREATH);
                continue;
            }
        };
        let end = catch_unwind(AssertUnwindSafe(|| serve_one(&device, listening, stop, served)));
        device.close();
        device.disconnect();
        match end {
            Ok(Ok(())) => log::info!("{title}: gone"),
            Ok(Err(error)) => {
                log::warn!("{title}: gone: {}", explain(&error, &device));
                if served.ended.is_none() && !matches!(error, DaemonError::HandleRequest(_)) {
                    std::thread::sleep(BREATH);
                }
            }
            Err(_) => log::error!("{title}: gone: its connection's thread panicked"),
        }
        if served.ended.is_some() {
            break;
        }
    }
    if let Some(ended) = &served.ended {
        ended();
    }
}

/// Waits for a connection; false: the VM is no longer served.
fn wait_for_front_end(listening: &Listening, stop: &Stop) -> bool {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(stop.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(listening.socket().as_fd(), PollFlags::IN),
        ];
        // EINTR: look again.
        let _ = poll(&mut fds, None);
        if stop.stopping.load(Ordering::Acquire) {
            return false;
        }
        let [_, socket] = &fds;
        if socket.revents().contains(PollFlags::IN) {
            return true;
        }
    }
}

fn serve_one(
    device: &Arc<Device>,
    listening: &Listening,
    stop: &Stop,
    served: &Served,
) -> Result<(), DaemonError> {
    let socket = listening.socket().try_clone().map_err(DaemonError::StartDaemon)?;
    let mut listener = Listener::from(socket);
    let memory = AtomicMemory::new(GuestMemory::new());
    let name = format!("vu-{}", served.port.name());
    let mut daemon = VhostUserDaemon::new(name, Arc::clone(device), memory)?;
    daemon.start(&mut listener)?;
    if served.ended.is_some() {
        // Nobody else is waited for: who connects now is turned away by the kernel.
        let _ = rustix::net::shutdown(listening.socket(), rustix::net::Shutdown::Both);
    }
    *lock(&stop.connection) = daemon.shutdown_handle();
    if stop.stopping.load(Ordering::Acquire) {
        daemon.request_shutdown();
    }
    let result = daemon.wait();
    lock(&stop.connection).take();
    // The worker is joined when the daemon is dropped: it must not wait for more.
    device.close();
    drop(daemon);
    match result {
        // A front-end that goes, in the middle of a message or not.
        Err(DaemonError::HandleRequest(
            VhostUserError::Disconnected | VhostUserError::PartialMessage,
        )) => Ok(()),
        result => result,
    }
}

/// An error in words that help.
fn explain(error: &DaemonError, device: &Device) -> String {
    match error {
        // QEMU's memory table without a shared region has no descriptors (InvalidMessage), or is
        // not sent, and the rings are nowhere (InvalidParam).
        DaemonError::HandleRequest(
            VhostUserError::InvalidMessage | VhostUserError::InvalidParam,
        ) if !device.has_memory() => {
            "it gave the daemon no memory. If it is QEMU, the guest's memory is not shared: use \
             -object memory-backend-memfd,id=mem,size=…,share=on -machine memory-backend=mem"
                .to_owned()
        }
        error => error.to_string(),
    }
}
