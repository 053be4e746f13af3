// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line; `--help`, the man page and completions are made from it.
//!
//! Invariant: everything has a default.

use std::path::PathBuf;

use clap::{Parser, ValueHint};

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

/// Let unprivileged programs find out who speaks SMC.
///
/// Attaches three small BPF programs to a cgroup. A program that speaks SMC marks its TCP sockets by a private socket
/// option; the SYN of a marked client and the SYN-ACK of a marked server then carry the TCP option by which Linux's
/// own SMC is found (kind 254, "SMCR" in EBCDIC), and each end can ask whether the other's had it. Sockets that are
/// not marked are as they were. `smc-run` marks the sockets of the programs that it starts.
#[derive(Debug, Parser)]
#[command(version, name = "smc-discovery", after_long_help = EXAMPLES)]
pub struct Cli {
    /// Serve the sockets made in this cgroup (version 2) and in those below it [default: the root of all]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cgroup: Option<PathBuf>,
}
