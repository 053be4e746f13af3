// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One connection in an epoll instance.
//!
//! Invariant: when its connection turns out to be plain TCP, the kernel's instance gets it as the program
//! gave it.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::event::PollFlags;
use rustix::event::epoll::{self, EventData, EventFlags};
use smc_socket::Ready;

use super::{File, Shared, Sock, Stage, TCP, Watcher, lock};
use crate::{descriptor, process};

/// What epoll reports unasked.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP).cast_unsigned();
/// Bits of an entry that are no events.
const PRIVATE: u32 =
    (libc::EPOLLET | libc::EPOLLONESHOT | libc::EPOLLWAKEUP | libc::EPOLLEXCLUSIVE).cast_unsigned();

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Place {
    /// Nothing has happened.
    Aside,
    /// On the ready list.
    Listed,
    /// Being delivered.
    Taken,
    /// Being delivered, and something has happened meanwhile.
    TakenAgain,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Interest {
    pub(super) fd: c_int,
    file: Arc<File>,
    /// Events and data, as the program gave them; without events but the private bits it is disabled. With its lock held
    /// the entry leaves, and the kernel's instance gets, changes or loses what it has of it: whatever other threads do
    /// with the entry meanwhile comes before that or after it.
    wanted: Mutex<(u32, u64)>,
    /// Where it is. Changed with the instance's lock held.
    place: AtomicU8,
    /// The program has removed it, or the connection was closed.
    left: AtomicBool,
    /// The kernel's instance has its TCP connection, as ours.
    hears: AtomicBool,
    instance: Weak<Shared>,
    this: Weak<Self>,
}

/// What a TCP connection is known by.
fn tcp_data(fd: c_int) -> u64 {
    TCP | u64::from(fd.unsigned_abs())
}

/// What of TCP there is to be heard. What is there already is said once.
fn tcp_events(stage: Stage) -> EventFlags {
    let events = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    let is_written = matches!(stage, Stage::Connecting | Stage::Late);
    if is_written { events | EventFlags::OUT } else { events }
}

/// Readiness as epoll's bits.
pub(crate) fn bits(ready: Ready) -> u32 {
    let table = [
        (Ready::READABLE, libc::EPOLLIN | libc::EPOLLRDNORM),
        (Ready::WRITABLE, libc::EPOLLOUT | libc::EPOLLWRNORM),
        (Ready::URGENT, libc::EPOLLPRI),
        (Ready::ERROR, libc::EPOLLERR),
        (Ready::HANG_UP, libc::EPOLLHUP),
        (Ready::READ_CLOSED, libc::EPOLLRDHUP),
    ];
    let has = table.into_iter().filter(|(it, _)| ready.contains(*it));
    has.fold(0, |all, (_, bit)| all | bit.cast_unsigned())
}

impl Interest {
    pub(super) fn new(
        fd: c_int,
        file: &Arc<File>,
        events: u32,
        data: u64,
        instance: Weak<Shared>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            fd,
            file: Arc::clone(file),
            wanted: Mutex::new((events, data)),
            place: AtomicU8::new(Place::Aside as u8),
            left: AtomicBool::new(false),
            hears: AtomicBool::new(false),
            instance,
            this: this.clone(),
        })
    }

    fn sock(&self) -> Option<&Sock> {
        match &*self.file {
            File::Sock(sock) => Some(sock),
            File::Epoll(_) => None,
        }
    }

    /// The connection tells of its events from now on.
    pub(super) fn join(&self) {
        if let (Some(sock), Some(this)) = (self.sock(), self.this.upgrade()) {
            sock.add_watcher(&self.file, this);
            // It may have become TCP before it knew of this entry.
            if sock.stage() == Stage::Tcp {
                self.settled(Stage::Tcp);
            }
        }
    }

    /// Has the kernel's instance tell of its TCP connection: who waits for the program goes on with the handshake.
    pub(super) fn hear_tcp(&self, shared: &Shared) {
        let Some(sock) = self.sock() else { return };
        let stage = sock.stage();
        let data = EventData::new_u64(shared.marker() | tcp_data(self.fd));
        // Of one whose handshake is over the minder hears, once and for all: programs take connections out and put them
        // in again for each message (redis-benchmark). So it does without room in the kernel.
        if !matches!(stage, Stage::Tcp | Stage::Smc)
            && epoll::add(shared.as_fd(), descriptor::borrow(self.fd), data, tcp_events(stage))
                .is_ok()
        {
            self.hears.store(true, Ordering::Release);
        }
    }

    /// The kernel's instance knows its TCP connection by another marker from now on.
    pub(super) fn rename(&self, shared: &Shared, marker: u64) {
        let _wanted = lock(&self.wanted);
        if let (true, Some(sock)) = (self.hears_tcp(), self.sock()) {
            let data = EventData::new_u64(marker | tcp_data(self.fd));
            let (fd, events) = (descriptor::borrow(self.fd), tcp_events(sock.stage()));
            let _ = epoll::modify(shared.as_fd(), fd, data, events);
        }
    }

    /// The kernel's instance tells of its TCP connection no more, as the descriptor will not be its. The caller holds
    /// `wanted`'s lock.
    fn deafen(&self) {
        if self.hears.swap(false, Ordering::AcqRel)
            && let Some(shared) = self.instance.upgrade()
        {
            // A closed instance has nothing.
            let _ = epoll::delete(shared.as_fd(), descriptor::borrow(self.fd));
        }
    }

    /// TCP says this.
    pub(super) fn tcp_says(&self, events: u32) {
        let Some(sock) = self.sock() else { return };
        let bits = u16::try_from(events & 0xffff).unwrap_or(0);
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        sock.tcp_says(&self.file, PollFlags::from_bits_retain(bits) & ends);
        if sock.late_in_part() {
            // TCP says nothing more of it.
            process::mind(&self.file, true);
        }
    }

    /// Whether the program has accepted it.
    pub(super) fn is_server(&self) -> bool {
        self.sock().is_some_and(Sock::is_server)
    }

    /// Goes on with the handshake, even if TCP will tell when there is something to do (`now`); true: there is none any
    /// more.
    pub(super) fn go_on(&self, now: bool) -> bool {
        let Some(sock) = self.sock() else { return true };
        if self.hears_tcp() && !now {
            sock.go_on_unheard(&self.file);
        } else {
            sock.go_on(&self.file);
        }
        sock.stage() >= Stage::Late || self.left.load(Ordering::Acquire)
    }

    /// It does not any more; false: it had left before, maybe because it is the kernel's.
    pub(super) fn leave(&self) -> bool {
        let was_here = {
            let _wanted = lock(&self.wanted);
            self.deafen();
            !self.left.swap(true, Ordering::AcqRel)
        };
        if let (Some(sock), Some(this)) = (self.sock(), self.this.upgrade()) {
            let this: Arc<dyn Watcher> = this;
            sock.remove_watcher(&this);
        }
        was_here
    }

    /// The program wants this from now on; false: the entry has left.
    pub(super) fn set(&self, events: u32, data: u64) -> bool {
        let mut wanted = lock(&self.wanted);
        *wanted = (events, data);
        !self.left.load(Ordering::Acquire)
    }

    fn place(&self) -> Place {
        match self.place.load(Ordering::Relaxed) {
            0 => Place::Aside,
            1 => Place::Listed,
            2 => Place::Taken,
            _ => Place::TakenAgain,
        }
    }

    fn put(&self, place: Place) {
        self.place.store(place as u8, Ordering::Relaxed);
    }

    /// Something has happened; true: the caller puts it on the ready list.
    pub(super) fn begin_listed(&self) -> bool {
        match self.place() {
            _ if self.left.load(Ordering::Acquire) => false,
            Place::Aside => {
                self.put(Place::Listed);
                true
            }
            Place::Taken => {
                self.put(Place::TakenAgain);
                false
            }
            Place::Listed | Place::TakenAgain => false,
        }
    }

    /// It is taken from the list to be delivered: nobody lists it until that is done, so that one wait
    /// delivers it once.
    pub(super) fn take(&self) {
        self.put(Place::Taken);
    }

    /// It was delivered, `again` if it stays ready. Whether the caller puts it on the ready list, and
    /// whether something has happened meanwhile.
    pub(super) fn delivered(&self, again: bool) -> (bool, bool) {
        let meanwhile = self.place() == Place::TakenAgain;
        self.put(Place::Aside);
        let listed = (again || meanwhile) && self.begin_listed();
        (listed, listed && meanwhile)
    }

    /// What is delivered now, and whether it goes back on the list.
    pub(super) fn deliver(&self) -> Option<(u32, u64, bool)> {
        let sock = self.sock()?;
        // It may be the kernel's by now.
        sock.go_on(&self.file);
        let ready = bits(sock.readiness());
        let mut wanted = lock(&self.wanted);
        let (events, data) = *wanted;
        let found = ready & (events | ALWAYS);
        if events & !PRIVATE == 0 || found == 0 || self.left.load(Ordering::Acquire) {
            return None;
        }
        if events & libc::EPOLLONESHOT.cast_unsigned() != 0 {
            wanted.0 &= PRIVATE;
            return Some((found, data, false));
        }
        Some((found, data, events & libc::EPOLLET.cast_unsigned() == 0))
    }
}

