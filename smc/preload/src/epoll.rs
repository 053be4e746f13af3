// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An epoll instance in which there are connections of SMC, beside whatever else the kernel watches.
//!
//! Invariant: what the program sees follows `ep_send_events` of the kernel (fs/eventpoll.c): an entry on
//! the ready list is asked for its readiness when it is delivered; level-triggered ones go back on the
//! list, one-shot ones are disabled. The kernel's own entries stay the kernel's.
//!
//! Entries of ours are in the kernel's instance too: the bell, rung when the ready list gets its first
//! entry while somebody sleeps, the stack's descriptor, and the TCP connections below those of SMC, so that
//! who waits goes on with their handshakes and hears of their ends. What they are known by is kept different
//! from what the program gave its own.

mod entries;
mod interest;
mod wait;

use std::ffi::c_int;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::bell::Bell;
use crate::process::{self, Process};
use crate::settings::SETTINGS;
use crate::sock::{Sock, Stage, Watcher, lock};
use crate::table::{self, File};
use crate::{descriptor, instances};
use entries::Entries;
use interest::Interest;
pub(crate) use interest::bits;
use smc_socket::spin::Spin;

/// One instance.
#[derive(Debug)]
pub(crate) struct Instance {
    shared: Arc<Shared>,
    spin: Spin,
}

/// What an instance shares with its entries.
#[derive(Debug)]
struct Shared {
    /// A descriptor of it.
    number: AtomicI32,
    bell: Bell,
    /// Its stack's descriptor is in the kernel's instance.
    has_stack: AtomicBool,
    /// Another one after the daemon's return. Changed with `inner`'s lock held.
    process: ArcSwap<Process>,
    /// Whose stack knows of sleepers whom this library does not see.
    unseen: Mutex<Option<Arc<Process>>>,
    /// A handshake has ended, whose other end may be another entry.
    nudged: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: Entries,
    /// Those that may be ready, in the order in which they became so.
    ready: std::collections::VecDeque<Arc<Interest>>,
    /// Those whose handshakes go on.
    unsettled: Vec<Arc<Interest>>,
    /// The upper half of our entries' data in the kernel's instance.
    marker: u64,
}

/// The first marker: no address, no descriptor.
const MARKER: u64 = 0x5ac0_51de_0000_0000;
/// So many markers there are.
const MARKERS: u64 = 1 << 8;
/// How long another thread may take to make an instance known.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is not the marker's.
const LOW: u64 = 0xffff_ffff;
/// The lower half of the bell's data, the stack's, and, with the program's descriptor in it, a TCP connection's: in a
/// child of fork a program may take it for a descriptor, and there is none of such a number.
const BELL: u64 = 0xf00d_0000;
const STACK: u64 = 0xf00d_0001;
const TCP: u64 = 0x4000_0000;

/// Whether an event is of an entry of this library's, whichever instance or process of its kin it is of.
pub(crate) fn is_own(data: u64) -> bool {
    let (marker, low) = (data & !LOW, data & LOW);
    let is_marker = (MARKER..MARKER + MARKERS * (LOW + 1)).contains(&marker);
    is_marker && (matches!(low, BELL | STACK) || low & !0xfff_ffff == TCP)
}

impl Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        descriptor::borrow(self.number.load(Ordering::Relaxed))
    }

    /// What this library's own entries are known by.
    fn marker(&self) -> u64 {
        lock(&self.inner).marker
    }

    /// A handshake has ended. Where the other end may be in this process too, that is looked at without being told.
    fn nudge(&self) {
        if process::listens() {
            self.nudged.store(true, Ordering::Release);
        }
    }

    fn is_nudged(&self) -> bool {
        self.nudged.swap(false, Ordering::AcqRel)
    }

    /// Puts an entry on the ready list.
    fn enqueue(&self, interest: &Arc<Interest>) {
        {
            let mut inner = lock(&self.inner);
            if !interest.begin_listed() {
                return;
            }
            inner.ready.push_back(Arc::clone(interest));
        }
        self.bell.ring();
    }

    /// What TCP says of the connection that the program has added as `fd`.
    fn tcp_says(&self, fd: c_int, events: u32) {
        // It may be another one by now, and then this tells it nothing.
        let interest = lock(&self.inner).entries.at(fd);
        if let Some(interest) = interest {
            interest.tcp_says(events);
        }
    }

    fn forget(&self, interest: &Interest) {
        let mut inner = lock(&self.inner);
        inner.entries.remove(interest);
        inner.ready.retain(|it| !std::ptr::eq(&**it, interest));
    }

    /// The program closes the number of an entry: another connection may get that.
    fn orphan(&self, interest: &Interest) {
        lock(&self.inner).entries.orphan(interest);
    }
}

