// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `bench-process`: what a message between two processes costs, beside TCP's, through a daemon of its own.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use ism_bench::process::Side;
use ism_bench::report::Report;
use ism_bench::{cores, pin};
use ism_client::vhost;
use ism_frontend::Fabric;

/// Measures two processes on one fabric.
#[derive(Parser)]
struct Options {
    /// Round trips of each case that sleeps
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    runs: u64,
    /// The other side: internal
    #[arg(long, hide = true, num_args = 2)]
    peer: Option<Vec<String>>,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.peer {
        Some(peer) => be_peer(peer, options.runs),
        None => measure(options.runs),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-process: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(runs: u64) -> Result<(), Failure> {
    let daemon = Fabric::new().processes("bench", "").start()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let door = daemon.socket("bench");
    let mut peer = Command::new(std::env::current_exe()?)
        .args(["--runs", &runs.to_string(), "--peer"])
        .arg(&door)
        .arg(listener.local_addr()?.to_string())
        .spawn()?;
    pin(&cores(), 0);
    let side = Side::meet(listener.accept()?.0, vhost::join(&door)?, true);
    let rows = side.and_then(|mut side| side.rows(runs));
    if rows.is_err() {
        // It ends by itself if it can.
        let _ = peer.kill();
    }
    peer.wait()?;
    print!("{}", Report(rows?));
    Ok(())
}

fn be_peer(peer: &[String], runs: u64) -> Result<(), Failure> {
    let [door, address] = peer else { return Err("--peer takes a door and an address".into()) };
    let door: &Path = &PathBuf::from(door);
    pin(&cores(), 1);
    let device = vhost::join(door)?;
    Side::meet(TcpStream::connect(address)?, device, false)?.rows(runs).map(drop)
}