impl Watcher for Interest {
    fn settled(&self, stage: Stage) {
        let Some(shared) = self.instance.upgrade() else { return };
        if !self.is_server() {
            shared.nudge();
        }
        if stage != Stage::Tcp {
            if stage == Stage::Late {
                // From now on it is TCP that can be written.
                self.rename(&shared, shared.marker());
            }
            if let Some(this) = self.this.upgrade() {
                shared.enqueue(&this);
            }
            return;
        }
        let wanted = lock(&self.wanted);
        if !self.left.swap(true, Ordering::AcqRel) {
            let (events, data) = *wanted;
            let flags = EventFlags::from_bits_retain(events);
            let fd = descriptor::borrow(self.fd);
            let data = EventData::new_u64(data);
            // It is there as ours, or not. The program has no call to be told that the kernel has no room for it.
            let hears = self.hears.swap(false, Ordering::AcqRel);
            if !hears || epoll::modify(shared.as_fd(), fd, data, flags).is_err() {
                if hears {
                    // With EPOLLEXCLUSIVE it can only be added.
                    let _ = epoll::delete(shared.as_fd(), fd);
                }
                let _ = epoll::add(shared.as_fd(), fd, data, flags);
            }
            drop(wanted);
            shared.forget(self);
        }
    }

    fn ready(&self, news: Ready) {
        let (events, _) = *lock(&self.wanted);
        if events & !PRIVATE != 0
            && bits(news) & (events | ALWAYS) != 0
            && let (Some(shared), Some(this)) = (self.instance.upgrade(), self.this.upgrade())
        {
            shared.enqueue(&this);
        }
    }

