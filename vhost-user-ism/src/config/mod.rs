// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the operator wants: from the command line, the configuration file and the control socket.
//!
//! Invariant: a [`Config`] is complete and consistent; what reads it checks nothing again.

pub mod file;
pub mod processes;
pub mod value;
pub mod vm;
pub mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

pub use value::{Bytes, FabricId, Gid, Mode, Name, WindowSize};

/// Everything the daemon is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// What all VMs share.
    pub fabric: FabricConfig,
    /// Groups with settings of their own; others have the fabric's.
    pub groups: BTreeMap<Name, GroupConfig>,
    /// The VMs to serve from the start.
    pub vms: Vec<VmConfig>,
    /// The doors for host processes.
    pub processes: Vec<ProcessesConfig>,
    /// Where `vhost-user-ism ctl` reaches the daemon.
    pub control_socket: Option<PathBuf>,
}

impl Config {
    /// The directories of all sockets that the daemon makes.
    pub fn socket_directories(&self) -> BTreeSet<PathBuf> {
        let of_vms = self.vms.iter().filter_map(|vm| match &vm.listen {
            Listen::Path(path) => Some(path),
            Listen::Fd(_) => None,
        });
        // A bare file name is in the working directory.
        let directory = |path: &PathBuf| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let of_processes = self.processes.iter().map(|door| &door.socket);
        of_vms.chain(of_processes).chain(&self.control_socket).map(directory).collect()
    }
}

impl Config {
    /// What is allowed, and yet hardly meant: it would leave VMs with less protection than the
    /// operator wrote down. One sentence each.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for (name, settings) in &self.groups {
            let of_vms = self.vms.iter().map(|vm| &vm.groups);
            let mut groups = of_vms.chain(self.processes.iter().map(|door| &door.groups));
            if !groups.any(|groups| groups.contains(name)) {
                doubts.push(format!(
                    "group {name} has settings, but no VM is in it; VMs' groups are compared by \
                     their exact names"
                ));
            }
            if settings.is_check_without_copies() {
                doubts.push(format!(
                    "group {name} has check-cdc, which is without effect between VMs that map \
                     memory; set its mode to copied"
                ));
            }
        }
        if self.groups.is_empty() && self.fabric.group.is_check_without_copies() {
            doubts.push(
                "check-cdc is without effect between VMs that map memory; set mode to copied"
                    .to_owned(),
            );
        }
        doubts
    }
}

/// What all VMs share.
#[derive(Debug, Clone)]
pub struct FabricConfig {
    /// SMC's CHID.
    pub id: FabricId,
    /// Mode and checks of groups without settings of their own.
    pub group: GroupConfig,
    /// Each VM's window.
    pub window_size: WindowSize,
    /// How long a VM's thread may poll before it sleeps; zero: never.
    pub poll: Duration,
    /// Serve VMs whose memory could shrink under the daemon, or is of huge pages.
    pub allow_unsealed_memory: bool,
}

impl Default for FabricConfig {
    fn default() -> Self {
        Self {
            id: FabricId::DEFAULT,
            group: GroupConfig::default(),
            window_size: WindowSize::DEFAULT,
            poll: Duration::from_micros(50),
            allow_unsealed_memory: false,
        }
    }
}

/// What the members of one group may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupConfig {
    /// How they exchange data.
    pub mode: Mode,
    /// Copied mode: refuse CDC headers that a correct peer never writes.
    pub check_cdc: bool,
}

impl GroupConfig {
    /// Whether headers are to be checked, but mapped memory goes unchecked.
    fn is_check_without_copies(self) -> bool {
        self.check_cdc && self.mode == Mode::Mapped
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { mode: Mode::Mapped, check_cdc: false }
    }
}

/// Where a VM's front-end comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A socket to make.
    Path(PathBuf),
    /// A listening socket that was handed over.
    Fd(RawFd),
}

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// Its name in logs and commands.
    pub name: Name,
    /// Where its front-end comes from.
    pub listen: Listen,
    /// Whom it may talk to: VMs that are in one of these groups too.
    pub groups: Vec<Name>,
    /// Its address on the fabric.
    pub gid: Gid,
    /// What it may use.
    pub quota: QuotaConfig,
}

