// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The functions that this library stands in front of: the next library's, normally libc's.
//!
//! Invariant: each is looked up once, with the type that POSIX or glibc's headers give it; where there is
//! none, a call fails with ENOSYS.

#![expect(unsafe_code, reason = "dlsym, and calls of C functions by address")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{
    epoll_event, fd_set, iovec, mmsghdr, msghdr, nfds_t, off_t, off64_t, pollfd, sigset_t, size_t,
    sockaddr, socklen_t, ssize_t, timespec, timeval,
};

/// One function.
struct Next {
    /// Ends with a NUL.
    name: &'static str,
    address: AtomicPtr<c_void>,
}

/// What an address is when there is no such function; null says that nobody has looked.
static ABSENT: u8 = 0;

impl Next {
    const fn new(name: &'static str) -> Self {
        Self { name, address: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The function's address, if there is one.
    #[inline]
    fn address(&self) -> Option<*mut c_void> {
        let known = self.address.load(Ordering::Relaxed);
        let address = if known.is_null() { self.look_up() } else { known };
        (address.cast_const() != (&raw const ABSENT).cast()).then_some(address)
    }

    /// Two threads may both look; they find the same.
    #[cold]
    fn look_up(&self) -> *mut c_void {
        let absent = (&raw const ABSENT).cast_mut().cast();
        let Ok(name) = CStr::from_bytes_with_nul(self.name.as_bytes()) else { return absent };
        // SAFETY: `name` ends with a NUL, and RTLD_NEXT is a handle of dlsym's own.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        let address = if found.is_null() { absent } else { found };
        self.address.store(address, Ordering::Relaxed);
        address
    }
}

/// Defines a caller for each function, and [`look_up_all`].
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty;)*) => {
        #[expect(non_upper_case_globals, reason = "named as the functions are")]
        mod next {
            $(pub(super) static $name: super::Next =
                super::Next::new(concat!(stringify!($name), "\0"));)*
        }

        $(
            /// The next library's function of this name.
            ///
            /// # Safety
            /// As that function's.
            #[inline]
            pub(crate) unsafe fn $name($($argument: $kind),*) -> $result {
                type Function = unsafe extern "C" fn($($kind),*) -> $result;
                let Some(address) = next::$name.address() else {
                    set_errno(libc::ENOSYS);
                    return -1;
                };
                // SAFETY: a symbol of this name in a process with glibc is the function of this
                // type; it is not null.
                let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
                // SAFETY: the caller vouches for the arguments.
                unsafe { function($($argument),*) }
            }
        )*

        /// Looks all functions up, so that no signal handler is the first to call one.
        pub(crate) fn look_up_all() {
            $(next::$name.address();)*
        }
    };
}

functions! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int;
    fn accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t)
        -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t)
        -> c_int;

    fn read(fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t;
    fn write(fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t;
    fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    fn preadv2(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int)
        -> ssize_t;
    fn pwritev2(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int)
        -> ssize_t;
    fn sendfile64(to: c_int, from: c_int, offset: *mut off64_t, count: size_t) -> ssize_t;
    fn splice(
        from: c_int, from_offset: *mut off64_t, to: c_int, to_offset: *mut off64_t, len: size_t,
        flags: c_uint,
    ) -> ssize_t;
    fn __read_chk(fd: c_int, buffer: *mut c_void, len: size_t, room: size_t) -> ssize_t;

    fn send(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t;
    fn sendto(
        fd: c_int, buffer: *const c_void, len: size_t, flags: c_int, to: *const sockaddr,
        to_len: socklen_t,
    ) -> ssize_t;
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    fn recv(fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int) -> ssize_t;
    fn recvfrom(
        fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int, from: *mut sockaddr,
        from_len: *mut socklen_t,
    ) -> ssize_t;
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec,
    ) -> c_int;
    fn __recv_chk(fd: c_int, buffer: *mut c_void, len: size_t, room: size_t, flags: c_int)
        -> ssize_t;
    fn __recvfrom_chk(
        fd: c_int, buffer: *mut c_void, len: size_t, room: size_t, flags: c_int,
        from: *mut sockaddr, from_len: *mut socklen_t,
    ) -> ssize_t;

    fn close(fd: c_int) -> c_int;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    fn dup(fd: c_int) -> c_int;
    fn dup2(fd: c_int, to: c_int) -> c_int;
    fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int;

    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
    fn ppoll(
        fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
    ) -> c_int;
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int;
    fn __ppoll_chk(
        fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t,
        room: size_t,
    ) -> c_int;
    fn select(
        count: c_int, reads: *mut fd_set, writes: *mut fd_set, excepts: *mut fd_set,
        timeout: *mut timeval,
    ) -> c_int;
    fn pselect(
        count: c_int, reads: *mut fd_set, writes: *mut fd_set, excepts: *mut fd_set,
        timeout: *const timespec, mask: *const sigset_t,
    ) -> c_int;

    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char)
        -> c_int;
    fn execv(path: *const c_char, argv: *const *const c_char) -> c_int;
    fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int;
    fn execvpe(file: *const c_char, argv: *const *const c_char, envp: *const *const c_char)
        -> c_int;
    fn execveat(
        folder: c_int, path: *const c_char, argv: *const *const c_char,
        envp: *const *const c_char, flags: c_int,
    ) -> c_int;
    fn fexecve(fd: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int;

    fn prctl(
        what: c_int, second: c_ulong, third: c_ulong, fourth: c_ulong, fifth: c_ulong,
    ) -> c_int;

    fn epoll_create(size: c_int) -> c_int;
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epoll: c_int, command: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    fn epoll_wait(epoll: c_int, events: *mut epoll_event, room: c_int, timeout: c_int) -> c_int;
    fn epoll_pwait(
        epoll: c_int, events: *mut epoll_event, room: c_int, timeout: c_int,
        mask: *const sigset_t,
    ) -> c_int;
    fn epoll_pwait2(
        epoll: c_int, events: *mut epoll_event, room: c_int, timeout: *const timespec,
        mask: *const sigset_t,
    ) -> c_int;
}

/// Sets the calling thread's errno.
pub(crate) fn set_errno(number: c_int) {
    // SAFETY: the function returns the calling thread's errno, which lives as long as it.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; nothing else refers to it now.
    unsafe { *errno = number };
}