    fn closing(&self, fd: c_int) {
        if fd == self.fd {
            let _wanted = lock(&self.wanted);
            self.deafen();
        }
    }

    fn hears_tcp(&self) -> bool {
        self.hears.load(Ordering::Acquire)
    }

    fn closed(&self) {
        self.left.store(true, Ordering::Release);
        if let Some(shared) = self.instance.upgrade() {
            shared.forget(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoll::{Instance, control};
    use crate::table;
    use smc_socket::Role;
    use std::net::TcpListener;
    use std::os::fd::{AsRawFd, OwnedFd};

    /// An instance, and a connection of this stage, known by a descriptor.
    fn instance(stage: Stage) -> (OwnedFd, Instance, TcpListener, Arc<File>) {
        let kernel = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let instance = Instance::new(kernel.as_raw_fd(), process::current().unwrap()).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = Arc::new(File::Sock(Sock::new(tcp.as_raw_fd(), Role::Server, stage, true)));
        (kernel, instance, tcp, file)
    }

    /// The data that the kernel's instance has a descriptor with.
    fn known(kernel: c_int, fd: c_int) -> Option<u64> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{kernel}")).unwrap();
        let entries = info.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut its = entries.filter(|it| it.first() == Some(&"tfd:") && it[1].parse() == Ok(fd));
        its.next().map(|it| u64::from_str_radix(it[5], 16).unwrap())
    }

    #[test]
    fn the_kernel_is_told_of_a_connection_only_while_its_handshake_goes_on() {
        for (stage, is_told) in [(Stage::Handshake, true), (Stage::Smc, false)] {
            let (kernel, instance, tcp, file) = instance(stage);
            let (kernel, fd) = (kernel.as_raw_fd(), tcp.as_raw_fd());
            for _ in 0..2 {
                instance.add(fd, &file, libc::EPOLLIN.cast_unsigned(), 7).unwrap();
                assert_eq!(known(kernel, fd).is_some(), is_told, "{stage:?}");
                assert!(instance.delete(fd));
                assert_eq!(known(kernel, fd), None, "{stage:?}");
            }
        }
    }

    /// Acts when its connection has become TCP, before the entries behind it hear of that.
    struct Meanwhile<F>(F);

    impl<F> std::fmt::Debug for Meanwhile<F> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Meanwhile")
        }
    }

