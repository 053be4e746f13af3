// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smcss`: lists SMC sockets, with the columns and options of smc-tools: the kernel's, and those of
//! processes under `smc-run`.

#![forbid(unsafe_code)]

mod render;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use smc_tools::cli::smcss::Cli;
use smc_tools::processes::Where;
use smc_tools::socket::{Carrier, Socket};
use smc_tools::{nothing, processes, view};

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
    let place = if cli.here { Where::Here } else { Where::Anywhere };
    let processes = processes::ask_all(place);
    processes.problems.iter().for_each(|problem| eprintln!("smcss: {problem}"));
    let mut sockets = view::sockets(&processes)?;
    sockets.retain(|socket| shows(cli, socket));
    let text = match cli.json {
        true => serde_json::to_string_pretty(&sockets)? + "\n",
        false => render::table(cli, &sockets),
    };
    if sockets.is_empty() {
        eprintln!("smcss: {}", nothing::why(&processes, place));
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// As smc-tools chooses: listening and opening sockets are not connections.
fn shows(cli: &Cli, socket: &Socket) -> bool {
    if cli.listening {
        return socket.state == LISTEN;
    }
    (cli.all || ![INIT, LISTEN].contains(&socket.state))
        && (!cli.smcd || matches!(socket.carrier, Carrier::Smcd { .. }))
        && (!cli.smcr || matches!(socket.carrier, Carrier::Smcr))
}
