// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program `smc-discovery` from outside: when it is ready, and what it says if it cannot be.
//!
//! Invariant: every refusal names the next step.

mod common;

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use common::{Cgroup, tcp};
use rustix::process::{Pid, Signal, kill_process};
use smc_discovery::sockopt::mark;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_smc-discovery"))
}

/// Its standard error output, after a failure.
fn complaint(command: &mut Command) -> String {
    let output = command.output().expect("run smc-discovery (or setpriv, of util-linux)");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn it_serves_from_when_it_says_so_until_it_is_ended() {
    let cgroup = Cgroup::enter();
    let socket = tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let directory = std::env::temp_dir().join(format!("smc-discovery-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory");
    let notify = directory.join("notify");
    let systemd = UnixDatagram::bind(&notify).expect("a socket");
    let mut child = program()
        .arg("--cgroup")
        .arg(&cgroup.path)
        .env("NOTIFY_SOCKET", &notify)
        .stdout(Stdio::piped())
        .spawn()
        .expect("run smc-discovery");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, format!("serves the sockets of {}\n", cgroup.path.display()));
    let mut message = [0; 16];
    let len = systemd.recv(&mut message).expect("a message");
    assert_eq!(&message[..len], b"READY=1");
    assert!(mark(&socket).expect("a socket"));

    kill_process(Pid::from_child(&child), Signal::TERM).expect("kill");
    assert!(child.wait().expect("wait").success());
    assert!(!mark(&socket).expect("a socket"), "nothing stays");
    std::fs::remove_dir_all(&directory).expect("remove the directory");
}

/// Both serve, so that one may be started before the other is ended.
#[test]
fn who_is_not_the_first_says_so() {
    let cgroup = Cgroup::enter();
    let start = || {
        let mut command = program();
        command.arg("--cgroup").arg(&cgroup.path).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run smc-discovery");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("serves the sockets"), "{line}");
        child
    };
    let end = |child: Child| {
        kill_process(Pid::from_child(&child), Signal::TERM).expect("kill");
        let output = child.wait_with_output().expect("wait");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let (first, second) = (start(), start());
    assert_eq!(end(first), "");
    // The second is still there, alone.
    let third = start();
    for child in [second, third] {
        let said = end(child);
        assert!(said.contains("another one serves"), "{said}");
    }
    assert_eq!(end(start()), "");
}

/// As sd_notify(3) has it: who does not hear it is no reason to end.
#[test]
fn it_serves_where_systemd_cannot_be_told() {
    let cgroup = Cgroup::enter();
    for (notify, complaints) in [("", 0), ("/nowhere/notify", 1)] {
        let mut command = program();
        command.arg("--cgroup").arg(&cgroup.path).env("NOTIFY_SOCKET", notify);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("serves the sockets"), "{line}");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("kill");
        let output = child.wait_with_output().expect("wait");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(said.matches("NOTIFY_SOCKET: ").count(), complaints, "{said}");
    }
}

#[test]
fn without_capabilities_it_says_which() {
    let without = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--bounding-set={capabilities}"))
            .arg(env!("CARGO_BIN_EXE_smc-discovery"));
        complaint(&mut command)
    };
    let said = without("-sys_admin,-bpf,-net_admin");
    assert!(said.contains("CAP_BPF and CAP_NET_ADMIN: missing"), "{said}");
    assert!(said.contains("Run it as root"), "{said}");
    let said = without("-sys_admin,-bpf");
    assert!(said.contains("CAP_BPF: missing"), "{said}");
    let said = without("-sys_admin,-net_admin");
    assert!(said.contains("CAP_NET_ADMIN: missing"), "{said}");
}

/// What the systemd unit gives it.
#[test]
fn two_capabilities_are_enough() {
    let cgroup = Cgroup::enter();
    let mut child = Command::new("setpriv")
        .args(["--bounding-set=-all,+bpf,+net_admin", "--no-new-privs"])
        .args([env!("CARGO_BIN_EXE_smc-discovery"), "--cgroup"])
        .arg(&cgroup.path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("run setpriv, of util-linux");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("serves the sockets"), "{line}");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("kill");
    assert!(child.wait().expect("wait").success());
}

#[test]
fn a_path_that_is_no_cgroup_is_refused() {
    let said = complaint(program().args(["--cgroup", "/tmp"]));
    assert!(said.contains("/tmp is not in a cgroup file system of version 2"), "{said}");
    assert!(said.contains("findmnt -t cgroup2"), "{said}");
    let said = complaint(program().args(["--cgroup", "/nowhere"]));
    assert!(said.contains("/nowhere cannot be opened: No such file"), "{said}");
}
