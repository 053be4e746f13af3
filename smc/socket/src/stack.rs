// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process's stack: makes sockets, dispatches, sleeps.
//!
//! Invariant: cheap to clone, all clones are one; it has no thread of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ism_client::Device;
use ism_client::board::Told;
use ism_client::own::Own;
use rustix::event::epoll::{self, EventData, EventFlags};
use smc_proto::endpoint::{Endpoint, Late};
use smc_proto::handshake::route::Route;
use smc_proto::id::ConnId;
use smc_proto::stats::Stats;
use smc_wire::clc::Diagnosis;

use crate::config::Config;
use crate::control::Control;
use crate::core::Core;
use crate::error::SetUpError;
use crate::family::Family;
use crate::home::Home;
use crate::kin::{ALONE, Kin};
use crate::late::LateWord;
use crate::shared::{Outcome, Shared};
use crate::socket::Socket;
use crate::table::Table;
use crate::types::{Role, Tcp};
use crate::{clock, few, machine, tcp};

/// The SMC stack of a process.
#[derive(Clone)]
pub struct Stack(Arc<Parts>);

/// What it is made of: its own part, and in a child those of its parents.
struct Parts {
    core: OnceLock<Arc<Core>>,
    kin: Vec<Arc<Kin>>,
    /// The descriptors of all parts, of a child.
    all: Option<Own>,
    unseen: Mutex<Unseen>,
}

/// Who sleeps on [`Stack::wake_fd`] without this library.
#[derive(Default)]
struct Unseen {
    sleepers: usize,
    /// Wakes them in a child that nobody wakes any more.
    timer: Option<Own>,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stack").field(&self.0.core.get().map(|core| &core.device)).finish()
    }
}

