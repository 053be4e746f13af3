// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon's end of the control socket.
//!
//! Invariant: a line is at most [`LINE`] bytes, and at most [`CLIENTS`] clients are served at once.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{FabricStatus, Request, Response, State, VmStats, VmStatus};
use crate::config::{Listen, VmConfig};
use crate::daemon::{self, Daemon};
use crate::socket::Listening;

/// Bytes of the longest request.
const LINE: u64 = 64 << 10;
/// Clients served at once.
const CLIENTS: usize = 16;
/// How long a client may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Serves the control socket from a thread, as long as the process runs.
///
/// # Errors
/// No thread can be made.
pub fn start(daemon: Arc<Daemon>, listening: Arc<Listening>) -> io::Result<()> {
    let clients = Arc::new(AtomicUsize::new(0));
    let serve = move || {
        for client in listening.socket().incoming() {
            match client {
                Ok(client) => start_client(&daemon, &clients, client),
                Err(error) => {
                    log::warn!("control socket: {error}");
                    // Out of descriptors, most likely: they come back when a client goes.
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    };
    std::thread::Builder::new().name("control".to_owned()).spawn(serve).map(drop)
}

fn start_client(daemon: &Arc<Daemon>, clients: &Arc<AtomicUsize>, client: UnixStream) {
    let place = Place(Arc::clone(clients));
    if clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS {
        log::warn!("control socket: more than {CLIENTS} clients; one is turned away");
        return;
    }
    let daemon = Arc::clone(daemon);
    let serve = move || {
        let _place = place;
        if let Err(error) = serve_client(&daemon, &client) {
            log::debug!("control socket: {error}");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("ctl-client".to_owned()).spawn(serve) {
        log::warn!("control socket: {error}");
    }
}

/// A client's place, given back when it goes.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve_client(daemon: &Daemon, client: &UnixStream) -> io::Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    client.set_write_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE).read_line(&mut line)? == 0 {
            return Ok(());
        }
        if !line.ends_with('\n') {
            return answer(
                client,
                &Response::failed(format!("a request has at most {LINE} bytes")),
            );
        }
        let request = serde_json::from_str(&line);
        let response = match request {
            Ok(request) => carry_out(daemon, request),
            Err(error) => Response::failed(error),
        };
        answer(client, &response)?;
    }
}

fn answer(mut client: &UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_string(response)?;
    line.push('\n');
    client.write_all(line.as_bytes())
}

fn carry_out(daemon: &Daemon, request: Request) -> Response {
    let done = |result: Result<(), daemon::Error>| match result {
        Ok(()) => Response::done(),
        Err(error) => Response::failed(error),
    };
    match request {
        Request::AddVm { vm } => done(daemon.add_vm(VmConfig::from(vm))),
        Request::RemoveVm { name } => done(daemon.remove_vm(&name)),
        Request::List => show(daemon, false),
        Request::Stats => show(daemon, true),
        Request::Shutdown => {
            // The main thread waits for this signal, and cleans up.
            let sent = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::TERM,
            );
            sent.map_or_else(Response::failed, |()| Response::done())
        }
    }
}

fn show(daemon: &Daemon, with_stats: bool) -> Response {
    let totals = daemon.totals();
    let fabric = FabricStatus {
        id: daemon.fabric_id(),
        vms: totals.members,
        pairs: totals.pairs,
        extents: totals.extents,
        dmbs: totals.dmbs,
    };
    let vms = daemon.vms().into_iter().map(|vm| status(vm, with_stats)).collect();
    Response { fabric: Some(fabric), vms: Some(vms), ..Response::done() }
}

fn status(vm: daemon::VmStatus, with_stats: bool) -> VmStatus {
    let socket = match vm.config.listen {
        Listen::Path(path) => path.display().to_string(),
        Listen::Fd(_) => String::new(),
    };
    let state = match (vm.connected, vm.ready) {
        (_, true) => State::Ready,
        (true, false) => State::Connected,
        (false, false) => State::Waiting,
    };
    let stats = vm.stats.filter(|_| with_stats).map(|stats| VmStats {
        dmbs: stats.wire.dmbs,
        dmb_bytes: stats.wire.dmb_bytes,
        charged_bytes: stats.charged_bytes,
        grants: stats.wire.grants,
        peers: stats.peers,
        signals_sent: stats.wire.signals_sent,
        signals_received: stats.wire.signals_received,
        moves: stats.wire.moves,
        move_bytes: stats.wire.move_bytes,
        errors: stats.wire.errors,
    });
    VmStatus {
        name: vm.config.name,
        gid: vm.config.gid.to_string(),
        groups: vm.config.groups,
        socket,
        state,
        window: vm.window,
        stats,
    }
}
