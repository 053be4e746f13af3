// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The running daemon: a fabric and the VMs on it.
//!
//! Invariant: a VM is in `vms` exactly while its socket exists and its member is on the fabric.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use ism_abi::layout::Config as DeviceConfig;
use ism_emulator::{
    ConfigError, Fabric, FabricConfig as EmulatorConfig, FabricStats, GroupConfig as EmulatorGroup,
    MemberConfig, MemberStats, MemberSummary, Mode as EmulatorMode, Quota, TOKEN_KEY_SIZE,
};

use crate::config::{
    Config, Conflict, FabricConfig, GroupConfig, Listen, Mode, Name, ProcessesConfig, QuotaConfig,
    VmConfig, check_conflicts,
};
use crate::hub::Hub;
use crate::port::front::{Front, Served};
use crate::port::poll::Seats;
use crate::port::vring::lock;
use crate::port::{Kind, Port};
use crate::process::{Door, is_for_others};
use crate::ringer;
use crate::socket::{Listening, SocketError};

/// The daemon, shared by the control socket's threads.
pub struct Daemon {
    hub: Arc<Hub>,
    config: FabricConfig,
    seats: Arc<Seats>,
    vms: Mutex<BTreeMap<Name, Vm>>,
    doors: Mutex<Vec<Door>>,
}

struct Vm {
    config: VmConfig,
    front: Front,
}

/// Why a VM cannot be served, or the daemon not be started.
#[derive(Debug)]
pub enum Error {
    /// The fabric does not take it.
    Fabric(ConfigError),
    /// It conflicts with another VM.
    Conflict(Conflict),
    /// Its socket cannot be had.
    Socket(SocketError),
    /// No thread, descriptor or random number.
    System(io::Error),
    /// There is no such VM.
    NoVm(Name, Vec<Name>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fabric(error) => error.fmt(f),
            Self::Conflict(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
            Self::NoVm(name, vms) => {
                let names: Vec<_> = vms.iter().map(Name::as_str).collect();
                write!(f, "there is no VM `{name}`; there are: {}", names.join(", "))
            }
        }
    }
}

impl std::error::Error for Error {}

/// What `ctl list` and `ctl stats` show of one VM.
pub struct VmStatus {
    /// Its configuration.
    pub config: VmConfig,
    /// A front-end is connected.
    pub connected: bool,
    /// Its driver has said HELLO.
    pub ready: bool,
    /// Bytes of its window; 0: none.
    pub window: u64,
    /// Its counters.
    pub stats: Option<MemberStats>,
}

impl Daemon {
    /// Starts the fabric and serves `vms` at their sockets.
    ///
    /// # Errors
    /// What cannot be had; no socket is left behind then.
    pub fn start(config: &Config, vms: Vec<(VmConfig, Listening)>) -> Result<Self, Error> {
        ringer::prepare();
        let mut key = [0; TOKEN_KEY_SIZE];
        getrandom::fill(&mut key).map_err(|error| Error::System(io::Error::other(error)))?;
        let fabric = Fabric::new(emulator_config(config), &key).map_err(Error::Fabric)?;
        let hub = Hub::start(fabric).map_err(Error::System)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let daemon = Self {
            hub,
            config: config.fabric.clone(),
            seats: Arc::new(Seats::new(cpus)),
            vms: Mutex::default(),
            doors: Mutex::default(),
        };
        for (vm, listening) in vms {
            daemon.serve_vm(&mut lock(&daemon.vms), vm, listening)?;
        }
        Ok(daemon)
    }

    /// Makes the sockets of the VMs of `config`, before the fabric starts.
    ///
    /// # Errors
    /// The first that cannot be had; no socket is left behind then.
    pub fn bind(config: &Config) -> Result<Vec<(VmConfig, Listening)>, Error> {
        let bind = |vm: &VmConfig| Ok((vm.clone(), bind_vm(vm)?));
        config.vms.iter().map(bind).collect()
    }

    /// Serves one more VM.
    ///
    /// # Errors
    /// Why not; everything is then as before.
    pub fn add_vm(&self, config: VmConfig) -> Result<(), Error> {
        let mut vms = lock(&self.vms);
        let all = vms.values().map(|vm| &vm.config).chain([&config]);
        check_conflicts(all).map_err(Error::Conflict)?;
        let listening = bind_vm(&config)?;
        self.serve_vm(&mut vms, config, listening)
    }

    fn serve_vm(
        &self,
        vms: &mut BTreeMap<Name, Vm>,
        config: VmConfig,
        listening: Listening,
    ) -> Result<(), Error> {
        let front = self.serve(&config, listening, Kind::Vm, None)?;
        log::info!("VM {}: waiting for its front-end, GID {}", config.name, config.gid);
        vms.insert(config.name.clone(), Vm { config, front });
        Ok(())
    }

    /// Makes a member and serves it at `listening`; with `ended` for one front-end, after which that is
    /// called.
    pub(crate) fn serve(
        &self,
        config: &VmConfig,
        listening: Listening,
        kind: Kind,
        ended: Option<Box<dyn Fn() + Send>>,
    ) -> Result<Front, Error> {
        let port = self.add_port(config, kind)?;
        let id = port.id();
        let served = Served {
            hub: Arc::clone(&self.hub),
            port,
            config: self.config.clone(),
            seats: Arc::clone(&self.seats),
            ended,
        };
        Front::start(served, listening).map_err(|error| {
            self.hub.remove_port(id);
            Error::System(error)
        })
    }

    /// Ends serving a process.
    pub(crate) fn remove_process(&self, front: Front) {
        let id = front.port().id();
        drop(front);
        self.hub.remove_port(id);
    }

