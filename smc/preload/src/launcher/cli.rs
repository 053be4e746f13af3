// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `smc-run`; `--help`, the man page and completions are made from it.
//!
//! Invariant: what follows the program's name is the program's.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, ValueHint};

const EXAMPLES: &str = "\
Examples:
  smc-run redis-server
  smc-run redis-cli get key
      two programs of one host; the daemon must be running, and smc-discovery should be
  smc-run -d curl http://127.0.0.1/
      says on stderr what becomes of connections, and why
  smc-run -s /run/user/1000/apps.sock -p 0 ./server
      with another daemon, and without looking for bytes before it sleeps: less CPU, more latency
  smcss -rp
      which connections are SMC-D, and why the others are TCP

Environment: SMC_SOCKET, SMC_SPIN_US, SMC_DEBUG=1 and SMC_MODE=tcp are -s, -p, -d and -n. SMC_POLICY names \
the file of rules (smc-policy.toml(5)), else /etc/smc-policy.toml if that exists.
Exit status: the program's; 127: it is not there, 126: it cannot be run, 2: the options are wrong, 125: any \
other fault before that.";

/// Run a program over SMC-D, without a kernel that knows SMC.
///
/// Its TCP connections use SMC-D of vhost-user-ism where the other end can too, and TCP where not. Neither
/// the program nor the kernel is changed. Statically linked programs (many in Go) cannot be helped so; a
/// warning says it, and another one if there is no daemon.
///
/// For the kernel's own SMC there is smc_run.
#[derive(Debug, Parser)]
#[command(name = "smc-run", version, disable_version_flag = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Say on stderr what becomes of connections (SMC_DEBUG=1).
    #[arg(short)]
    pub(crate) debug: bool,
    /// The socket of the daemon for processes (SMC_SOCKET); without it
    /// /run/vhost-user-ism/apps.sock.
    #[arg(short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) socket: Option<PathBuf>,
    /// The longest that a thread looks by itself before it sleeps, in microseconds; 0: it sleeps at
    /// once; without it 50 (SMC_SPIN_US).
    #[arg(short = 'p', value_name = "US")]
    pub(crate) spin: Option<u32>,
    /// Stay with TCP, all calls looked at nevertheless (SMC_MODE=tcp).
    #[arg(short = 'n')]
    pub(crate) never: bool,
    /// Print the version.
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}
