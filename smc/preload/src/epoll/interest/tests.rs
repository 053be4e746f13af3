// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of the entries.
//!
//! Invariant: what the kernel's instance has is asked of the kernel.

use super::*;
use crate::epoll::{Instance, control};
use crate::{numbers, table};
use rustix::fs::fstat;
use rustix::io::Errno;
use smc_socket::Role;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

const IN: u32 = libc::EPOLLIN.cast_unsigned();

/// An instance, and a connection of this stage, known by a descriptor.
fn instance(stage: Stage) -> (OwnedFd, Instance, TcpListener, Arc<File>) {
    let kernel = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let instance = Instance::new(kernel.as_raw_fd(), process::current().unwrap()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = Arc::new(File::Sock(Sock::new(tcp.as_raw_fd(), Role::Server, stage, true)));
    (kernel, instance, tcp, file)
}

/// What the kernel's instance has: the number, the data, and the file's inode.
fn all_known(kernel: c_int) -> Vec<(c_int, u64, u64)> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{kernel}")).unwrap();
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("ino:"), 16).unwrap();
    let lines = info.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let entries = lines.filter(|words| words.first() == Some(&"tfd:"));
    entries.map(|words| (words[1].parse().unwrap(), hex(words[5]), hex(words[7]))).collect()
}

/// The data that it has a descriptor with.
fn known(kernel: c_int, fd: c_int) -> Option<u64> {
    all_known(kernel).into_iter().find(|it| it.0 == fd).map(|it| it.1)
}

/// The handshake ends so for who has the connection as `fd`.
fn becomes_tcp(file: &Arc<File>, fd: c_int) {
    let File::Sock(sock) = &**file else { unreachable!() };
    assert!(sock.move_on(Stage::Handshake, Stage::Late));
    // The minder may be first.
    sock.go_on(file);
    while table::get(fd).is_some() {
        std::thread::yield_now();
    }
}

#[test]
fn the_kernel_is_told_of_a_connection_only_while_its_handshake_goes_on() {
    for (stage, is_told) in [(Stage::Handshake, true), (Stage::Smc, false)] {
        let (kernel, instance, tcp, file) = instance(stage);
        let (kernel, fd) = (kernel.as_raw_fd(), tcp.as_raw_fd());
        for _ in 0..2 {
            instance.add(fd, &file, IN, 7).unwrap();
            assert_eq!(known(kernel, fd).is_some(), is_told, "{stage:?}");
            assert!(instance.delete(fd, &file));
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
    let call = move || {
        // What the entry point does.
        if let Some(done) = control(kernel, command, fd, Some((IN, 8))) {
            return done.unwrap();
        }
        let (kernel, fd) = (descriptor::borrow(kernel), descriptor::borrow(fd));
        match command {
            libc::EPOLL_CTL_MOD => epoll::modify(kernel, fd, EventData::new_u64(8), EventFlags::IN),
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
    control(kernel, libc::EPOLL_CTL_ADD, fd, Some((IN, 7))).unwrap().unwrap();
    becomes_tcp(&file, fd);
    lock(&calling).take().unwrap().join().unwrap();
    table::set(kernel, None);
    known(kernel, fd)
}

#[test]
fn what_the_program_changes_while_a_connection_becomes_tcp_stays_so() {
    assert_eq!(after(libc::EPOLL_CTL_MOD), Some(8));
    assert_eq!(after(libc::EPOLL_CTL_DEL), None);
}

#[test]
fn an_entry_that_has_left_before_it_joins_is_nowhere() {
    for (stage, data) in [(Stage::Handshake, None), (Stage::Tcp, Some(7))] {
        let (kernel, instance, tcp, file) = instance(stage);
        let fd = tcp.as_raw_fd();
        let entry = Interest::new(fd, &file, IN, 7, Arc::downgrade(&instance.shared));
        lock(&instance.shared.inner).entries.insert(&entry);
        if stage == Stage::Handshake {
            // Another thread's EPOLL_CTL_DEL.
            assert!(instance.delete(fd, &file));
        }
        entry.hear_tcp(&instance.shared);
        entry.join();
        assert_eq!(known(kernel.as_raw_fd(), fd), data, "{stage:?}");
        assert_eq!(Arc::strong_count(&entry), 1, "{stage:?}");
    }
}

/// An instance, and in it a connection of this stage as a descriptor that is closed, and not used again; another is not.
fn orphan(stage: Stage) -> (OwnedFd, Instance, [OwnedFd; 2], Arc<File>) {
    let (kernel, instance, tcp, file) = instance(stage);
    let tcp = OwnedFd::from(tcp);
    let copy = rustix::io::fcntl_dupfd_cloexec(&tcp, 0).unwrap();
    table::set(tcp.as_raw_fd(), Some(Arc::clone(&file)));
    numbers::copied(tcp.as_raw_fd(), copy.as_raw_fd());
    instance.add(tcp.as_raw_fd(), &file, IN, 7).unwrap();
    // To the kernel dup2 closes it, when it is another's.
    numbers::closing(tcp.as_raw_fd());
    (kernel, instance, [tcp, copy], file)
}

#[test]
fn a_closed_number_is_free_for_another_and_its_connection_stays() {
    let (kernel, instance, [mut tcp, copy], file) = orphan(Stage::Handshake);
    let (kernel, fd) = (kernel.as_raw_fd(), tcp.as_raw_fd());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::dup2(&listener, &mut tcp).unwrap();
    let other = Arc::new(File::Sock(Sock::new(fd, Role::Server, Stage::Smc, true)));
    assert!(!instance.modify(fd, &other, IN, 8) && !instance.delete(fd, &other));
    instance.add(fd, &other, IN, 8).unwrap();
    becomes_tcp(&file, copy.as_raw_fd());
    // It is the kernel's, as one that is known by no number.
    let all = all_known(kernel);
    let its = all.iter().filter(|it| it.1 == 7).map(|it| it.2).collect::<Vec<_>>();
    assert_eq!(its, [fstat(&copy).unwrap().st_ino]);
    assert!([tcp, copy].iter().all(|number| known(kernel, number.as_raw_fd()).is_none()));
    assert!(instance.delete(fd, &other));
    assert!(lock(&instance.shared.inner).entries.is_empty());
}

#[test]
fn a_closed_number_that_comes_back_is_that_of_its_entry() {
    let (kernel, instance, [mut tcp, copy], file) = orphan(Stage::Handshake);
    let (kernel, fd) = (kernel.as_raw_fd(), tcp.as_raw_fd());
    rustix::io::dup2(&copy, &mut tcp).unwrap();
    numbers::copied(copy.as_raw_fd(), fd);
    let error = instance.add(fd, &file, IN, 8).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::EXIST));
    assert!(instance.modify(fd, &file, IN, 9));
    becomes_tcp(&file, copy.as_raw_fd());
    assert_eq!(known(kernel, fd), Some(9));
}

#[test]
fn an_entry_ends_with_its_connection() {
    let (_kernel, instance, [_tcp, copy], _file) = orphan(Stage::Smc);
    assert!(!lock(&instance.shared.inner).entries.is_empty());
    numbers::closing(copy.as_raw_fd());
    assert!(lock(&instance.shared.inner).entries.is_empty());
}
