// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line; `--help`, the man page and the completions are made from it.
//!
//! Invariant: options override the configuration file, and both together pass the same checks.

use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::file::{self, FileError, GroupOptions};
use crate::config::{
    Config, Conflict, FabricConfig, FabricId, Gid, GroupConfig, Listen, Mode, Name,
    ProcessesConfig, QuotaConfig, VmConfig, WindowSize, check_conflicts, check_doors,
};

const EXAMPLES: &str = "\
Examples:
  Two VMs that may talk to each other:
    vhost-user-ism --vm name=a,socket=/run/ism/a.sock --vm name=b,socket=/run/ism/b.sock

  Each QEMU (11.1 or later; its memory must be shared):
    qemu-system-x86_64 … -machine memory-backend=mem \\
      -object memory-backend-memfd,id=mem,size=1G,share=on \\
      -chardev socket,id=ism,path=/run/ism/a.sock \\
      -device vhost-user-test-device-pci,chardev=ism,virtio-id=38,num_vqs=4,config_size=64

  Two tenants whose VMs cannot reach one another:
    vhost-user-ism --vm name=a1,socket=a1.sock,groups=a --vm name=a2,socket=a2.sock,groups=a \\
                   --vm name=b1,socket=b1.sock,groups=b --vm name=b2,socket=b2.sock,groups=b

  VMs whose kernels do not trust one another:
    vhost-user-ism --mode copied --check-cdc --vm name=a,socket=a.sock --vm name=b,socket=b.sock

  Programs of this host, where smc-run looks for the daemon without -s; its folder must be there:
    vhost-user-ism --processes name=apps,socket=/run/vhost-user-ism/apps.sock

  Processes of this host beside a VM, for programs of users 0 and 1000:
    vhost-user-ism --vm name=a,socket=a.sock --processes name=apps,socket=apps.sock,uids=0+1000

  A VM more, while the others run (start the daemon with --control-socket /run/ism/control):
    vhost-user-ism ctl --control-socket /run/ism/control add-vm name=c,socket=/run/ism/c.sock

RUST_LOG=debug says more, RUST_LOG=warn less. `vhost-user-ism man` and `vhost-user-ism completions SHELL` \
print the man page and completions.";

/// Shared memory between VMs, and between processes, of one host.
///
/// A vhost-user back-end that gives QEMU guests a virtio-ism device, and lets processes of the host take part. VMs
/// with a common group get shared memory between each pair of them, which Linux's SMC uses for TCP connections
/// (SMC-D); programs under smc-run use it without SMC in the kernel. The daemon stays in the foreground and logs to
/// standard error.
#[derive(Debug, Parser)]
#[command(name = "vhost-user-ism", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// What to do instead of serving VMs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Serving VMs.
    #[command(flatten)]
    pub serve: Serve,
}

/// What to do instead of serving VMs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Talk to a running daemon
    Ctl(Ctl),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    #[command(hide = true)]
    Man,
}

/// A request to a running daemon.
#[derive(Debug, Args)]
pub struct Ctl {
    /// The daemon's control socket
    #[arg(long, value_name = "PATH")]
    pub control_socket: PathBuf,
    /// The request
    #[command(subcommand)]
    pub request: CtlRequest,
}

