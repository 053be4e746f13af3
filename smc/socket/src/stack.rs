// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process's stack: makes sockets, dispatches, sleeps.
//!
//! Invariant: cheap to clone, all clones are one; it has no thread of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use ism_client::Device;
use ism_client::board::Told;
use smc_proto::endpoint::Endpoint;
use smc_proto::handshake::route::Route;
use smc_proto::stats::Stats;

use crate::config::Config;
use crate::control::Control;
use crate::core::Core;
use crate::error::SetUpError;
use crate::shared::Shared;
use crate::socket::Socket;
use crate::table::Table;
use crate::types::{Role, Tcp};
use crate::{clock, tcp};

/// The CPUs of this host.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// The SMC stack of a process.
#[derive(Clone)]
pub struct Stack(Arc<Core>);

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stack").field(&self.0.device).finish()
    }
}

impl Stack {
    /// The stack over a device.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(device: Device, config: &Config) -> Result<Self, SetUpError> {
        let endpoint = Endpoint::new(config.protocol()?)?;
        // With one CPU who spins keeps its peer from doing what it waits for. A process that may use one
        // of many is no such case: its peer may use another.
        let alone = std::fs::read_to_string(ONLINE).is_ok_and(|cpus| cpus.trim() == "0");
        let spin = if alone { Duration::ZERO } else { config.spin };
        let config = Config { spin, ..config.clone() };
        let table = Arc::new(Table::default());
        let control = Control::new(endpoint, device.clone(), Arc::clone(&table), &config);
        Ok(Self(Arc::new(Core::new(device, control, table, spin))))
    }

    /// TCP has connected, or accepted: begins the handshake. A client's proposal is sent.
    ///
    /// Without `peer_speaks_smc` the socket is one of TCP at once: nothing is ever proposed blindly.
    pub fn begin(&self, tcp: Box<dyn Tcp>, role: Role, peer_speaks_smc: bool) -> Arc<Socket> {
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
        self.0.take();
        let shared = self.0.control(|control, now| {
            route.rcvbuf = control.receive_buffer();
            let id = match role {
                Role::Client => control.endpoint.connect(now, &route),
                Role::Server => control.endpoint.accept(now, &route),
            };
            let shared = Arc::new(Shared::new(id, role, tcp));
            control.insert(&shared);
            shared
        });
        Arc::new(Socket::new(Arc::clone(&self.0), shared))
    }

    /// The device, for what is not about sockets.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Has `read` called with each entry that this member is told of the fabric's board, by whatever thread finds
    /// it, which may not find another until `read` returns. Once; false: somebody reads it already.
    pub fn read_board(&self, read: impl Fn(&Told) + Send + Sync + 'static) -> bool {
        self.0.board.set(Box::new(read)).is_ok()
    }

    /// Takes the device's signals and events and the time; observers are told of what happened.
    pub fn dispatch(&self) {
        self.0.dispatch();
    }

    /// Readable when [`Stack::dispatch`] has something to do, after [`Stack::prepare_sleep`].
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.0.device.fd()
    }

    /// Before this thread sleeps on [`Stack::wake_fd`]. False: do not, something was there and has been
    /// dispatched; look at the sockets.
    pub fn prepare_sleep(&self) -> bool {
        self.0.prepare_sleep()
    }

    /// After each [`Stack::prepare_sleep`] that gave true; `rung`: the descriptor was readable. Then what
    /// came is dispatched.
    pub fn wake_up(&self, rung: bool) {
        self.0.wake_up();
        if rung {
            self.0.rung();
        }
    }

    /// Dispatch no later than in this time, zero: now; none: no need.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.0.next_timeout().map(|at| at.since(clock::now()))
    }

    /// The device is gone (the daemon died): there are no SMC connections any more, new ones are TCP's,
    /// and [`Stack::wake_fd`] must not be polled.
    pub fn is_gone(&self) -> bool {
        self.0.is_gone()
    }

    /// Runs `look` with the device and the link groups, for `smcd` and `smcss`.
    pub fn with_endpoint<R>(&self, look: impl FnOnce(&Endpoint) -> R) -> R {
        self.0.control(|control, _| look(&control.endpoint))
    }

    /// What was counted since the stack was made, as `smcd stats` shows it.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Sockets in a handshake or connected, those that wait for their peer after a close included.
    pub fn sockets(&self) -> usize {
        self.0.sockets()
    }
}
