// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `smc_run`; `--help`, the man page and completions are made from it.
//!
//! Invariant: the options of smc-tools' `smc_run`, and what follows the program's name is the program's.

#[path = "../size.rs"]
mod size;

use std::ffi::OsString;

use clap::{Parser, ValueHint};

const EXAMPLES: &str = "\
Examples:
  smc_run iperf3 --server
      a server; the client needs smc_run too, and its kernel SMC
  smc_run -d curl http://192.0.2.1/
      says on stderr what becomes of each socket
  smc_run -r 1M -t 1M iperf3 -c 192.0.2.1
      with larger buffers

Environment: SMC_DEBUG=1, SMC_RCVBUF and SMC_SNDBUF are -d, -r and -t.
Exit status: the program's; 127: it is not there, 126: it cannot be run, 2: the options are wrong, 125: any \
other fault before that.
Which connections use SMC, and why others do not: smcd socket show";

/// Run a program over the kernel's SMC.
///
/// Its TCP connections use SMC where the other side and the kernel can, and TCP where not. The program is
/// not changed. Statically linked programs (many in Go) cannot be helped so; a warning says it.
///
/// For hosts whose kernel has no SMC there is smc-run.
#[derive(Debug, Parser)]
#[command(name = "smc_run", version, disable_version_flag = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Say on stderr what becomes of sockets (SMC_DEBUG=1).
    #[arg(short)]
    pub(crate) debug: bool,
    /// Size of receive buffers in bytes, or with a K or M (SMC_RCVBUF).
    #[arg(short, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) receive: Option<i32>,
    /// Size of send buffers in bytes, or with a K or M (SMC_SNDBUF).
    #[arg(short = 't', value_name = "SIZE", value_parser = size::parse)]
    pub(crate) transmit: Option<i32>,
    /// Print the version.
    #[arg(short, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}
