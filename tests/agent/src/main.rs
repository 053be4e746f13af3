// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line: `ism-agent serve` in the guest, `ism-agent exec` on the host.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use ism_agent::guest;
use ism_agent::host::{Client, Command, Error, Event, Stdin};
use ism_agent::message::{MAX_PIECE, Request, Stream};
use ism_agent::port::VirtioPort;

/// As timeout(1) has it.
const STATUS_TIMED_OUT: u8 = 124;
/// As timeout(1) and env(1) have it: the tool itself failed.
const STATUS_FAILED: u8 = 125;
/// As a shell has it: the command was not found.
const STATUS_REFUSED: u8 = 127;

/// Runs commands in a guest from its host, over a virtio-serial port.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// In the guest: serve the host on a virtio-serial port.
    Serve {
        /// The port's device, for instance /dev/vport0p1, or name:NAME for the port that QEMU
        /// calls NAME (-device virtserialport,name=NAME).
        port: OsString,
    },
    /// On the host: run one command in the guest and exit with its status.
    ///
    /// Exit status: the command's; 128 + n when signal n ended it; 124 when --timeout did;
    /// 127 when it could not be started; 125 when the agent was not reached or was lost.
    Exec(Exec),
}

#[derive(Args)]
struct Exec {
    /// The unix socket of the port's chardev (-chardev socket,path=SOCKET,server=on,wait=off).
    socket: PathBuf,
    /// Set a variable for the command.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// Kill the command after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    timeout: Option<Duration>,
    /// Wait so long for the guest to boot and its agent to answer.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    boot_timeout: Duration,
    /// Leave the command running in the guest, without input or output, and return at once.
    #[arg(long, conflicts_with_all = ["timeout", "stdin"])]
    detach: bool,
    /// Pass standard input on; without this the command's input is empty.
    #[arg(long)]
    stdin: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".into()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "must be a number of seconds, for instance 30 or 0.5".into())
}

fn main() -> ExitCode {
    let (result, status) = match Cli::parse().command {
        Action::Serve { port } => (serve(&port).map(|()| 0), 1),
        Action::Exec(exec) => (run(exec), STATUS_FAILED),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("ism-agent: {error}");
            let status = match error.downcast_ref() {
                Some(Error::TimedOut) => STATUS_TIMED_OUT,
                Some(Error::Refused(_)) => STATUS_REFUSED,
                _ => status,
            };
            ExitCode::from(status)
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn serve(port: &OsString) -> Result<(), Failure> {
    let path = match port.to_str().and_then(|port| port.strip_prefix("name:")) {
        Some(name) => VirtioPort::find(name)?,
        None => Path::new(port).to_owned(),
    };
    let port = VirtioPort::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    guest::serve(port).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(())
}

fn run(exec: Exec) -> Result<u8, Failure> {
    let now = Instant::now();
    let boot_deadline = now.checked_add(exec.boot_timeout).ok_or("--boot-timeout is too long")?;
    let client = Client::connect(&exec.socket, boot_deadline, || None)?;
    let command = client.start(Request {
        argv: exec.command.into_iter().map(OsString::into_vec).collect(),
        env: exec.env.into_iter().map(|(n, v)| (n.into_bytes(), v.into_bytes())).collect(),
        stdin: exec.stdin,
        detach: exec.detach,
    })?;
    let deadline = exec.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    if exec.stdin {
        let stdin = command.stdin();
        // Not joined: it may be stuck in a read when the command has ended, and then so has this
        // program.
        std::thread::spawn(move || {
            if let Err(error) = pass_input(&stdin) {
                eprintln!("ism-agent: standard input: {error}");
            }
        });
    }
    pass_output(&command, deadline)
}

fn pass_input(command: &Stdin) -> Result<(), Failure> {
    let mut buffer = vec![0; MAX_PIECE];
    loop {
        match io::stdin().lock().read(&mut buffer) {
            Ok(0) => return Ok(command.end()?),
            Ok(length) => command.write(buffer.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn pass_output(command: &Command, deadline: Option<Instant>) -> Result<u8, Failure> {
    loop {
        match command.next(deadline)? {
            Event::Started(_) => {}
            Event::Output(Stream::Stdout, data) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&data).and_then(|()| stdout.flush())?;
            }
            Event::Output(Stream::Stderr, data) => io::stderr().lock().write_all(&data)?,
            Event::Exited(exit) => {
                return Ok(u8::try_from(exit.shell_status()).unwrap_or(u8::MAX));
            }
        }
    }
}
