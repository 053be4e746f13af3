// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Doors: sockets at which host processes become members (spec/decisions/0004).
//!
//! Invariant: a process is a member only after its user was checked, and only as long as it holds the
//! connection that it was given; each has a GID that no other member has had.

mod admission;
mod entrance;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use ism_abi::door::{ADMITTED, REFUSED_ERROR};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::config::{Gid, Listen, Name, ProcessesConfig, VmConfig};
use crate::daemon::Daemon;
use crate::port::Kind;
use crate::port::front::Front;
use crate::port::vring::lock;
use crate::socket::Listening;
use admission::{Admission, Refusal};

pub(crate) use admission::is_for_others;

/// Rest after a connection that could not be accepted: no descriptors are left, most likely.
const BREATH: Duration = Duration::from_millis(100);

/// A door that is open until it is dropped.
pub struct Door {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    config: ProcessesConfig,
    wake: OwnedFd,
    closing: AtomicBool,
    members: Mutex<HashMap<u64, Inside>>,
    /// Members whose front-end is gone, to be removed.
    ended: Mutex<Vec<u64>>,
}

/// A process that was let in.
struct Inside {
    config: VmConfig,
    front: Front,
}

impl Door {
    /// Lets processes in at `listening`.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn open(
        daemon: Weak<Daemon>,
        config: ProcessesConfig,
        listening: Listening,
    ) -> io::Result<Self> {
        let state = Arc::new(State {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            closing: AtomicBool::new(false),
            members: Mutex::default(),
            ended: Mutex::default(),
            config,
        });
        let keeper = Keeper { daemon, state: Arc::clone(&state), listening, next: 1 };
        let name = format!("door-{}", state.config.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || keeper.work())?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// The members that came in here, each with its connection.
    pub fn for_each(&self, mut show: impl FnMut(&VmConfig, &Front)) {
        let members = lock(&self.state.members);
        let mut numbers: Vec<_> = members.keys().copied().collect();
        numbers.sort_unstable();
        for inside in numbers.iter().filter_map(|number| members.get(number)) {
            show(&inside.config, &inside.front);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::Release);
        self.state.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("processes {}: the door's thread panicked", self.state.config.name);
        }
        // Joins their threads, so without the lock.
        let members = std::mem::take(&mut *lock(&self.state.members));
        drop(members);
    }
}

impl State {
    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn end(&self, number: u64) {
        lock(&self.ended).push(number);
        self.wake();
    }
}

/// The door's thread.
struct Keeper {
    daemon: Weak<Daemon>,
    state: Arc<State>,
    listening: Listening,
    next: u64,
}

impl Keeper {
    fn work(mut self) {
        while self.wait() {
            self.remove_ended();
            match self.listening.socket().accept() {
                Ok((client, _)) => self.receive(&client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    log::warn!("processes {}: {error}", self.state.config.name);
                    std::thread::sleep(BREATH);
                }
            }
        }
    }

    /// Waits for a process or for the end of one; false: the door closes.
    fn wait(&self) -> bool {
        let state = &self.state;
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(state.wake.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.listening.socket().as_fd(), PollFlags::IN),
            ];
            // EINTR: look again.
            let _ = poll(&mut fds, None);
            let _ = rustix::io::read(&state.wake, &mut [0; 8]);
            if state.closing.load(Ordering::Acquire) {
                return false;
            }
            let [_, socket] = &fds;
            if socket.revents().contains(PollFlags::IN) {
                return true;
            }
            self.remove_ended();
        }
    }

    fn remove_ended(&self) {
        let ended = std::mem::take(&mut *lock(&self.state.ended));
        for number in ended {
            let inside = lock(&self.state.members).remove(&number);
            let (Some(inside), Some(daemon)) = (inside, self.daemon.upgrade()) else { continue };
            daemon.remove_process(inside.front);
        }
    }

    /// Lets a process in, or says why not.
    fn receive(&mut self, client: &UnixStream) {
        // So that a process that does not read cannot stop the door.
        if client.set_nonblocking(true).is_err() {
            return;
        }
        match self.admit(client) {
            Ok((name, connection)) => {
                log::info!("processes {}: {name} is let in", self.state.config.name);
                if let Err(error) =
                    entrance::say(client, ADMITTED, name.as_str(), Some(&connection))
                {
                    log::debug!("{name}: it went before it was let in: {error}");
                }
            }
            Err(refusal) => {
                log::warn!("processes {}: refused: {refusal}", self.state.config.name);
                let _ = entrance::say(client, refusal.code(), &refusal.to_string(), None);
            }
        }
    }

    fn admit(&mut self, client: &UnixStream) -> Result<(Name, UnixStream), Refusal> {
        let inside = lock(&self.state.members).len();
        let config = &self.state.config;
        let who = Admission::check(config, client, inside)?;
        let number = self.next;
        let error = |error: String| Refusal::Lacking(error);
        let name = format!("{}.{number}", config.name);
        let vm = VmConfig {
            name: name.parse().map_err(|_| error(format!("`{name}` is too long a name")))?,
            listen: Listen::Path(config.socket.clone()),
            groups: config.groups.clone(),
            gid: Gid::random().map_err(|it| error(it.to_string()))?,
            quota: config.quota,
        };
        let daemon = self.daemon.upgrade().ok_or_else(|| error("the daemon ends".to_owned()))?;
        let (listening, connection) = entrance::private().map_err(|it| error(it.to_string()))?;
        let state = Arc::downgrade(&self.state);
        let ended = Box::new(move || {
            if let Some(state) = state.upgrade() {
                state.end(number);
            }
        });
        let front = daemon.serve(&vm, listening, Kind::Process, Some(ended));
        let front = front.map_err(|it| error(it.to_string()))?;
        self.next += 1;
        let name = vm.name.clone();
        // 0: it has none here.
        let pid = who.pid.unwrap_or(0);
        log::debug!("{name}: process {pid} of user {}, GID {}", who.uid, vm.gid);
        lock(&self.state.members).insert(number, Inside { config: vm, front });
        Ok((name, connection))
    }
}

impl Refusal {
    fn code(&self) -> u8 {
        use ism_abi::door::{REFUSED_FULL, REFUSED_USER};
        match self {
            Self::User { .. } => REFUSED_USER,
            Self::Full(_) => REFUSED_FULL,
            Self::Lacking(_) => REFUSED_ERROR,
        }
    }
}
