// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smcss`: lists SMC sockets, with the columns and options of smc-tools: the kernel's, and those of
//! processes under `smc-run`.

#![forbid(unsafe_code)]

mod render;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use smc_tools::socket::{Carrier, Socket};
use smc_tools::{processes, view};

/// Lists SMC sockets: those of processes under smc-run, and the kernel's where it has SMC.
///
/// Without options: connections. Of other users' processes, and of those in other network namespaces,
/// only root sees something.
#[derive(Parser)]
#[command(version, disable_version_flag = true, verbatim_doc_comment)]
struct Cli {
    /// Show all sockets.
    #[arg(short, long)]
    all: bool,
    /// Show listening sockets.
    #[arg(short, long, conflicts_with_all = ["all", "debug", "smcd", "smcr"])]
    listening: bool,
    /// Show debug socket information.
    #[arg(short, long)]
    debug: bool,
    /// Do not truncate IP addresses.
    #[arg(short = 'W', long)]
    wide: bool,
    /// Show detailed SMC-D information (shows only SMC-D sockets).
    #[arg(short = 'D', long, conflicts_with = "smcr")]
    smcd: bool,
    /// Show detailed SMC-R information (shows only SMC-R sockets).
    #[arg(short = 'R', long)]
    smcr: bool,
    /// Show in words why a connection is TCP.
    #[arg(short, long)]
    reason: bool,
    /// Show whose it is: a process, or the kernel.
    #[arg(short, long)]
    process: bool,
    /// Print JSON, with all that is known.
    #[arg(long)]
    json: bool,
    /// Show version information.
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

const INIT: u8 = 2;
const LISTEN: u8 = 10;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that has seen enough is no failure.
            if matches!(error.downcast_ref::<io::Error>(), Some(e) if e.kind() == io::ErrorKind::BrokenPipe)
            {
                return ExitCode::SUCCESS;
            }
            eprintln!("smcss: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let processes = processes::ask_all();
    processes.problems.iter().for_each(|problem| eprintln!("smcss: {problem}"));
    let mut sockets = view::sockets(&processes)?;
    sockets.retain(|socket| cli.shows(socket));
    let text = match cli.json {
        true => serde_json::to_string_pretty(&sockets)? + "\n",
        false => render::table(cli, &sockets),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

impl Cli {
    /// As smc-tools chooses: listening and opening sockets are not connections.
    fn shows(&self, socket: &Socket) -> bool {
        if self.listening {
            return socket.state == LISTEN;
        }
        (self.all || ![INIT, LISTEN].contains(&socket.state))
            && (!self.smcd || matches!(socket.carrier, Carrier::Smcd { .. }))
            && (!self.smcr || matches!(socket.carrier, Carrier::Smcr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_that_of_smc_tools() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        for line in ["smcss -a -d -W", "smcss -aD", "smcss -lW", "smcss --smcr --wide", "smcss -dD"]
        {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in ["smcss -DR", "smcss -ld", "smcss -la", "smcss -lR", "smcss -lD", "smcss x"] {
            assert!(parse(line).is_err(), "{line}");
        }
        let shown = parse("smcss -v").err().map(|error| error.kind());
        assert_eq!(shown, Some(clap::error::ErrorKind::DisplayVersion));
    }
}
