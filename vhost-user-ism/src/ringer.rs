// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals an eventfd of a front-end without ever waiting for it.
//!
//! A write to an eventfd blocks when its counter is full and O_NONBLOCK is clear, and both are in
//! the hands of whoever else holds it: a hostile front-end could stop each VM's thread that calls
//! it. The kernel's own signal (`eventfd_signal`) never blocks, and linux-aio is the way to ask for
//! it: the end of a request signals an eventfd of one's choice. The request is a poll of a
//! descriptor that is always ready, so it ends while it is submitted.
//!
//! Invariant: no request is under way when `ring` returns, so the kernel keeps no pointer of ours.
#![expect(unsafe_code, reason = "linux-aio has no safe interface")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// Completions kept by the kernel before they are fetched in one go.
const EVENTS: usize = 32;
/// Contexts: threads that ring at the same moment take different ones.
const CONTEXTS: usize = 4;
/// `IOCB_CMD_POLL` (linux/aio_abi.h).
const CMD_POLL: u16 = 5;
/// `IOCB_FLAG_RESFD`: signal `resfd` at the end.
const FLAG_RESFD: u32 = 1;

/// `struct iocb` of linux/aio_abi.h, for little-endian machines.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Completion {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// One context of linux-aio.
struct Ringer {
    context: libc::c_ulong,
    /// An eventfd that is always readable.
    ready: OwnedFd,
    unfetched: usize,
}

static RINGERS: OnceLock<Vec<Mutex<Ringer>>> = OnceLock::new();

/// Makes the contexts, once for the process; without linux-aio there are none.
pub(crate) fn prepare() {
    RINGERS.get_or_init(|| {
        let ringers: io::Result<Vec<_>> =
            (0..CONTEXTS).map(|_| Ringer::new().map(Mutex::new)).collect();
        ringers.unwrap_or_else(|error| {
            log::warn!("no linux-aio ({error}): a hostile front-end can delay its peers");
            Vec::new()
        })
    });
}

/// Adds 1 to an eventfd's counter and wakes who waits for it; a full counter stays full.
///
/// # Errors
/// The descriptor is no eventfd, or the kernel has no linux-aio or no room for it: then nothing
/// was signalled.
pub(crate) fn ring(target: BorrowedFd<'_>) -> io::Result<()> {
    prepare();
    let ringers = RINGERS.get().map_or(&[][..], Vec::as_slice);
    let free = ringers.iter().find_map(|ringer| ringer.try_lock().ok());
    if let Some(mut ringer) = free {
        return ringer.ring(target);
    }
    // All are in use, each for less than a microsecond; or there are none.
    let first = ringers.first().ok_or(io::ErrorKind::Unsupported)?;
    first.lock().unwrap_or_else(PoisonError::into_inner).ring(target)
}

impl Ringer {
    fn new() -> io::Result<Self> {
        let ready = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: io_setup writes one aio_context_t, a long, to the pointer, which is a live one's.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, EVENTS, &raw mut context) };
        if made < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { context, ready, unfetched: 0 })
        }
    }

    fn ring(&mut self, target: BorrowedFd<'_>) -> io::Result<()> {
        if self.unfetched == EVENTS {
            self.fetch();
        }
        let number = |fd: BorrowedFd<'_>| {
            u32::try_from(fd.as_raw_fd()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        };
        let mut request = Request {
            opcode: CMD_POLL,
            fd: number(self.ready.as_fd())?,
            buffer: u64::from(libc::POLLIN.unsigned_abs()),
            flags: FLAG_RESFD,
            resfd: number(target)?,
            ..Request::default()
        };
        let mut requests = [&raw mut request];
        // SAFETY: the context is alive as long as `self`; the array holds one pointer to a
        // `struct iocb`. The kernel reads both during the call and writes `key`; a poll that is
        // ready at once ends in the call, and `ready` is never read, so it is always ready.
        let submitted =
            unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1, requests.as_mut_ptr()) };
        if submitted != 1 {
            return Err(io::Error::last_os_error());
        }
        self.unfetched += 1;
        Ok(())
    }

    /// Makes room for completions.
    fn fetch(&mut self) {
        let mut events = [Completion::default(); EVENTS];
        let none: *const libc::timespec = std::ptr::null();
        // SAFETY: `events` has room for the EVENTS entries that the kernel may write at most; a
        // minimum of 0 does not wait, and a null timeout is allowed.
        let fetched = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                0,
                EVENTS,
                events.as_mut_ptr(),
                none,
            )
        };
        self.unfetched -= usize::try_from(fetched).unwrap_or(0).min(self.unfetched);
    }
}

impl Drop for Ringer {
    fn drop(&mut self) {
        // SAFETY: the context was made by io_setup, and `drop` is the last use of it.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(fd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).expect("a count");
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn every_ring_counts() {
        let target = eventfd(0, EventfdFlags::empty()).expect("eventfd");
        let rings = 5 * EVENTS as u64 + 1;
        for _ in 0..rings {
            ring(target.as_fd()).expect("ring");
        }
        assert_eq!(count(&target), rings);
    }

    #[test]
    fn a_full_counter_does_not_block() {
        let target = eventfd(0, EventfdFlags::empty()).expect("eventfd");
        rustix::io::write(&target, &(u64::MAX - 1).to_ne_bytes()).expect("fill");
        for _ in 0..3 * EVENTS {
            ring(target.as_fd()).expect("ring"); // a write would never return
        }
    }

    #[test]
    fn other_files_are_refused() {
        let (_reader, writer) = std::io::pipe().expect("pipe");
        assert!(ring(writer.as_fd()).is_err());
    }
}