/// What to ask a running daemon.
#[derive(Debug, Subcommand)]
pub enum CtlRequest {
    /// Serve one more VM
    AddVm {
        /// As for --vm: name=NAME,socket=PATH[,groups=G1+G2][,…]
        vm: VmConfig,
    },
    /// Stop serving a VM; its peers see it gone
    RemoveVm {
        /// The VM's name
        name: Name,
    },
    /// List the VMs
    List,
    /// Show counters of the fabric and of each VM
    Stats {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End the daemon
    Shutdown,
}

/// Options of the daemon.
#[derive(Debug, Args)]
pub struct Serve {
    /// Serve one VM at this socket
    #[arg(long, value_name = "PATH", conflicts_with = "fd", help_heading = "VMs and processes")]
    pub socket_path: Option<PathBuf>,
    /// Serve one VM at this inherited listening socket
    #[arg(long, value_name = "FDNUM", help_heading = "VMs and processes")]
    pub fd: Option<RawFd>,
    /// Serve a VM; once for each. Other keys: gid=UUID, bytes=64M, dmbs=N, peers=N,
    /// board=N (on the board), signal-rate=N, control-rate=N (a second)
    #[arg(
        long,
        value_name = "name=NAME,socket=PATH[,groups=G1+G2][,…]",
        help_heading = "VMs and processes"
    )]
    pub vm: Vec<VmConfig>,
    /// Let host processes in at this socket; once for each. Without uids= and gids= only the daemon's
    /// own user may. Other keys: gids=N+M, max=N (64), and limits of each as for --vm
    #[arg(
        long,
        value_name = "name=NAME,socket=PATH[,groups=G1+G2][,uids=N+M][,…]",
        help_heading = "VMs and processes"
    )]
    pub processes: Vec<ProcessesConfig>,
    /// Read a configuration file (TOML); options override it
    #[arg(long, value_name = "FILE", help_heading = "VMs and processes")]
    pub config: Option<PathBuf>,

    /// How the members of a group exchange data, where the file does not say so for the group:
    /// through memory that both map, or copied by the daemon [default: mapped]
    #[arg(long, help_heading = "Fabric")]
    pub mode: Option<Mode>,
    /// In copied mode, refuse SMC headers that no correct peer writes
    #[arg(long, help_heading = "Fabric")]
    pub check_cdc: bool,
    /// The fabric's id, SMC's CHID: 0xff00 to 0xfffe; hosts may have the same [default: 0xff01]
    #[arg(long, value_name = "ID", help_heading = "Fabric")]
    pub fabric_id: Option<FabricId>,
    /// Address space of each VM for shared memory, a power of two [default: 4G]
    #[arg(long, value_name = "SIZE", help_heading = "Fabric")]
    pub window_size: Option<WindowSize>,
    /// Serve VMs whose memory file could shrink or is of huge pages: such a QEMU can then kill the
    /// daemon
    #[arg(long, help_heading = "Fabric")]
    pub allow_unsealed_memory: bool,

    /// How long a VM's thread may poll for work before it sleeps, in µs; 0: never [default: 50]
    #[arg(long, value_name = "µs", help_heading = "Daemon")]
    pub poll_us: Option<u32>,
    /// Listen for `vhost-user-ism ctl` here
    #[arg(long, value_name = "PATH", help_heading = "Daemon")]
    pub control_socket: Option<PathBuf>,
    /// Keep all rights of the user. Without this, the daemon gives up capabilities, the network
    /// and all files but for sockets, in the directories of those it makes at its start
    #[arg(long, help_heading = "Daemon")]
    pub no_sandbox: bool,
    /// Print the backend's capabilities as JSON and exit (QEMU's vhost-user.json)
    #[arg(long, help_heading = "Daemon")]
    pub print_capabilities: bool,
}

/// Why the daemon cannot start as it was told.
#[derive(Debug)]
pub enum StartError {
    /// The configuration file is wrong.
    File(FileError),
    /// Two VMs exclude one another.
    Conflict(Conflict),
    /// There is nothing to serve.
    NoVm,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Conflict(error) => error.fmt(f),
            Self::NoVm => f.write_str(
                "there is nothing to serve: give --vm, --processes, --socket-path, --fd or --config, \
                 or --control-socket to add VMs later",
            ),
        }
    }
}

impl std::error::Error for StartError {}

