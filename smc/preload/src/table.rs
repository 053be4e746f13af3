// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What this library knows about the program's descriptors.
//!
//! Invariant: a descriptor that nothing is known about costs one load; looking one up takes no lock, so
//! it is allowed in a signal handler and in a child of fork.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use arc_swap::ArcSwapOption;

use crate::epoll::Instance;
use crate::process;
use crate::sock::Sock;

/// What a descriptor is.
#[derive(Debug)]
pub(crate) enum File {
    /// A TCP connection that is, or may become, one of SMC.
    Sock(Sock),
    /// An epoll instance in which there are such connections.
    Epoll(Instance),
}

/// Descriptors above are left to TCP: the kernel's default limit of a process.
pub(crate) const LIMIT: usize = 1 << 20;

/// Which descriptors are in [`FILES`]; both take memory only where they are used.
static KNOWN: [AtomicU8; LIMIT] = [const { AtomicU8::new(0) }; LIMIT];
static FILES: [ArcSwapOption<File>; LIMIT] = [const { ArcSwapOption::const_empty() }; LIMIT];

/// Which descriptors were made as TCP sockets, as far as this library has seen. Not that they are: something else may
/// have closed them.
static TCP: [AtomicU8; LIMIT] = [const { AtomicU8::new(0) }; LIMIT];

/// No descriptor above was ever known.
static HIGHEST: AtomicI32 = AtomicI32::new(-1);

/// The place of a number in a table.
#[inline]
pub(crate) fn at<T>(table: &'static [T], fd: c_int) -> Option<&'static T> {
    table.get(usize::try_from(fd).ok()?)
}

/// Whether something is known about a descriptor.
#[inline]
pub(crate) fn is_known(fd: c_int) -> bool {
    at(&KNOWN, fd).is_some_and(|known| known.load(Ordering::Relaxed) != 0)
}

/// Whether a descriptor was made as a TCP socket. What is asked of it may fail nevertheless.
pub(crate) fn may_be_tcp(fd: c_int) -> bool {
    at(&TCP, fd).is_some_and(|tcp| tcp.load(Ordering::Relaxed) != 0)
}

/// A descriptor is new, as a TCP socket or as something else. One of a child of vfork is not this table's.
pub(crate) fn is_new(fd: c_int, is_tcp: bool) {
    if let Some(tcp) = at(&TCP, fd) {
        // Most are not, and then no memory is taken.
        let is = u8::from(is_tcp);
        if tcp.load(Ordering::Relaxed) != is && !process::is_borrowed() {
            tcp.store(is, Ordering::Relaxed);
        }
    }
}

/// What is known about a descriptor.
#[inline]
pub(crate) fn get(fd: c_int) -> Option<Arc<File>> {
    if is_known(fd) { at(&FILES, fd)?.load_full() } else { None }
}

/// Runs `act` with the connection that a descriptor is.
#[inline]
pub(crate) fn with_sock<R>(fd: c_int, act: impl FnOnce(&Arc<File>, &Sock) -> R) -> Option<R> {
    if !is_known(fd) {
        return None;
    }
    let file = at(&FILES, fd)?.load();
    let file = file.as_ref()?;
    match &**file {
        File::Sock(sock) => Some(act(file, sock)),
        File::Epoll(_) => None,
    }
}

/// Sets what a descriptor is; what it was.
pub(crate) fn set(fd: c_int, file: Option<Arc<File>>) -> Option<Arc<File>> {
    let (known, slot) = (at(&KNOWN, fd)?, at(&FILES, fd)?);
    if file.is_none() && known.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let is = u8::from(file.is_some());
    HIGHEST.fetch_max(fd, Ordering::Relaxed);
    // Who sees the mark early finds nothing, and who sees it late asks the kernel, both as before.
    known.store(is, Ordering::Relaxed);
    slot.swap(file)
}

/// All known descriptors from `first` to `last`.
pub(crate) fn known(first: c_int, last: c_int) -> impl Iterator<Item = c_int> {
    let last = last.min(HIGHEST.load(Ordering::Relaxed));
    (first.max(0)..=last).filter(|fd| is_known(*fd))
}
