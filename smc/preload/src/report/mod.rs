// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tells `smcss` and `smcd` about this process, who asks.
//!
//! Invariant: a thread of its own, which holds no lock while it writes and gives up on who does not read;
//! nothing is read from who asks. Without a question it sleeps.
//!
//! It listens on an abstract socket (`smc_snapshot::address`). Only the process's own user and root are
//! answered.

mod client;
mod tell;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ism_client::own::Own;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::time::{ClockId, clock_gettime};
use smc_socket::few;

use crate::descriptor::{borrow, close_own};
use crate::{process, signals};

/// The thread was started, or could not be.
static BEGUN: AtomicBool = AtomicBool::new(false);
/// The listening socket, for a child of fork to close; -1: none.
static LISTENER: AtomicI32 = AtomicI32::new(-1);
static INODE: AtomicU64 = AtomicU64::new(0);

/// Askers that wait while one is told.
const BACKLOG: i32 = 16;
/// How long accepting rests after it failed for want of descriptors or memory.
const REST: Duration = Duration::from_secs(1);

/// From now on this process answers.
#[inline]
pub(crate) fn begin() {
    if !BEGUN.load(Ordering::Relaxed) {
        start();
    }
}

#[cold]
fn start() {
    // A process that has shut itself in may not, and a thread outside its filter is not what it wants.
    if process::is_borrowed() || few::is_confined() || BEGUN.swap(true, Ordering::AcqRel) {
        return;
    }
    // Without descriptors or threads it is not seen, and works nevertheless.
    let Ok((listener, inode)) = open() else { return };
    let thread = thread::Builder::new().name("smc-report".into()).stack_size(256 << 10);
    let number = std::os::fd::AsRawFd::as_raw_fd(&listener);
    // Dropped with the closure if there is no thread.
    let started = signals::blocked(|| thread.spawn(move || answer(listener, inode)));
    if started.is_ok() {
        INODE.store(inode, Ordering::Relaxed);
        LISTENER.store(number, Ordering::Release);
    }
}

fn open() -> Result<(Own, u64), Errno> {
    let now = clock_gettime(ClockId::Monotonic);
    let distinct = now.tv_sec.cast_unsigned() << 30 | now.tv_nsec.cast_unsigned();
    let name = smc_snapshot::address(std::process::id(), distinct);
    let listener =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let listener = Own::new(listener);
    bind(&listener, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    listen(&listener, BACKLOG)?;
    let inode = rustix::fs::fstat(&listener)?.st_ino;
    Ok((listener, inode))
}

/// Whether a number is still our socket: the program may have closed it by a system call of its own.
fn is_ours(fd: impl AsFd, inode: u64) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == inode)
}

fn answer(listener: Own, inode: u64) {
    while is_ours(&listener, inode) {
        match accept_with(&listener, SocketFlags::CLOEXEC) {
            Ok(client) => client::serve(&Own::new(client)),
            Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => {}
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => thread::sleep(REST),
            Err(_) => break,
        }
    }
    // If the number is not ours any more, it is not ours to be closed.
    if !is_ours(&listener, inode) {
        std::mem::forget(OwnedFd::from(listener));
    }
    LISTENER.store(-1, Ordering::Release);
}

/// In a child of fork: the parent's socket must not live on in it, where nobody answers.
pub(crate) fn after_fork() {
    let number = LISTENER.swap(-1, Ordering::AcqRel);
    if number >= 0 && is_ours(borrow(number), INODE.load(Ordering::Relaxed)) {
        close_own(number);
    }
    BEGUN.store(false, Ordering::Release);
}