impl Stack {
    /// The stack over a device.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(device: Device, config: &Config) -> Result<Self, SetUpError> {
        let core = OnceLock::from(Arc::new(Self::core_over(device, config)?));
        Ok(Self(Arc::new(Parts { core, kin: Vec::new(), all: None, unseen: Mutex::default() })))
    }

    /// The stack of a child, over what it has from its parents.
    pub(crate) fn of_kin(kin: Vec<Arc<Kin>>) -> std::io::Result<Self> {
        let all = Own::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        for part in &kin {
            epoll::add(&all, part.fd(), EventData::new_u64(0), EventFlags::IN)?;
        }
        let (core, unseen) = (OnceLock::new(), Mutex::default());
        Ok(Self(Arc::new(Parts { core, kin, all: Some(all), unseen })))
    }

    /// Gives the stack of a child, which has no device yet, one of its own.
    ///
    /// # Errors
    /// The configuration cannot be used, or there are no descriptors.
    pub fn connect(&self, device: Device, config: &Config) -> Result<(), SetUpError> {
        let core = Arc::new(Self::core_over(device, config)?);
        if let Some(all) = &self.0.all {
            let data = EventData::new_u64(0);
            epoll::add(all, core.device.fd(), data, EventFlags::IN)
                .map_err(std::io::Error::from)?;
        }
        // Of two at a time one is dropped.
        let unseen = self.unseen();
        if self.0.core.set(Arc::clone(&core)).is_ok() {
            core.never_silence(unseen.sleepers);
            drop(unseen);
            core.dispatch();
        }
        Ok(())
    }

    /// Whether it has a device, so that it can make connections of its own.
    pub fn is_connected(&self) -> bool {
        self.0.core.get().is_some()
    }

    fn core_over(device: Device, config: &Config) -> Result<Core, SetUpError> {
        let endpoint = Endpoint::new(config.protocol()?)?;
        // With one CPU who spins keeps its peer from doing what it waits for.
        let spin = if machine::has_one_cpu() { Duration::ZERO } else { config.spin };
        let config = Config { spin, ..config.clone() };
        let table = Arc::new(Table::default());
        let family = Family::new()?;
        let (known, kin) = (Arc::clone(&table), Arc::clone(&family));
        let control = Control::new(endpoint, device.clone(), known, kin, &config);
        Ok(Core::new(device, control, table, family, spin))
    }

    /// TCP has connected, or accepted: begins the handshake. A client's proposal is sent.
    ///
    /// Without `peer_speaks_smc` the socket is one of TCP at once: nothing is ever proposed blindly.
    pub fn begin(&self, tcp: Box<dyn Tcp>, role: Role, peer_speaks_smc: bool) -> Arc<Socket> {
        self.begin_with(tcp, role, peer_speaks_smc, None)
    }

    /// As [`Stack::begin`], with a receive buffer of at most so many bytes (SO_RCVBUF), 16 KiB at least.
    pub fn begin_with(
        &self,
        tcp: Box<dyn Tcp>,
        role: Role,
        peer_speaks_smc: bool,
        receive_buffer: Option<u32>,
    ) -> Arc<Socket> {
        let tcp: Arc<dyn Tcp> = Arc::from(tcp);
        let mut route = Route {
            interface: None,
            // Who looks at it has RoCE adapters, or version 1; a process has neither.
            local: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            peer: tcp::peer_address(&*tcp),
            smc: peer_speaks_smc,
            ipsec: false,
            sndbuf: None,
            rcvbuf: None,
        };
        let Some(core) = self.0.core.get() else {
            let shared = Shared::new(ConnId(0), role, tcp);
            let word = Arc::new(LateWord::new(Late::Nothing));
            shared.settle(Outcome::Tcp(Diagnosis::NOSMCDDEV.into(), word));
            return Arc::new(Socket::new(Home::Nobody, Arc::new(shared)));
        };
        core.take();
        let shared = core.control(|control, now| {
            route.rcvbuf = Some(control.receive_buffer(receive_buffer));
            let id = match role {
                Role::Client => control.endpoint.connect(now, &route),
                Role::Server => control.endpoint.accept(now, &route),
            };
            let shared = Arc::new(Shared::new(id, role, tcp));
            control.insert(&shared);
            shared
        });
        Arc::new(Socket::new(Home::Own(Arc::clone(core)), shared))
    }

    /// The device, for what is not about sockets; a child may have none.
    pub fn device(&self) -> Option<&Device> {
        Some(&self.0.core.get()?.device)
    }

    /// Has `read` called with each entry that this member is told of the fabric's board, by whatever thread finds
    /// it, which may not find another until `read` returns. Once; false: somebody reads it already.
    pub fn read_board(&self, read: impl Fn(&Told) + Send + Sync + 'static) -> bool {
        self.0.core.get().is_some_and(|core| core.board.set(Box::new(read)).is_ok())
    }

    /// Takes the device's signals and events and the time; observers are told of what happened.
    #[inline]
    pub fn dispatch(&self) {
        if let Some(core) = self.0.core.get() {
            core.dispatch();
        }
        self.0.kin.iter().for_each(|kin| kin.dispatch());
    }

    /// Readable when [`Stack::dispatch`] has something to do, after [`Stack::prepare_sleep`].
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        match (&self.0.all, self.0.core.get()) {
            (Some(all), _) => all.as_fd(),
            (None, Some(core)) => core.device.fd(),
            // Every stack has one of the two.
            (None, None) => rustix::stdio::stdin(),
        }
    }

    /// Before this thread sleeps on [`Stack::wake_fd`]. False: do not, something was there and has been
    /// dispatched; look at the sockets.
    pub fn prepare_sleep(&self) -> bool {
        self.forget_dead();
        if !self.0.core.get().is_none_or(|core| core.prepare_sleep()) {
            return false;
        }
        for (n, kin) in self.0.kin.iter().enumerate() {
            if !kin.prepare_sleep() {
                self.0.kin.iter().take(n).for_each(|kin| kin.wake_up());
                self.0.core.get().into_iter().for_each(|core| core.wake_up());
                return false;
            }
        }
        true
    }

    /// After each [`Stack::prepare_sleep`] that gave true; `rung`: the descriptor was readable. Then what
    /// came is dispatched.
    pub fn wake_up(&self, rung: bool) {
        if let Some(core) = self.0.core.get() {
            core.wake_up();
            if rung {
                core.rung();
            }
        }
        for kin in &self.0.kin {
            kin.wake_up();
            if rung {
                kin.rung();
            }
        }
        if rung {
            self.hear_timer();
        }
    }

    /// Somebody sleeps on [`Stack::wake_fd`] from now on who does not call [`Stack::prepare_sleep`]; all signals that
    /// come after a [`Stack::dispatch`] ring.
    pub fn never_silence(&self) {
        let core = {
            let mut unseen = self.unseen();
            unseen.sleepers += 1;
            self.0.core.get().inspect(|core| core.never_silence(1))
        };
        core.into_iter().for_each(|core| core.dispatch());
        self.0.kin.iter().for_each(|kin| kin.never_silence());
        self.forget_dead();
    }

    /// After [`Stack::never_silence`]: one of them does no more.
    pub fn may_silence(&self) {
        let core = {
            let mut unseen = self.unseen();
            unseen.sleepers = unseen.sleepers.saturating_sub(1);
            if unseen.sleepers == 0
                && let (Some(timer), Some(all)) = (unseen.timer.take(), &self.0.all)
            {
                // A child of fork may have it as well.
                let _ = epoll::delete(all, timer);
            }
            self.0.core.get()
        };
        core.into_iter().for_each(|core| core.wake_up());
        self.0.kin.iter().for_each(|kin| kin.wake_up());
    }

    /// [`Stack::wake_fd`] was found readable without a sleep: makes it unreadable, and dispatches.
    pub fn rung(&self) {
        self.0.core.get().into_iter().for_each(|core| core.rung());
        self.0.kin.iter().for_each(|kin| kin.rung());
        self.hear_timer();
        self.forget_dead();
    }

    fn unseen(&self) -> MutexGuard<'_, Unseen> {
        self.0.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who sleeps unseen has no [`Stack::next_timeout`], by which a child looks that nobody wakes.
    #[cold]
    fn start_timer(&self, all: &Own) {
        let mut unseen = self.unseen();
        if unseen.sleepers > 0 && unseen.timer.is_none() && !few::is_confined() {
            // Without a descriptor they are not woken.
            unseen.timer = clock::ticks(ALONE).ok().map(Own::new).filter(|timer| {
                epoll::add(all, timer, EventData::new_u64(0), EventFlags::IN).is_ok()
            });
        }
    }

    /// Makes it unreadable until it ticks again.
    fn hear_timer(&self) {
        if !self.0.kin.is_empty()
            && let Some(timer) = &self.unseen().timer
        {
            // Another thread may have been first.
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
    }

    /// Takes out of a child's descriptors what would be readable for ever.
    fn forget_dead(&self) {
        let Some(all) = &self.0.all else { return };
        for kin in self.0.kin.iter().filter(|kin| kin.is_alone()) {
            // It may be out already.
            let _ = epoll::delete(all, kin.fd());
            self.start_timer(all);
        }
        if let Some(core) = self.0.core.get().filter(|core| core.is_gone()) {
            let _ = epoll::delete(all, core.device.fd());
        }
    }

    /// Dispatch no later than in this time, zero: now; none: no need.
    pub fn next_timeout(&self) -> Option<Duration> {
        let own = self.0.core.get().and_then(|core| core.next_timeout());
        let kin = self.0.kin.iter().filter_map(|kin| kin.next_timeout());
        own.into_iter().chain(kin).min().map(|at| at.since(clock::now()))
    }

    /// The device is gone (the daemon died): there are no SMC connections any more, new ones are TCP's,
    /// and [`Stack::wake_fd`] must not be polled.
    pub fn is_gone(&self) -> bool {
        self.0.core.get().is_some_and(|core| core.is_gone())
    }

    /// Looks whether the device is gone, so that [`Stack::is_gone`] says so soon: a thread that sleeps in a call of its own is
    /// not woken by that. Dispatches; takes two system calls.
    pub fn look_for_end(&self) {
        if let Some(core) = self.0.core.get().filter(|core| !core.is_gone()) {
            core.rung();
        }
    }

    // Children

    /// Whether children may have connections of this stack. Then a thread has to sleep on
    /// [`Stack::children_fd`] and [`Stack::wake_fd`] all the time.
    pub fn has_children(&self) -> bool {
        self.0.core.get().is_some_and(|core| core.busy_hub().is_some())
    }

    /// Readable when [`Stack::serve_children`] has something to do; `None`: there are no children.
    pub fn children_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.core.get()?.busy_hub()?.fd())
    }

    /// Takes what children say, and gives back what those had that have ended.
    pub fn serve_children(&self) {
        if let Some(core) = self.0.core.get() {
            core.serve_children();
        }
    }

    /// Runs `look` with the link groups and the statistics, for `smcd` and `smcss`; `None` without a device.
    pub fn with_endpoint<R>(&self, look: impl FnOnce(&Endpoint) -> R) -> Option<R> {
        Some(self.0.core.get()?.control(|control, _| look(&control.endpoint)))
    }

    /// What was counted since the stack was made, as `smcd stats` shows it.
    pub fn stats(&self) -> Stats {
        self.0.core.get().map_or_else(Stats::default, |core| core.stats())
    }

    /// Sockets in a handshake or connected, those that wait for their peer after a close included.
    pub fn sockets(&self) -> usize {
        self.0.core.get().map_or(0, |core| core.sockets())
    }
}