/// A door: a socket at which host processes become members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessesConfig {
    /// Its name; its members are called `name.1` and so on.
    pub name: Name,
    /// Where processes connect.
    pub socket: PathBuf,
    /// Whom they may talk to, as for VMs.
    pub groups: Vec<Name>,
    /// Users that are let in.
    pub uids: Vec<u32>,
    /// Primary groups that are let in. Without both lists: the daemon's own user.
    pub gids: Vec<u32>,
    /// Processes at a time.
    pub max: u32,
    /// What each may use.
    pub quota: QuotaConfig,
}

impl ProcessesConfig {
    /// Processes at a time where the operator says nothing.
    pub const DEFAULT_MAX: u32 = 64;
}

/// Limits of one member; `None` leaves the device model's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Bytes of DMBs it may own.
    pub bytes: Option<u64>,
    /// DMBs it may own.
    pub dmbs: Option<u32>,
    /// Peers it may share an arena with.
    pub peers: Option<u32>,
    /// Ends, listeners and callers that it may have on the board.
    pub board: Option<u32>,
    /// Signals a second.
    pub signal_rate: Option<u32>,
    /// Control requests a second.
    pub control_rate: Option<u32>,
}

/// Two VMs that cannot both be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Two VMs of one name.
    Name(Name),
    /// Two at one socket.
    Socket(Name, Name),
    /// A door with the name or the socket of a VM or another door.
    Door(Name, Name),
    /// Two VMs whose GIDs have the same first or the same last eight bytes.
    Gid(Name, Name),
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "two VMs are called `{name}`; names are unique"),
            Self::Socket(a, b) => {
                write!(f, "VMs `{a}` and `{b}` have the same socket; each VM has its own")
            }
            Self::Door(a, b) => {
                write!(f, "processes `{a}` have the name or the socket of `{b}`; each has its own")
            }
            Self::Gid(a, b) => write!(
                f,
                "the GIDs of VMs `{a}` and `{b}` have the same first or last eight bytes, which SMC \
                 takes for the whole in places; give one of them another gid="
            ),
        }
    }
}

impl std::error::Error for Conflict {}

/// Checks that `vms` can be served side by side.
///
/// # Errors
/// The first conflict.
pub fn check_conflicts<'a>(vms: impl IntoIterator<Item = &'a VmConfig>) -> Result<(), Conflict> {
    let mut names = HashMap::new();
    let mut sockets = HashMap::new();
    let mut gids = HashMap::new();
    for vm in vms {
        if names.insert(&vm.name, ()).is_some() {
            return Err(Conflict::Name(vm.name.clone()));
        }
        if let Listen::Path(path) = &vm.listen
            && let Some(other) = sockets.insert(path, &vm.name)
        {
            return Err(Conflict::Socket(other.clone(), vm.name.clone()));
        }
        for (which, half) in vm.gid.halves().into_iter().enumerate() {
            if let Some(other) = gids.insert((which, half), &vm.name) {
                return Err(Conflict::Gid(other.clone(), vm.name.clone()));
            }
        }
    }
    Ok(())
}

/// Checks that `doors` can be served beside each other and beside `vms`.
///
/// # Errors
/// The first conflict.
pub fn check_doors(vms: &[VmConfig], doors: &[ProcessesConfig]) -> Result<(), Conflict> {
    for (n, door) in doors.iter().enumerate() {
        let same = |name: &Name, socket: Option<&PathBuf>| {
            *name == door.name || socket == Some(&door.socket)
        };
        let earlier = doors.iter().take(n).map(|other| (&other.name, Some(&other.socket)));
        let of_vm = |vm: &VmConfig| match &vm.listen {
            Listen::Path(path) => Some(path.clone()),
            Listen::Fd(_) => None,
        };
        if let Some((other, _)) = earlier.clone().find(|(name, socket)| same(name, *socket)) {
            return Err(Conflict::Door(door.name.clone(), other.clone()));
        }
        if let Some(vm) = vms.iter().find(|vm| same(&vm.name, of_vm(vm).as_ref())) {
            return Err(Conflict::Door(door.name.clone(), vm.name.clone()));
        }
    }
    Ok(())
}
