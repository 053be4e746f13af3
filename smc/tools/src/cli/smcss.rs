// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `smcss`.
//!
//! Invariant: the options of smc-tools, and ours, none of which has a name of theirs.

use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  smcss
      connections: SMCD, or TCP with a number
  smcss -rp
      in words why a connection is TCP, and whose it is
  smcss -lW
      listeners, with whole addresses
  smcss -D
      connections of SMC-D with their GIDs and tokens; the other end shows the same, crossed
  smcss -d
      with cursors: bytes that were sent and not read are between txsent and txfin

\"The peer does not speak SMC\" is also said of a server under smc-run that listened before smc-discovery and the \
daemon served: connect again. Restart the server if it was not under smc-run, if smc-discovery was started again since, \
or on kernels before Linux 6.12.

A program that is not listed has no TCP connection that smc-run saw, or is not of this user: \
smc-run -d PROGRAM says what becomes of each. Of processes that do not answer stderr has the names; \
where there is nothing to show it says what was looked at.";

/// List SMC sockets: those of processes under smc-run, and the kernel's where it has SMC.
///
/// Without options: connections. Root sees those of all users, and in all network namespaces and
/// containers; others those of their own processes in this network namespace.
#[derive(Debug, Parser)]
#[command(name = "smcss", version, disable_version_flag = true, verbatim_doc_comment)]
#[command(after_help = EXAMPLES)]
pub struct Cli {
    /// Show all sockets.
    #[arg(short, long)]
    pub all: bool,
    /// Show listening sockets.
    #[arg(short, long, conflicts_with_all = ["all", "debug", "smcd", "smcr"])]
    pub listening: bool,
    /// Show debug socket information.
    #[arg(short, long)]
    pub debug: bool,
    /// Do not truncate IP addresses.
    #[arg(short = 'W', long)]
    pub wide: bool,
    /// Show detailed SMC-D information (shows only SMC-D sockets).
    #[arg(short = 'D', long, conflicts_with = "smcr")]
    pub smcd: bool,
    /// Show detailed SMC-R information (shows only SMC-R sockets).
    #[arg(short = 'R', long)]
    pub smcr: bool,
    /// Show in words why a connection is TCP.
    #[arg(short, long)]
    pub reason: bool,
    /// Show whose it is: a process, or the kernel.
    #[arg(short, long)]
    pub process: bool,
    /// Show only sockets of this network namespace, as that of smc-tools does.
    #[arg(long)]
    pub here: bool,
    /// Print JSON, with all that is known.
    #[arg(long)]
    pub json: bool,
    /// Show version information.
    #[arg(short, long, action = clap::ArgAction::Version)]
    pub version: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_that_of_smc_tools() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        for line in [
            "smcss -a -d -W",
            "smcss -aD",
            "smcss -lW",
            "smcss --smcr --wide",
            "smcss -dD",
            "smcss --all --debug --smcd",
            "smcss --listening",
            "smcss -aR",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in ["smcss -DR", "smcss -ld", "smcss -la", "smcss -lR", "smcss -lD", "smcss x"] {
            assert!(parse(line).is_err(), "{line}");
        }
        for (line, kind) in [
            ("smcss -v", clap::error::ErrorKind::DisplayVersion),
            ("smcss -h", clap::error::ErrorKind::DisplayHelp),
        ] {
            assert_eq!(parse(line).err().map(|error| error.kind()), Some(kind), "{line}");
        }
    }
}
