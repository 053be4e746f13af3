// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a client waits for its own process: a program with one thread may connect to itself, send, and
//! accept only then.
//!
//! Invariant: who may not be alone waits a little longer. Nothing is lost, whichever is right.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use rustix::net::{getpeername, getsockname};

use crate::minder;
use crate::table::{self, File};

/// Listeners that this process has marked, and which process that was.
static LISTENERS: Mutex<Vec<(u32, SocketAddr)>> = Mutex::new(Vec::new());

/// More listeners at a time than a program with one thread has.
const MANY: usize = 64;
/// More threads than this library has, and one; of so many none is asked for its name.
const FEW: usize = 4;
/// What the threads of this library are called; one of the program's of that name is taken for ours.
const OURS: [&str; 3] = ["smc-minder", "smc-report", "ism-client"];
const TASKS: &str = "/proc/self/task";
/// How often threads are asked for their names, and how long after one another.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

/// This process has marked a listener.
pub(crate) fn listens(local: SocketAddr) {
    let own = (std::process::id(), local);
    // A lock that another thread holds here may be one that a child of fork will never get.
    if let Ok(mut listeners) = LISTENERS.try_lock()
        && !listeners.contains(&own)
    {
        if listeners.len() >= MANY {
            // None is known to be closed, and the oldest is the likeliest.
            listeners.remove(0);
        }
        listeners.push(own);
    }
}

fn address(address: rustix::net::SocketAddrAny) -> Option<SocketAddr> {
    let address = SocketAddr::try_from(address).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Whether nobody but the calling thread can accept this client's connection, and it has not yet.
pub(crate) fn waits_for_itself(client: impl AsFd) -> bool {
    let own = getsockname(&client).ok().and_then(address);
    let peer = getpeername(&client).ok().flatten().and_then(address);
    let Some((own, peer)) = own.zip(peer).filter(|(own, peer)| own.ip() == peer.ip()) else {
        return false;
    };
    let process = std::process::id();
    let to_itself = LISTENERS.try_lock().is_ok_and(|listeners| {
        listeners.iter().any(|(by, at)| {
            let here = at.ip() == peer.ip() || at.ip().is_unspecified();
            *by == process && here && at.port() == peer.port()
        })
    });
    to_itself && !minder::forks() && has_one_thread() && !is_accepted(own)
}

/// A thread names itself, so one that has just been made has its maker's name for a while.
fn has_one_thread() -> bool {
    (0..LOOKS).any(|look| {
        if look > 0 {
            std::thread::sleep(PAUSE);
        }
        not_ours() == Some(1)
    })
}

/// Threads that are the program's; `None`: several.
fn not_ours() -> Option<usize> {
    let tasks: Vec<_> = std::fs::read_dir(TASKS).ok()?.take(FEW + 1).flatten().collect();
    let is_ours = |task: &&std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| OURS.contains(&name.trim_end()))
    };
    let ours = tasks.iter().filter(is_ours).count();
    (tasks.len() <= FEW).then(|| tasks.len() - ours)
}

/// Whether the program has the other end of the connection that comes from this address.
fn is_accepted(client: SocketAddr) -> bool {
    let mut known = table::known(0, std::ffi::c_int::MAX).filter_map(table::get);
    known.any(|file| match &*file {
        File::Sock(sock) => sock.is_server() && sock.peer() == Some(client),
        File::Epoll(_) => false,
    })
}