    impl<F: Fn() + Send + Sync> Watcher for Meanwhile<F> {
        fn settled(&self, stage: Stage) {
            if stage == Stage::Tcp {
                (self.0)();
            }
        }

        fn ready(&self, _: Ready) {}

        fn closed(&self) {}
    }

    /// The data that the kernel has a connection with which becomes TCP, and of which the program calls epoll_ctl by
    /// another thread in that moment.
    fn after(command: c_int) -> Option<u64> {
        let (kernel, instance, tcp, file) = instance(Stage::Handshake);
        let (kernel, fd) = (kernel.as_raw_fd(), tcp.as_raw_fd());
        let events = libc::EPOLLIN.cast_unsigned();
        let call = move || {
            // What the entry point does.
            if let Some(done) = control(kernel, command, fd, Some((events, 8))) {
                return done.unwrap();
            }
            let (kernel, fd) = (descriptor::borrow(kernel), descriptor::borrow(fd));
            match command {
                libc::EPOLL_CTL_MOD => {
                    epoll::modify(kernel, fd, EventData::new_u64(8), EventFlags::IN)
                }
                _ => epoll::delete(kernel, fd),
            }
            .unwrap();
        };
        let calling = Arc::new(Mutex::new(None));
        let thread = Arc::clone(&calling);
        let meanwhile = move || {
            let called = std::thread::spawn(call);
            // A DEL has taken it out, and waits until all have heard of this.
            let is_out = || command == libc::EPOLL_CTL_DEL && known(kernel, fd).is_none();
            while !called.is_finished() && !is_out() {
                std::thread::yield_now();
            }
            *lock(&thread) = Some(called);
        };
        table::set(kernel, Some(Arc::new(File::Epoll(instance))));
        table::set(fd, Some(Arc::clone(&file)));
        let File::Sock(sock) = &*file else { unreachable!() };
        sock.add_watcher(&file, Arc::new(Meanwhile(meanwhile)));
        control(kernel, libc::EPOLL_CTL_ADD, fd, Some((events, 7))).unwrap().unwrap();
        assert!(sock.move_on(Stage::Handshake, Stage::Late));
        // The minder may be first.
        sock.go_on(&file);
        while table::get(fd).is_some() {
            std::thread::yield_now();
        }
        lock(&calling).take().unwrap().join().unwrap();
        table::set(kernel, None);
        known(kernel, fd)
    }

    #[test]
    fn what_the_program_changes_while_a_connection_becomes_tcp_stays_so() {
        assert_eq!(after(libc::EPOLL_CTL_MOD), Some(8));
        assert_eq!(after(libc::EPOLL_CTL_DEL), None);
    }
}
