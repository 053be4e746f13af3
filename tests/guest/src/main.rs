// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sends byte streams that their receiver can check, over kernel SMC (the default) or TCP.
//!
//! Invariant: exit status 0 means that every byte of every connection arrived once and in order,
//! in both directions. Diagnostics go to standard error, one line an event.

mod client;
mod pattern;
mod server;
mod socket;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sends and checks byte streams.
#[derive(Parser)]
struct Cli {
    /// Plain TCP instead of SMC.
    #[arg(long, global = true)]
    tcp: bool,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Accept connections for ever and send back what comes.
    Serve {
        /// Address and port to listen on, for instance 0.0.0.0:7000 or [::]:7000.
        address: SocketAddr,
        /// Send back by splice(2) through a pipe, without copying to user space.
        #[arg(long)]
        splice: bool,
    },
    /// Open connections, send, and check what comes back.
    Connect(client::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let family = if cli.tcp { socket::Family::Tcp } else { socket::Family::Smc };
    let result = match cli.role {
        Role::Serve { address, splice } => server::serve(family, address, splice),
        Role::Connect(options) => client::run(family, &options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ism-stream: {error}");
            ExitCode::FAILURE
        }
    }
}