impl Serve {
    /// The whole configuration: the file's, overridden by options.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn config(self) -> Result<Config, StartError> {
        let groups = GroupOptions { mode: self.mode, check_cdc: self.check_cdc };
        let mut config = match &self.config {
            Some(path) => file::read(path, groups).map_err(StartError::File)?,
            None => Config {
                fabric: FabricConfig::default(),
                groups: Default::default(),
                vms: Vec::new(),
                processes: Vec::new(),
                control_socket: None,
            },
        };
        let fabric = &mut config.fabric;
        let group = &mut fabric.group;
        *group = GroupConfig {
            mode: self.mode.unwrap_or(group.mode),
            check_cdc: self.check_cdc || group.check_cdc,
        };
        fabric.id = self.fabric_id.unwrap_or(fabric.id);
        fabric.window_size = self.window_size.unwrap_or(fabric.window_size);
        fabric.allow_unsealed_memory |= self.allow_unsealed_memory;
        fabric.poll = self.poll_us.map_or(fabric.poll, |us| Duration::from_micros(us.into()));
        config.control_socket = self.control_socket.or(config.control_socket);
        config.vms.extend(self.vm);
        config.processes.extend(self.processes);
        let single = self.fd.map(Listen::Fd).or(self.socket_path.map(Listen::Path));
        config.vms.extend(single.map(single_vm));
        check_conflicts(&config.vms).map_err(StartError::Conflict)?;
        check_doors(&config.vms, &config.processes).map_err(StartError::Conflict)?;
        let nothing = config.vms.is_empty() && config.processes.is_empty();
        if nothing && config.control_socket.is_none() {
            return Err(StartError::NoVm);
        }
        Ok(config)
    }
}

/// The VM of `--socket-path` or `--fd`, named after the socket's file.
fn single_vm(listen: Listen) -> VmConfig {
    let stem = match &listen {
        Listen::Path(path) => path.file_stem().and_then(|stem| stem.to_str()),
        Listen::Fd(_) => None,
    };
    let name = stem.and_then(|stem| stem.parse().ok()).unwrap_or_else(Name::default_vm);
    VmConfig {
        gid: Gid::of_name(&name),
        name,
        listen,
        groups: vec![Name::default_group()],
        quota: QuotaConfig::default(),
    }
}

/// What `--print-capabilities` prints: QEMU's docs/interop/vhost-user.json, whose list of types
/// is closed and has no ISM; the type is virtio's name of the device.
pub fn capabilities() -> String {
    serde_json::json!({ "type": "ism", "features": [] }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn config(args: &[&str]) -> Result<Config, StartError> {
        let all = std::iter::once(&"vhost-user-ism").chain(args);
        Cli::try_parse_from(all).expect("arguments").serve.config()
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn capabilities_are_qemus_json() {
        let value: serde_json::Value = serde_json::from_str(&capabilities()).expect("JSON");
        assert_eq!(value["type"], "ism");
        assert_eq!(value["features"], serde_json::json!([]));
    }

    #[test]
    fn one_vm_is_named_after_its_socket() {
        let config = config(&["--socket-path", "/run/web1.sock"]).expect("valid");
        assert_eq!(config.vms[0].name.as_str(), "web1");
        assert_eq!(config.vms[0].listen, Listen::Path("/run/web1.sock".into()));
    }

    #[test]
    fn socket_path_and_fd_exclude_each_other() {
        let args = ["vhost-user-ism", "--socket-path", "x", "--fd", "3"];
        assert!(Cli::try_parse_from(args).is_err());
    }

    #[test]
    fn vms_that_collide_are_refused() {
        let gid = "gid=11111111-1111-1111-1111-111111111111";
        let low = "gid=11111111-1111-1111-2222-222222222222";
        let table = [
            ("name=a,socket=a", "name=a,socket=b", "two VMs are called `a`"),
            ("name=a,socket=a", "name=b,socket=a", "have the same socket"),
            (
                &format!("name=a,socket=a,{gid}"),
                &format!("name=b,socket=b,{low}"),
                "the GIDs of VMs",
            ),
        ];
        for (first, second, expected) in table {
            let error = config(&["--vm", first, "--vm", second]).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn nothing_to_serve_is_an_error_unless_vms_can_be_added() {
        assert!(matches!(config(&[]), Err(StartError::NoVm)));
        assert!(config(&["--control-socket", "c"]).is_ok());
    }
}
