// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `bench-limit`: what the machine allows two cores that share memory.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use ism_bench::limit;

/// Measures between two threads, pinned to the first two cores that this program may use.
#[derive(Parser)]
struct Options {
    /// What to measure
    #[arg(value_enum)]
    what: What,
    /// Bytes of a message or a copied piece
    bytes: usize,
    /// How long
    #[arg(default_value_t = 1)]
    seconds: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Half a round trip of a message, spinning, in µs
    PingPong,
    /// 10⁶ bytes a second through a shared buffer: copied in and out, in the fastest of some ways
    TwoCopies,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let time = Duration::from_secs(options.seconds);
    match options.what {
        What::PingPong if options.bytes > limit::MOST => {
            eprintln!("bench-limit: messages have at most {} bytes", limit::MOST);
            return ExitCode::FAILURE;
        }
        What::PingPong => {
            println!("{}", limit::ping_pong(options.bytes, time).as_secs_f64() * 1e6);
        }
        What::TwoCopies => println!("{}", limit::two_copies(options.bytes, time) / 1e6),
    }
    ExitCode::SUCCESS
}
