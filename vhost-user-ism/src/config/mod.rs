// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the operator wants: from the command line, the configuration file and the control socket.
//!
//! Invariant: a [`Config`] is complete and consistent; what reads it checks nothing again.

pub mod file;
pub mod value;
pub mod vm;

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
        of_vms.chain(&self.control_socket).map(directory).collect()
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

/// Limits of one VM; `None` leaves the device model's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Bytes of DMBs it may own.
    pub bytes: Option<u64>,
    /// DMBs it may own.
    pub dmbs: Option<u32>,
    /// Peers it may share an arena with.
    pub peers: Option<u32>,
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
    /// Two VMs at one socket.
    Socket(Name, Name),
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
