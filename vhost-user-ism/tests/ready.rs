// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon as a service of systemd's (`Type=notify`).
//!
//! Invariant tested: when it says that it is ready, its sockets are there; from within its sandbox too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A bound only: what is waited for comes at once, or never.
const LONG: Duration = Duration::from_secs(60);

/// A daemon, and a folder; both are gone with it.
struct Daemon(Child, PathBuf);

impl Daemon {
    /// With a door for processes; `socket` is systemd's.
    fn start(name: &str, socket: impl FnOnce(&Path) -> String) -> Self {
        let folder = std::env::temp_dir().join(format!("vui-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_vhost-user-ism"));
        let door = folder.join("door").display().to_string();
        daemon.arg("--processes").arg(format!("name=apps,socket={door}"));
        daemon.env("NOTIFY_SOCKET", socket(&folder)).stdin(Stdio::null()).stderr(Stdio::piped());
        Self(daemon.spawn().unwrap(), folder)
    }

    fn door(&self) -> PathBuf {
        self.1.join("door")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_dir_all(&self.1);
    }
}

/// What systemd is told; then the door is there.
fn hear(socket: &UnixDatagram, daemon: &Daemon) {
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut said = [0; 100];
    let len = socket.recv(&mut said).unwrap();
    assert_eq!(said[..len], *b"READY=1");
    UnixStream::connect(daemon.door()).unwrap();
}

#[test]
fn it_tells_systemd_when_its_sockets_are_there() {
    let mut systemd = None;
    let daemon = Daemon::start("path", |folder| {
        let path = folder.join("notify");
        systemd = Some(UnixDatagram::bind(&path).unwrap());
        path.display().to_string()
    });
    hear(&systemd.unwrap(), &daemon);
}

/// Landlock would not let it be reached.
#[test]
fn it_tells_an_abstract_socket_from_within_its_sandbox() {
    let name = format!("vui-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let systemd = UnixDatagram::bind_addr(&address).unwrap();
    let daemon = Daemon::start("abstract", |_| format!("@{name}"));
    hear(&systemd, &daemon);
}

/// As sd_notify(3) has it: who does not hear it is no reason to end.
#[test]
fn it_serves_where_systemd_cannot_be_told() {
    for (name, socket, complaints) in [("unset", "", 0), ("nobody", "/nowhere/notify", 1)] {
        let mut daemon = Daemon::start(name, |_| socket.to_owned());
        let mut lines = BufReader::new(daemon.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains("listening at")) {
            said.push(lines.next().unwrap());
        }
        kill_process(Pid::from_child(&daemon.0), Signal::TERM).unwrap();
        assert!(daemon.0.wait().unwrap().success(), "{name}: {said:?}");
        let warned = said.iter().filter(|line| line.contains("NOTIFY_SOCKET: ")).count();
        assert_eq!(warned, complaints, "{said:?}");
    }
}
