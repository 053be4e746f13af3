// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smc_run`: starts a program with `libsmc_run.so`.
//!
//! Invariant: it becomes the program (no process stays in between), with everything else in the
//! environment untouched.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use smc_launch::Start;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let size = |size: Option<i32>| size.map(|size| size.to_string().into());
    Start {
        name: "smc_run",
        library: "libsmc_run.so",
        command: &cli.command,
        environment: &[
            ("SMC_DEBUG", cli.debug.then(|| "1".into())),
            ("SMC_RCVBUF", size(cli.receive)),
            ("SMC_SNDBUF", size(cli.transmit)),
        ],
    }
    .start()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_programs_own_options_are_left_to_it() {
        Cli::command().debug_assert();
        let line = "smc_run -d -r 1M iperf3 -v -c ::1 -t 5";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!((cli.debug, cli.receive, cli.transmit), (true, Some(1 << 20), None));
        assert_eq!(cli.command, ["iperf3", "-v", "-c", "::1", "-t", "5"]);
    }
}