impl Instance {
    /// The instance at the descriptor `fd`.
    fn new(fd: c_int, process: Arc<Process>) -> io::Result<Self> {
        let inner = Inner {
            entries: Entries::default(),
            ready: std::collections::VecDeque::new(),
            unsettled: Vec::new(),
            marker: MARKER,
        };
        let shared = Shared {
            number: AtomicI32::new(fd),
            bell: Bell::new()?,
            has_stack: AtomicBool::new(false),
            process: ArcSwap::new(process),
            unseen: Mutex::new(None),
            nudged: AtomicBool::new(false),
            inner: Mutex::new(inner),
        };
        let instance = Self { shared: Arc::new(shared), spin: Spin::new(SETTINGS.spin) };
        instance.add_own()?;
        Ok(instance)
    }

    /// Adds this library's entries to the kernel's instance.
    fn add_own(&self) -> io::Result<()> {
        let shared = &self.shared;
        let marker = shared.marker();
        let bell = EventData::new_u64(marker | BELL);
        epoll::add(shared.as_fd(), &shared.bell, bell, EventFlags::IN)?;
        self.add_stack(&shared.process.load(), marker)
    }

    fn add_stack(&self, process: &Process, marker: u64) -> io::Result<()> {
        if let Some(stack) = &process.stack {
            let data = EventData::new_u64(marker | STACK);
            epoll::add(self.shared.as_fd(), stack.wake_fd(), data, EventFlags::IN)?;
            self.shared.has_stack.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sees to it that the stack is that of connections that come now: after the daemon's return it is another.
    ///
    /// # Errors
    /// The kernel has no room for it; everything is as before.
    fn renew(&self) -> io::Result<()> {
        let shared = &self.shared;
        let Some(now) = process::other_than(&shared.process.load()) else { return Ok(()) };
        {
            let inner = lock(&shared.inner);
            let old = shared.process.load_full();
            if Arc::ptr_eq(&old, &now) {
                return Ok(());
            }
            self.add_stack(&now, inner.marker)?;
            if let Some(stack) = &old.stack {
                // It may be out already.
                let _ = epoll::delete(shared.as_fd(), stack.wake_fd());
            }
            shared.process.store(now);
        }
        self.tell_unseen();
        // Who sleeps has not asked the new one to ring.
        shared.bell.ring();
        Ok(())
    }

    /// Sees to it that what the program's entries are known by is nothing of ours.
    pub(crate) fn avoid(&self, data: u64) {
        let shared = &self.shared;
        let mut inner = lock(&shared.inner);
        if data & !LOW != inner.marker {
            return;
        }
        inner.marker = MARKER + (inner.marker - MARKER + LOW + 1) % (MARKERS * (LOW + 1));
        inner.entries.numbered().for_each(|interest| interest.rename(shared, inner.marker));
        // Both are there.
        let bell = EventData::new_u64(inner.marker | BELL);
        let _ = epoll::modify(shared.as_fd(), &shared.bell, bell, EventFlags::IN);
        if let Some(stack) = &shared.process.load().stack {
            let data = EventData::new_u64(inner.marker | STACK);
            let _ = epoll::modify(shared.as_fd(), stack.wake_fd(), data, EventFlags::IN);
        }
    }

    /// If the stack's device is gone: its descriptor would be readable for ever.
    fn drop_stack(&self) {
        let shared = &self.shared;
        let is_gone = |it: &Process| it.stack.as_ref().is_some_and(smc_socket::Stack::is_gone);
        if !is_gone(&shared.process.load()) || !shared.has_stack.load(Ordering::Relaxed) {
            return;
        }
        let _inner = lock(&shared.inner);
        let process = shared.process.load();
        if let Some(stack) = process.stack.as_ref().filter(|_| is_gone(&process)) {
            shared.has_stack.store(false, Ordering::Relaxed);
            let _ = epoll::delete(shared.as_fd(), stack.wake_fd());
        }
    }

    /// Somebody sleeps on this instance's descriptor whom this library does not see.
    pub(crate) fn is_nested(&self) {
        if self.shared.bell.set_always() {
            self.tell_unseen();
        }
    }

    /// Tells the stack whether there is such a sleeper, and the one before that there is none of its.
    fn tell_unseen(&self) {
        let shared = &self.shared;
        let (before, now) = {
            let mut unseen = lock(&shared.unseen);
            let now = shared.bell.is_always().then(|| shared.process.load_full());
            (std::mem::replace(&mut *unseen, now.clone()), now)
        };
        if before.as_ref().map(Arc::as_ptr) == now.as_ref().map(Arc::as_ptr) {
            return;
        }
        // Without the lock: the stack tells its connections' watchers what it finds.
        if let Some(stack) = now.as_ref().and_then(|it| it.stack.as_ref()) {
            stack.never_silence();
        }
        if let Some(stack) = before.as_ref().and_then(|it| it.stack.as_ref()) {
            stack.may_silence();
        }
    }

    /// Whether a number is one of this instance, too: the bell is there.
    fn is_at(&self, fd: c_int) -> bool {
        let bell = EventData::new_u64(self.shared.marker() | BELL);
        epoll::modify(descriptor::borrow(fd), &self.shared.bell, bell, EventFlags::IN).is_ok()
    }

    /// It has just become known by these numbers: whoever waits for it in the kernel is to know it, too.
    fn is_known_by(&self, numbers: &[c_int]) {
        if numbers.iter().any(|fd| instances::has_sleepers(*fd)) {
            // Each one that is woken by what stays ready wakes the next, and then waits in here.
            self.shared.bell.hold();
            // The last of them may just have gone.
            self.has_slept();
        }
        if numbers.iter().any(|fd| instances::is_nested(*fd)) {
            self.is_nested();
        }
    }

    /// A thread that slept in the kernel was woken by this entry of the library's.
    pub(crate) fn kernel_says(&self, bits: u32, data: u64) {
        let low = data & LOW;
        if data & !LOW == self.shared.marker()
            && !matches!(low, BELL | STACK)
            && let Ok(fd) = c_int::try_from(low ^ TCP)
        {
            self.shared.tcp_says(fd, bits);
        }
    }

    /// A thread that slept in the kernel before the instance was known does so no more.
    pub(crate) fn has_slept(&self) {
        let is_this = |fd: &c_int| match table::get(*fd).as_deref() {
            Some(File::Epoll(other)) => Arc::ptr_eq(&other.shared, &self.shared),
            _ => false,
        };
        if self.shared.bell.is_held()
            && !table::known(0, c_int::MAX).any(|fd| instances::has_sleepers(fd) && is_this(&fd))
        {
            self.shared.bell.let_go();
        }
    }

    /// The program has closed the instance.
    pub(crate) fn close(&self) {
        let entries = {
            let mut inner = lock(&self.shared.inner);
            inner.ready.clear();
            inner.unsettled.clear();
            inner.entries.drain()
        };
        for interest in entries {
            interest.leave();
        }
        if self.shared.bell.end_always() {
            self.tell_unseen();
        }
    }

    /// `EPOLL_CTL_ADD` of a connection.
    ///
    /// # Errors
    /// EEXIST; the kernel has no room for what is needed.
    pub(crate) fn add(
        &self,
        fd: c_int,
        file: &Arc<File>,
        events: u32,
        data: u64,
    ) -> io::Result<()> {
        self.renew()?;
        let interest = Interest::new(fd, file, events, data, Arc::downgrade(&self.shared));
        {
            let mut inner = lock(&self.shared.inner);
            if inner.entries.find(fd, file).is_some() {
                return Err(Errno::EXIST.into());
            }
            inner.entries.insert(&interest);
        }
        interest.hear_tcp(&self.shared);
        interest.join();
        if interest.go_on(false) {
            if !interest.is_server() {
                self.shared.nudge();
            }
            self.shared.enqueue(&interest);
        } else {
            lock(&self.shared.inner).unsettled.push(interest);
        }
        Ok(())
    }

    /// `EPOLL_CTL_MOD` of a connection; false: it is not here, or the kernel's by now.
    fn modify(&self, fd: c_int, file: &Arc<File>, events: u32, data: u64) -> bool {
        let interest = lock(&self.shared.inner).entries.find(fd, file);
        let interest = interest.filter(|it| it.set(events, data));
        interest.inspect(|it| self.shared.enqueue(it)).is_some()
    }

    /// `EPOLL_CTL_DEL` of a connection; false as [`Instance::modify`].
    fn delete(&self, fd: c_int, file: &Arc<File>) -> bool {
        let interest = lock(&self.shared.inner).entries.find(fd, file);
        let interest = interest.filter(|it| it.leave());
        interest.inspect(|it| self.shared.forget(it)).is_some()
    }
}

/// `epoll_ctl(2)`; `None`: the kernel's.
pub(crate) fn control(
    epoll: c_int,
    command: c_int,
    fd: c_int,
    event: Option<(u32, u64)>,
) -> Option<io::Result<()>> {
    if !table::is_known(epoll) && !table::is_known(fd) {
        return None;
    }
    let target = table::get(fd);
    let instance = table::get(epoll);
    let (events, data) = event.unwrap_or_default();
    if let Some(File::Epoll(instance)) = instance.as_deref() {
        instance.avoid(data);
    }
    let file = target?;
    let sock = match &*file {
        File::Sock(sock) => sock,
        File::Epoll(inner) => {
            if command == libc::EPOLL_CTL_ADD {
                inner.is_nested();
            }
            return None;
        }
    };
    sock.go_on(&file);
    let is_done = match (instance.as_deref(), command) {
        (Some(File::Epoll(instance)), libc::EPOLL_CTL_MOD) => {
            instance.modify(fd, &file, events, data)
        }
        (Some(File::Epoll(instance)), libc::EPOLL_CTL_DEL) => instance.delete(fd, &file),
        _ => false,
    };
    if is_done {
        return Some(Ok(()));
    }
    // Another thread may have just made it plain TCP: the entry is here until the kernel has it.
    if sock.stage() == Stage::Tcp {
        return None;
    }
    match (instance.as_deref(), command) {
        (Some(File::Sock(_)), _) => None,
        (Some(File::Epoll(instance)), libc::EPOLL_CTL_ADD) => {
            Some(instance.add(fd, &file, events, data))
        }
        (Some(File::Epoll(_)), libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL) => {
            Some(Err(Errno::NOENT.into()))
        }
        (Some(File::Epoll(_)), _) => Some(Err(Errno::INVAL.into())),
        (None, libc::EPOLL_CTL_ADD) => {
            let process = process::existing()?;
            Some(known(epoll, process).and_then(|instance| match &*instance {
                File::Epoll(instance) => instance.add(fd, &file, events, data),
                File::Sock(_) => Err(Errno::INVAL.into()),
            }))
        }
        (None, _) => Some(Err(Errno::NOENT.into())),
    }
}

/// Makes an instance known, by all its numbers.
fn known(epoll: c_int, process: Arc<Process>) -> io::Result<Arc<File>> {
    let file = match Instance::new(epoll, process) {
        Ok(instance) => Arc::new(File::Epoll(instance)),
        // Another thread is about to do the same.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end {
                if let Some(file) = table::get(epoll) {
                    return Ok(file);
                }
                std::thread::yield_now();
            }
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    if let File::Epoll(instance) = &*file {
        // First, so that who copies it meanwhile sees the one or this call the other.
        table::set(epoll, Some(Arc::clone(&file)));
        let mut numbers = vec![epoll];
        for copy in instances::copies(epoll).filter(|copy| instance.is_at(*copy)) {
            table::set(copy, Some(Arc::clone(&file)));
            numbers.push(copy);
        }
        instance.is_known_by(&numbers);
    }
    Ok(file)
}

impl Instance {
    /// Another descriptor of this instance is the one to use now.
    pub(crate) fn set_number(&self, fd: c_int) {
        self.shared.number.store(fd, Ordering::Relaxed);
    }

    /// The descriptor in use.
    pub(crate) fn number(&self) -> c_int {
        self.shared.number.load(Ordering::Relaxed)
    }
}
