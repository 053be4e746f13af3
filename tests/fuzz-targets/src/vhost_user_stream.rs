// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages and descriptors on a socket of the daemon, which runs in this process.
//!
//! Invariant: whatever one connection says, it ends when the front-end hangs up, and the VM's
//! socket then serves the next one.

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use ism_frontend::raw::{VERSION_1, header, message, receive, send};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vhost_user_ism::config::file;
use vhost_user_ism::daemon::Daemon;

use crate::bytes::Bytes;

const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_PROTOCOL_FEATURES: u32 = 16;
/// Longer than a connection's end takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon and what is sent to it, once for the whole process.
struct Setup {
    socket: PathBuf,
    fds: Vec<OwnedFd>,
    _daemon: Daemon,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("ism-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (socket, settings) = (folder.join("vm.sock"), folder.join("fabric.toml"));
    let text = format!("poll-us = 0\n[[vm]]\nname = \"vm\"\nsocket = {socket:?}\n");
    std::fs::write(&settings, text).expect("the configuration's file");
    let config = file::read(&settings).expect("a valid configuration");
    let memfd = |seals| {
        let fd = memfd_create("fuzz", MemfdFlags::ALLOW_SEALING).expect("memfd");
        ftruncate(&fd, 1 << 20).expect("size");
        fcntl_add_seals(&fd, seals).expect("seal");
        fd
    };
    let (one, other) = UnixStream::pair().expect("pair");
    let fds = vec![
        memfd(SealFlags::SHRINK | SealFlags::GROW),
        eventfd(0, EventfdFlags::empty()).expect("eventfd"),
        one.into(),
        memfd(SealFlags::empty()),
        other.into(),
    ];
    let sockets = Daemon::bind(&config).expect("the socket");
    Setup { socket, fds, _daemon: Daemon::start(&config, sockets).expect("daemon") }
});

/// The target.
pub fn run(data: &[u8]) {
    let setup = &*SETUP;
    let mut bytes = Bytes::new(data);
    let mut socket = UnixStream::connect(&setup.socket).expect("the VM's socket is served");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    if bytes.byte() & 1 != 0 {
        begin(&socket);
    }
    while !bytes.is_empty() {
        // Fails when the daemon has hung up, or does not read on.
        if say(&socket, &setup.fds, &mut bytes).is_err() {
            break;
        }
    }
    // Fails if the daemon has hung up already.
    let _ = socket.shutdown(Shutdown::Write);
    let mut answers = [0; 4096];
    loop {
        match socket.read(&mut answers) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the connection does not end: {error}"),
        }
    }
}

/// What every front-end begins with, so that the fuzzer need not find it.
fn begin(socket: &UnixStream) {
    let get = |request| {
        send(socket, &message(request, VERSION_1, &[]), &[]).ok()?;
        let (_, body) = receive(socket).ok()?;
        Some(u64::from_ne_bytes(body.try_into().ok()?))
    };
    let set = |request, value: u64| {
        // As above: the daemon may hang up at any time.
        let _ = send(socket, &message(request, VERSION_1, &value.to_ne_bytes()), &[]);
    };
    let features = get(GET_FEATURES).unwrap_or(0);
    set(SET_PROTOCOL_FEATURES, get(GET_PROTOCOL_FEATURES).unwrap_or(0));
    set(SET_FEATURES, features);
}

/// One message: request, flags, descriptors, body; or any bytes.
fn say(socket: &UnixStream, fds: &[OwnedFd], bytes: &mut Bytes<'_>) -> std::io::Result<usize> {
    let (request, shape) = (bytes.byte(), bytes.byte());
    let attached: Vec<BorrowedFd<'_>> = match shape >> 5 {
        count @ 1..=5 => fds
            .iter()
            .cycle()
            .skip(usize::from(shape >> 3 & 3))
            .map(AsFd::as_fd)
            .take(usize::from(count))
            .collect(),
        _ => Vec::new(),
    };
    let flags = match shape & 3 {
        0 | 1 => VERSION_1,
        2 => VERSION_1 | 8,
        _ => bytes.word(),
    };
    let body = bytes.run();
    if shape & 4 == 0 {
        send(socket, &message(request.into(), flags, body), &attached)
    } else {
        // A size that is not the body's.
        let header = header(request.into(), flags, bytes.word());
        send(socket, &[&header, body].concat(), &attached)
    }
}
