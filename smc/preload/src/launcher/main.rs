// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smc-run`: starts a program with `libsmc_preload.so`.
//!
//! Invariant: it becomes the program (no process stays in between), with everything else in the
//! environment untouched.

mod cli;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use smc_launch::Start;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    warn_without_daemon(&cli);
    Start {
        name: "smc-run",
        library: "libsmc_preload.so",
        command: &cli.command,
        environment: &[
            ("SMC_DEBUG", cli.debug.then(|| "1".into())),
            ("SMC_MODE", cli.never.then(|| "tcp".into())),
            ("SMC_SOCKET", cli.socket.map(Into::into)),
            ("SMC_SPIN_US", cli.spin.map(|us| us.to_string().into())),
        ],
    }
    .start()
}

/// Nothing would say of a program, which may have no connection yet, that none of them will be SMC's.
fn warn_without_daemon(cli: &Cli) {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let named = cli.socket.clone().or_else(|| variable("SMC_SOCKET").map(PathBuf::from));
    let socket = named.unwrap_or_else(|| ism_client::vhost::SOCKET.into());
    let is_tcp = cli.never || variable("SMC_MODE").is_some_and(|mode| mode == "tcp");
    if !is_tcp && std::fs::metadata(&socket).is_err_and(|it| it.kind() == ErrorKind::NotFound) {
        let socket = socket.display();
        eprintln!(
            "smc-run: no daemon at {socket}: connections stay TCP until there is one \
             (vhost-user-ism --processes name=apps,socket={socket})"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_programs_own_options_are_left_to_it() {
        Cli::command().debug_assert();
        let line = "smc-run -d -s /run/x iperf3 -v -n 5 -s";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!((cli.debug, cli.never), (true, false));
        assert_eq!(cli.socket, Some("/run/x".into()));
        assert_eq!(cli.command, ["iperf3", "-v", "-n", "5", "-s"]);
    }
}
