// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program `smc-discovery`: attaches, says so, and waits for its end.
//!
//! Invariant: it says that it is ready only when every socket of the cgroup is served.

#![forbid(unsafe_code)]

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use smc_discovery_helper::{Attached, cgroup};

/// Lets unprivileged programs find out who speaks SMC
///
/// Attaches three small BPF programs to a cgroup. A program that speaks SMC marks its TCP sockets by a private socket
/// option; the SYN of a marked client and the SYN-ACK of a marked server then carry the TCP option by which Linux's
/// own SMC is found (kind 254, "SMCR" in EBCDIC), and each end can ask whether the other's had it. Sockets that are
/// not marked are as they were. `smc-run` marks the sockets of the programs that it starts.
#[derive(Debug, Parser)]
#[command(version, name = "smc-discovery", after_long_help = EXAMPLES)]
struct Cli {
    /// Serve the sockets made in this cgroup (version 2) and in those below it [default: the root of all]
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Needs: root, or CAP_BPF and CAP_NET_ADMIN; Linux 5.15 or newer; a cgroup file system of version 2.

Examples:
  smc-discovery
      for all programs, until it is ended (SIGTERM, ^C)
  smc-discovery --cgroup /sys/fs/cgroup/web.slice
      for the programs of one slice

A socket belongs to the cgroup in which it was made. Without these programs nothing breaks: connections \
find their peer by the fabric's rendezvous, or stay with TCP. Nothing that it attaches outlives it. Sockets that \
were marked before it ended stay with TCP from then on; a listener is marked again when its program is restarted.";

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smc-discovery: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn std::error::Error>> {
    let cgroup = cli.cgroup.map_or_else(cgroup::root, Ok)?;
    // Before attaching, so that a signal in between ends it by the same way.
    let mut signals = signal_hook::iterator::Signals::new(signal_hook::consts::TERM_SIGNALS)?;
    let _attached = Attached::attach(&cgroup)?;
    println!("serves the sockets of {}", cgroup.display());
    notify_ready()?;
    signals.forever().next();
    Ok(())
}

/// Tells systemd (`Type=notify`), if that started us, that programs which want discovery may start.
fn notify_ready() -> std::io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address)?;
    Ok(())
}
