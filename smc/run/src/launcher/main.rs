// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smc_run`: starts a program with `libsmc_run.so`.
//!
//! Invariant: it becomes the program (no process stays in between), with everything else in the
//! environment untouched.

mod program;
#[path = "../size.rs"]
mod size;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

const LIBRARY: &str = "libsmc_run.so";

/// Runs a program whose TCP connections use SMC where the other side and the kernel can, and TCP
/// where not. The program is not changed. Statically linked programs (many in Go) cannot be
/// helped so; a warning says it.
///
/// Which connections use SMC, and why others do not: smcd socket show
#[derive(Parser)]
#[command(version, disable_version_flag = true)]
struct Cli {
    /// Say on stderr what becomes of sockets (SMC_DEBUG=1).
    #[arg(short)]
    debug: bool,
    /// Size of receive buffers in bytes, or with a K or M (SMC_RCVBUF).
    #[arg(short, value_name = "SIZE", value_parser = size::parse)]
    receive: Option<i32>,
    /// Size of send buffers in bytes, or with a K or M (SMC_SNDBUF).
    #[arg(short = 't', value_name = "SIZE", value_parser = size::parse)]
    transmit: Option<i32>,
    /// Print the version.
    #[arg(short, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(never) => match never {},
        Err((status, text)) => {
            eprintln!("smc_run: {text}");
            ExitCode::from(status)
        }
    }
}

/// Does not return when all is well; else the exit status, as env(1) has it, and why.
fn run(cli: &Cli) -> Result<std::convert::Infallible, (u8, String)> {
    let library = library().map_err(|text| (125, text))?;
    let Some((program, arguments)) = cli.command.split_first() else {
        return Err((125, "no program is named".to_owned()));
    };
    if program::find(program).is_some_and(|path| program::ignores_preloads(&path)) {
        let name = Path::new(program).display();
        eprintln!("smc_run: {name} is statically linked: its own connections stay TCP");
    }
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("LD_PRELOAD", preload(&library, std::env::var_os("LD_PRELOAD").as_deref()));
    if cli.debug {
        command.env("SMC_DEBUG", "1");
    }
    for (name, size) in [("SMC_RCVBUF", cli.receive), ("SMC_SNDBUF", cli.transmit)] {
        if let Some(size) = size {
            command.env(name, size.to_string());
        }
    }
    let error = command.exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    Err((status, format!("cannot run {}: {error}", Path::new(program).display())))
}

/// Our library before those that are preloaded already.
fn preload(library: &Path, others: Option<&OsStr>) -> OsString {
    let mut list = library.as_os_str().to_owned();
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        list.push(":");
        list.push(others);
    }
    list
}

/// The library beside this program, or in the lib directory beside its bin directory.
fn library() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places = [directory.join(LIBRARY), directory.join("../lib").join(LIBRARY)];
    places.iter().find(|place| place.exists()).cloned().ok_or_else(|| {
        let [beside, lib] = places.map(|place| place.display().to_string());
        format!("{LIBRARY} is neither {beside} nor {lib}")
    })
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

    #[test]
    fn other_preloads_stay() {
        let library = Path::new("/lib/x.so");
        assert_eq!(preload(library, None), "/lib/x.so");
        assert_eq!(preload(library, Some(OsStr::new(""))), "/lib/x.so");
        assert_eq!(preload(library, Some(OsStr::new("/a.so"))), "/lib/x.so:/a.so");
    }
}
