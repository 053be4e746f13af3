// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors that come, go and are copied.
//!
//! Invariant: the table is changed before a number can be used for something else, and only by the
//! process that it belongs to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smc_socket::{Birth, Heir};

use crate::minder;
use crate::settings::SETTINGS;
use crate::sock::Stage;
use crate::table::{self, File};
use crate::{fallen, instances, process, report};

/// Whether this is a child of vfork. It is about to execute a program, and what it does with its descriptors is for
/// that: what the parent has accepted may be the program's.
fn is_borrowed() -> bool {
    let borrowed = process::is_borrowed();
    if borrowed && process::listens() {
        minder::has_forked();
    }
    borrowed
}

/// `fd` is about to be closed, or to become something else.
pub(crate) fn closing(fd: c_int) {
    if table::is_known(fd) && !is_borrowed() {
        let Some(file) = table::set(fd, None) else { return };
        match &*file {
            File::Sock(sock) => sock.remove_number(&file, fd),
            File::Epoll(instance) if instance.number() == fd => close_epoll(fd, instance),
            File::Epoll(_) => {}
        }
    }
}

/// The instance lives on if it has another descriptor.
fn close_epoll(fd: c_int, instance: &crate::epoll::Instance) {
    let is_same = |file: &Arc<File>| match &**file {
        File::Epoll(other) => std::ptr::eq(other, instance),
        File::Sock(_) => false,
    };
    let other = table::known(0, c_int::MAX)
        .find(|other| *other != fd && table::get(*other).is_some_and(|file| is_same(&file)));
    match other {
        Some(other) => instance.set_number(other),
        None => instance.close(),
    }
}

/// All from `first` to `last` are about to be closed.
pub(crate) fn closing_range(first: c_int, last: c_int) {
    table::known(first, last).for_each(closing);
}

/// `copy` is a new descriptor of what `fd` is.
pub(crate) fn copied(fd: c_int, copy: c_int) {
    if fd == copy || is_borrowed() {
        return;
    }
    if let Some(file) = table::get(fd) {
        if let File::Sock(sock) = &*file {
            sock.add_number(copy);
        }
        table::set(copy, Some(file));
    }
}

/// `fd` is new: what was known about the number is old, closed without this library.
pub(crate) fn opened(fd: c_int) {
    if table::is_known(fd) {
        closing(fd);
    }
}

/// O_NONBLOCK of `fd` was changed.
pub(crate) fn set_nonblocking(fd: c_int, on: bool) {
    table::with_sock(fd, |_, sock| sock.set_nonblocking(on));
}

/// What a child that is about to be forked is going to have.
#[derive(Debug)]
struct Heritage {
    birth: Birth,
    /// By where their files are.
    heirs: HashMap<*const File, Heir>,
}

thread_local! {
    static HERITAGE: RefCell<Option<Heritage>> = const { RefCell::new(None) };
}

/// How long handshakes may take altogether to end before a fork.
const PATIENCE: Duration = Duration::from_millis(250);

/// Before a fork, in the thread that forks.
pub(crate) fn before_fork() {
    if process::is_borrowed() {
        return;
    }
    let end = Instant::now() + PATIENCE;
    for file in table::known(0, c_int::MAX).filter_map(table::get) {
        if let File::Sock(sock) = &*file {
            sock.before_fork(&file, end.saturating_duration_since(Instant::now()));
        }
    }
    // From here on no other thread forks.
    let mut heritage = Heritage { birth: Birth::begin(), heirs: HashMap::new() };
    for file in table::known(0, c_int::MAX).filter_map(table::get) {
        let place = Arc::as_ptr(&file);
        if let File::Sock(sock) = &*file
            && !heritage.heirs.contains_key(&place)
        {
            let heir = sock.smc().and_then(|engine| heritage.birth.share(engine));
            heritage.heirs.extend(heir.map(|heir| (place, heir)));
        }
    }
    let heritage = Some(heritage);
    // A thread that ends may have none; its child has nothing then.
    let _ = HERITAGE.try_with(|place| place.try_borrow_mut().map(|mut place| *place = heritage));
}

fn take_heritage() -> Option<Heritage> {
    HERITAGE.try_with(|place| place.try_borrow_mut().ok()?.take()).ok().flatten()
}

/// After a fork, in the parent.
pub(crate) fn in_parent() {
    if process::listens() {
        minder::has_forked();
    }
    if take_heritage().is_some_and(|heritage| !heritage.heirs.is_empty()) {
        process::wake_minder();
    }
}

/// In a child of fork: it has its own view of what the parent had. The parent's is never given back.
pub(crate) fn after_fork() {
    let heritage = take_heritage();
    let (birth, mut heirs) = heritage.map(|it| (it.birth, it.heirs)).unwrap_or_default();
    let inheritance = birth.in_child();
    let stack = if heirs.is_empty() { None } else { inheritance.stack().ok() };
    if stack.is_none() {
        heirs.clear();
    }
    process::after_fork(stack);
    report::after_fork();
    fallen::after_fork();
    instances::after_fork();
    let mut groups: HashMap<*const File, (Arc<File>, Vec<c_int>)> = HashMap::new();
    for fd in table::known(0, c_int::MAX) {
        if let Some(file) = table::get(fd) {
            groups.entry(Arc::as_ptr(&file)).or_insert_with(|| (file, Vec::new())).1.push(fd);
        }
    }
    for (place, (file, fds)) in groups {
        let inherited = |tcp| inheritance.socket(heirs.remove(&place)?, tcp);
        let own = match &*file {
            File::Sock(sock) => fds.first().map(|fd| sock.after_fork(*fd, fds.clone(), inherited)),
            // What the kernel has of the instance is all that the child has.
            File::Epoll(_) => None,
        };
        let own = own.filter(|sock| sock.stage() != Stage::Tcp);
        if let Some(lost) = own.as_ref().filter(|sock| sock.stage() == Stage::Broken) {
            SETTINGS.say(format_args!("socket {}: is the parent's", lost.number()));
        }
        let own = own.map(|sock| Arc::new(File::Sock(sock)));
        for fd in fds {
            std::mem::forget(table::set(fd, own.clone()));
        }
        std::mem::forget(file);
    }
}
