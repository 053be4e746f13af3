// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program `smc-discovery`: attaches, says so, and waits for its end.
//!
//! Invariant: it says that it is ready only when every socket of the cgroup is served.

#![forbid(unsafe_code)]

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;

use clap::Parser;
use smc_discovery_helper::cli::Cli;
use smc_discovery_helper::{Attached, cgroup};

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
    let attached = Attached::attach(&cgroup)?;
    if !attached.is_first() {
        eprintln!(
            "smc-discovery: warning: another one serves {} too; one is enough (pgrep -a smc-discovery shows them), so \
             either may be ended",
            cgroup.display()
        );
    }
    println!("serves the sockets of {}", cgroup.display());
    if let Err(error) = notify_ready() {
        eprintln!("smc-discovery: NOTIFY_SOCKET: {error}; systemd is not told that it serves");
    }
    signals.forever().next();
    Ok(())
}

/// Tells systemd (`Type=notify`), if that started us, that programs which want discovery may start. An empty
/// `NOTIFY_SOCKET` is not set.
fn notify_ready() -> std::io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
    let Some(path) = path else { return Ok(()) };
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address)?;
    Ok(())
}