    /// Makes the sockets of the doors of `config`.
    ///
    /// # Errors
    /// The first that cannot be had; no socket is left behind then.
    pub fn bind_doors(config: &Config) -> Result<Vec<(ProcessesConfig, Listening)>, Error> {
        let bind = |door: &ProcessesConfig| {
            let listening = if is_for_others(door) {
                Listening::bind_for_all(&door.socket)
            } else {
                Listening::bind(&door.socket)
            };
            let listening = listening.map_err(Error::Socket)?;
            listening.socket().set_nonblocking(true).map_err(Error::System)?;
            Ok((door.clone(), listening))
        };
        config.processes.iter().map(bind).collect()
    }

    /// Lets processes in.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn open_doors(
        self: &Arc<Self>,
        doors: Vec<(ProcessesConfig, Listening)>,
    ) -> Result<(), Error> {
        for (config, listening) in doors {
            log::info!("processes {}: listening at {}", config.name, config.socket.display());
            let door = Door::open(Arc::downgrade(self), config, listening);
            lock(&self.doors).push(door.map_err(Error::System)?);
        }
        Ok(())
    }

    fn add_port(&self, config: &VmConfig, kind: Kind) -> Result<Arc<Port>, Error> {
        let member = member_config(config);
        let make = |fabric: &mut Fabric| {
            let id = fabric.add_member(member)?;
            let signals = fabric.signals(id).ok_or(ConfigError::NoMember(id))?;
            Ok(Arc::new(Port::new(id, config.name.clone(), signals, kind)))
        };
        self.hub.add_port(make).map_err(Error::Fabric)
    }

    /// Ends serving a VM: its front-end is disconnected, its peers are told.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn remove_vm(&self, name: &Name) -> Result<(), Error> {
        let vm = {
            let mut vms = lock(&self.vms);
            let names = || vms.keys().cloned().collect();
            let gone = Error::NoVm(name.clone(), names());
            vms.remove(name).ok_or(gone)?
        };
        let id = vm.front.port().id();
        // Joins its threads, so not with the lock held.
        drop(vm);
        self.hub.remove_port(id);
        log::info!("VM {name}: removed");
        Ok(())
    }

    /// Every VM, and every process that is in.
    pub fn vms(&self) -> Vec<VmStatus> {
        let show = |config: &VmConfig, front: &Front| {
            let id = front.port().id();
            self.hub.call(|fabric, _| {
                let summary = fabric.list().find(|member| member.id == id);
                let is = |which: fn(&MemberSummary) -> bool| summary.as_ref().is_some_and(which);
                VmStatus {
                    config: config.clone(),
                    connected: is(|member| member.connected),
                    ready: is(|member| member.ready),
                    window: DeviceConfig::from_bytes(&fabric.config(id))
                        .map_or(0, |config| config.window_size),
                    stats: fabric.stats(id),
                }
            })
        };
        let mut all: Vec<_> =
            lock(&self.vms).values().map(|vm| show(&vm.config, &vm.front)).collect();
        for door in lock(&self.doors).iter() {
            door.for_each(|config, front| all.push(show(config, front)));
        }
        all
    }

    /// SMC's CHID.
    pub fn fabric_id(&self) -> u16 {
        self.config.id.get()
    }

    /// The fabric's size.
    pub fn totals(&self) -> FabricStats {
        self.hub.call(|fabric, _| fabric.totals())
    }

    /// Ends serving all VMs, and removes their sockets.
    pub fn stop(&self) {
        let doors = std::mem::take(&mut *lock(&self.doors));
        drop(doors);
        let vms = std::mem::take(&mut *lock(&self.vms));
        drop(vms);
    }
}

fn bind_vm(vm: &VmConfig) -> Result<Listening, Error> {
    let listening = match &vm.listen {
        Listen::Path(path) => Listening::bind(path),
        Listen::Fd(fd) => Listening::inherit(*fd),
    };
    listening.map_err(Error::Socket)
}

fn emulator_config(config: &Config) -> EmulatorConfig {
    let mut emulator = EmulatorConfig::new(config.fabric.id.get());
    let default = emulator_group(config.fabric.group);
    let of_vms = config.vms.iter().flat_map(|vm| &vm.groups);
    let named = of_vms.chain(config.processes.iter().flat_map(|door| &door.groups));
    let default_group = Name::default_group();
    for group in named.chain([&default_group]) {
        emulator.groups.insert(group.as_str().to_owned(), default);
    }
    for (name, group) in &config.groups {
        emulator.groups.insert(name.as_str().to_owned(), emulator_group(*group));
    }
    emulator.default_group = default_group.as_str().to_owned();
    emulator
}

fn emulator_group(group: GroupConfig) -> EmulatorGroup {
    let mode = match group.mode {
        Mode::Mapped => EmulatorMode::Mapped,
        Mode::Copied => EmulatorMode::Copied,
    };
    EmulatorGroup { mode, check_cdc: group.check_cdc }
}

fn member_config(vm: &VmConfig) -> MemberConfig {
    MemberConfig {
        name: vm.name.as_str().to_owned(),
        gid: vm.gid.bytes(),
        groups: vm.groups.iter().map(|group| group.as_str().to_owned()).collect(),
        vlans: None,
        quota: quota(vm.quota),
    }
}

fn quota(config: QuotaConfig) -> Quota {
    let default = Quota::default();
    Quota {
        bytes: config.bytes.unwrap_or(default.bytes),
        dmbs: config.dmbs.unwrap_or(default.dmbs),
        peers: config.peers.unwrap_or(default.peers),
        board: config.board.unwrap_or(default.board),
        signals_per_s: config.signal_rate.unwrap_or(default.signals_per_s),
        control_per_s: config.control_rate.unwrap_or(default.control_per_s),
    }
}
