// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smc-run`: starts a program with `libsmc_preload.so`.
//!
//! Invariant: it becomes the program (no process stays in between), with everything else in the
//! environment untouched.

#[path = "../../../run/src/launcher/program.rs"]
mod program;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

const LIBRARY: &str = "libsmc_preload.so";

/// Runs a program whose TCP connections use SMC-D of vhost-user-ism where the other end can too, and
/// TCP where not. Neither the program nor the kernel is changed. Statically linked programs (many in
/// Go) cannot be helped so; a warning says it.
///
/// For the kernel's own SMC there is smc_run.
#[derive(Parser)]
#[command(version, disable_version_flag = true)]
struct Cli {
    /// Say on stderr what becomes of connections (SMC_DEBUG=1).
    #[arg(short)]
    debug: bool,
    /// The socket of the daemon for processes (SMC_SOCKET).
    #[arg(short, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// The longest that a thread looks by itself before it sleeps, in microseconds; 0: it sleeps at
    /// once (SMC_SPIN_US).
    #[arg(short = 'p', value_name = "US")]
    spin: Option<u32>,
    /// Stay with TCP, all calls looked at nevertheless (SMC_MODE=tcp).
    #[arg(short = 'n')]
    never: bool,
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
            eprintln!("smc-run: {text}");
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
        eprintln!("smc-run: {name} is statically linked: its own connections stay TCP");
    }
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("LD_PRELOAD", preload(&library, std::env::var_os("LD_PRELOAD").as_deref()));
    if cli.debug {
        command.env("SMC_DEBUG", "1");
    }
    if cli.never {
        command.env("SMC_MODE", "tcp");
    }
    if let Some(socket) = &cli.socket {
        command.env("SMC_SOCKET", socket);
    }
    if let Some(us) = cli.spin {
        command.env("SMC_SPIN_US", us.to_string());
    }
    let error = command.exec();
    let status = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    Err((status, format!("cannot run {}: {error}", Path::new(program).display())))
}

/// Our library before those that are preloaded already, once.
fn preload(library: &Path, others: Option<&OsStr>) -> OsString {
    let mut list = library.as_os_str().to_owned();
    let others = others.unwrap_or_default();
    let separators = [b':', b' '];
    for other in others.as_encoded_bytes().split(|byte| separators.contains(byte)) {
        let other = std::os::unix::ffi::OsStrExt::from_bytes(other);
        if !OsStr::is_empty(other) && other != library.as_os_str() {
            list.push(":");
            list.push(other);
        }
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
        let line = "smc-run -d -s /run/x iperf3 -v -n 5 -s";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert_eq!((cli.debug, cli.never), (true, false));
        assert_eq!(cli.socket, Some("/run/x".into()));
        assert_eq!(cli.command, ["iperf3", "-v", "-n", "5", "-s"]);
    }

    #[test]
    fn other_preloads_stay_and_none_comes_twice() {
        let library = Path::new("/lib/x.so");
        assert_eq!(preload(library, None), "/lib/x.so");
        assert_eq!(preload(library, Some(OsStr::new(""))), "/lib/x.so");
        assert_eq!(preload(library, Some(OsStr::new("/a.so:/lib/x.so"))), "/lib/x.so:/a.so");
        assert_eq!(preload(library, Some(OsStr::new("/a.so /b.so"))), "/lib/x.so:/a.so:/b.so");
    }
}
