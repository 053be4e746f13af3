// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `vhost-user-ism ctl`: one request to a running daemon, its answer as text.
//!
//! Invariant: what is written to standard output is the answer alone.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Request, Response, State, VmStats, VmStatus};
use crate::cli::{Ctl, CtlRequest};
use crate::config::Name;
use crate::config::file::Vm;

/// Carries out a `ctl` command; the text to print.
///
/// # Errors
/// The daemon cannot be reached, or refuses: in words.
pub fn run(ctl: Ctl) -> Result<String, String> {
    let (request, json) = match ctl.request {
        CtlRequest::AddVm { vm } => (Request::AddVm { vm: absolute(vm)? }, false),
        CtlRequest::RemoveVm { name } => (Request::RemoveVm { name }, false),
        CtlRequest::List => (Request::List, false),
        CtlRequest::Stats { json } => (Request::Stats, json),
        CtlRequest::Shutdown => (Request::Shutdown, false),
    };
    let line = ask(&ctl.control_socket, &request)
        .map_err(|error| unreachable(&ctl.control_socket, &error))?;
    let response: Response =
        serde_json::from_str(&line).map_err(|error| format!("the daemon's answer: {error}"))?;
    if !response.ok {
        return Err(response.error.unwrap_or_else(|| "the daemon refuses".to_owned()));
    }
    match request {
        _ if json => Ok(line),
        Request::List => Ok(list(&response.vms.unwrap_or_default())),
        Request::Stats => Ok(stats(&response)),
        Request::AddVm { .. } | Request::RemoveVm { .. } | Request::Shutdown => Ok(String::new()),
    }
}

/// Why the daemon was not reached, and what to look at.
fn unreachable(path: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "; does a daemon run with this --control-socket?"
        }
        io::ErrorKind::PermissionDenied => {
            "; the socket is open to the daemon's user and root alone"
        }
        _ => "",
    };
    format!("cannot ask the daemon at {}: {error}{hint}", path.display())
}

/// The VM with an absolute socket path: the daemon may have another working directory.
fn absolute(vm: crate::config::VmConfig) -> Result<Vm, String> {
    let mut vm = Vm::from_config(vm).ok_or("the VM has no socket")?;
    vm.socket = std::path::absolute(&vm.socket).map_err(|error| error.to_string())?;
    Ok(vm)
}

fn ask(path: &Path, request: &Request) -> io::Result<String> {
    let mut daemon = UnixStream::connect(path)?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    daemon.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(daemon).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon did not answer"));
    }
    Ok(answer)
}

fn list(vms: &[VmStatus]) -> String {
    let header = ["NAME", "STATE", "WINDOW", "GROUPS", "GID", "SOCKET"].map(str::to_owned);
    let rows = vms.iter().map(|vm| {
        let groups: Vec<_> = vm.groups.iter().map(Name::as_str).collect();
        [
            vm.name.to_string(),
            state(vm.state).to_owned(),
            window(vm.window),
            groups.join("+"),
            vm.gid.clone(),
            vm.socket.clone(),
        ]
    });
    table(std::iter::once(header).chain(rows).collect())
}

fn stats(response: &Response) -> String {
    let mut text = String::new();
    if let Some(fabric) = &response.fabric {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "fabric {:#x}: {} VMs, {} pairs, {} memory files, {} DMBs",
            fabric.id, fabric.vms, fabric.pairs, fabric.extents, fabric.dmbs
        );
    }
    let header = [
        "NAME", "STATE", "PEERS", "DMBS", "BYTES", "GRANTS", "SIG-TX", "SIG-RX", "MOVES", "MOVED",
        "ERRORS",
    ];
    let rows = response.vms.iter().flatten().map(|vm| {
        let none = VmStats::default();
        let stats = vm.stats.as_ref().unwrap_or(&none);
        [
            vm.name.to_string(),
            state(vm.state).to_owned(),
            stats.peers.to_string(),
            stats.dmbs.to_string(),
            stats.dmb_bytes.to_string(),
            stats.grants.to_string(),
            stats.signals_sent.to_string(),
            stats.signals_received.to_string(),
            stats.moves.to_string(),
            stats.move_bytes.to_string(),
            stats.errors.to_string(),
        ]
    });
    text.push_str(&table(std::iter::once(header.map(str::to_owned)).chain(rows).collect()));
    text
}

fn state(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Connected => "connected",
        State::Ready => "ready",
    }
}

fn window(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { format!("{} MiB", bytes >> 20) }
}

/// Columns as wide as their longest entry.
fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let mut widths = [0; N];
    for row in &rows {
        for (width, entry) in widths.iter_mut().zip(row) {
            *width = (*width).max(entry.len());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, entry) in widths.iter().zip(&row) {
            let _ = write!(line, "{entry:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_the_documented_json() {
        let vm = "name=a,socket=/s,bytes=64M".parse().expect("VM");
        let add = Request::AddVm { vm: absolute(vm).expect("path") };
        let value = serde_json::to_value(&add).expect("JSON");
        assert_eq!(value["command"], "add-vm");
        assert_eq!(value["vm"]["name"], "a");
        assert_eq!(value["vm"]["socket"], "/s");
        assert_eq!(value["vm"]["bytes"], 64 << 20);
        let back: Request = serde_json::from_value(value).expect("request");
        assert!(matches!(back, Request::AddVm { .. }));
        assert!(serde_json::from_str::<Request>(r#"{"command":"list"}"#).is_ok());
        assert!(serde_json::from_str::<Request>(r#"{"command":"dance"}"#).is_err());
    }

    #[test]
    fn a_daemon_that_does_not_run_is_named_as_the_cause() {
        let path = std::env::temp_dir().join(format!("vui-{}-nobody", std::process::id()));
        let ctl = Ctl { control_socket: path.clone(), request: CtlRequest::List };
        let error = run(ctl).expect_err("nobody listens");
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("does a daemon run"), "{error}");
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![["A".to_owned(), "B".to_owned()], ["long".to_owned(), "x".to_owned()]];
        assert_eq!(table(rows), "A     B\nlong  x\n");
    }
}
