// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! read, write and their kin.
//!
//! Invariant: on a connection of SMC these are recv and send without flags.

use std::ffi::{c_int, c_uint, c_void};
use std::io::{IoSlice, IoSliceMut};

use libc::{iovec, off_t, off64_t, size_t, ssize_t};
use rustix::io::Errno;

use super::{errno, fail, run};
use crate::sock::Answer;
use crate::{arguments, descriptor, real, signals, table};

/// Receives; `None`: the next library does.
#[inline]
pub(super) fn receive(fd: c_int, buffers: &mut [IoSliceMut<'_>], flags: c_int) -> Option<isize> {
    if !table::is_known(fd) {
        return None;
    }
    run(|| {
        let answer = table::with_sock(fd, |file, sock| sock.receive(file, buffers, flags));
        answer.unwrap_or(Answer::Theirs)
    })
}

/// Sends; `None`: the next library does.
#[inline]
pub(super) fn send(fd: c_int, buffers: &[IoSlice<'_>], flags: c_int) -> Option<isize> {
    if !table::is_known(fd) {
        return None;
    }
    let sent = run(|| {
        let answer = table::with_sock(fd, |file, sock| sock.send(file, buffers, flags));
        answer.unwrap_or(Answer::Theirs)
    });
    piped(sent, flags)
}

/// Raises SIGPIPE where a send says EPIPE.
fn piped(sent: Option<isize>, flags: c_int) -> Option<isize> {
    if sent == Some(-1) && errno() == libc::EPIPE && flags & libc::MSG_NOSIGNAL == 0 {
        signals::raise_sigpipe();
        real::set_errno(libc::EPIPE);
    }
    sent
}

// SAFETY, here and below: the name and type are those of the function that this stands in for; pointers
// are what that function's manual page demands, and go to it as they are where the call is not ours.

#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's buffer.
    let ours = receive(fd, &mut unsafe { arguments::room(buffer, len) }, 0);
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::read(fd, buffer, len) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __read_chk(
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    room: size_t,
) -> ssize_t {
    if len > room {
        // SAFETY: it ends the program.
        return unsafe { real::__read_chk(fd, buffer, len, room) };
    }
    // SAFETY: the caller's arguments.
    unsafe { read(fd, buffer, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's buffer.
    let ours = send(fd, &unsafe { arguments::bytes(buffer, len) }, 0);
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::write(fd, buffer, len) })
}

/// # Safety
/// As readv(2).
unsafe fn receive_parts(
    fd: c_int,
    parts: *const iovec,
    count: c_int,
    flags: c_int,
) -> Option<isize> {
    if !table::is_known(fd) {
        return None;
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    // SAFETY: the caller's promise.
    match unsafe { arguments::parts_mut(parts, count) } {
        Some(parts) => receive(fd, parts, flags),
        None => Some(fail(libc::EINVAL)),
    }
}

/// # Safety
/// As writev(2).
unsafe fn send_parts(fd: c_int, parts: *const iovec, count: c_int, flags: c_int) -> Option<isize> {
    if !table::is_known(fd) {
        return None;
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    // SAFETY: the caller's promise.
    match unsafe { arguments::parts(parts, count) } {
        Some(parts) => send(fd, parts, flags),
        None => Some(fail(libc::EINVAL)),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    let ours = unsafe { receive_parts(fd, parts, count, 0) };
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::readv(fd, parts, count) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    let ours = unsafe { send_parts(fd, parts, count, 0) };
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::writev(fd, parts, count) })
}

/// The flags of preadv2 and pwritev2 as those of recv and send; a socket has no offset but -1.
fn flags_of(offset: off_t, flags: c_int) -> Option<c_int> {
    let dont_wait = if flags & libc::RWF_NOWAIT == 0 { 0 } else { libc::MSG_DONTWAIT };
    (offset == -1).then_some(dont_wait)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn preadv2(
    fd: c_int,
    parts: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    let ours =
        flags_of(offset, flags).and_then(|how| unsafe { receive_parts(fd, parts, count, how) });
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::preadv2(fd, parts, count, offset, flags) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev2(
    fd: c_int,
    parts: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    let ours = flags_of(offset, flags).and_then(|how| unsafe { send_parts(fd, parts, count, how) });
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::pwritev2(fd, parts, count, offset, flags) })
}

/// Sends a part of a file that begins at `offset`, or where the file's own offset is, which then moves.
fn send_file(to: c_int, from: c_int, offset: Option<&mut off64_t>, count: usize) -> Option<isize> {
    let file = descriptor::borrow(from);
    let start = match &offset {
        Some(offset) => u64::try_from(**offset).ok(),
        None => rustix::fs::tell(file).ok(),
    };
    // What has no offset, as a pipe, is no file to sendfile.
    let Some(start) = start else { return Some(fail(libc::EINVAL)) };
    let sent = run(|| {
        let read = |buffer: &mut [u8], done: usize| {
            let place = start.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            Ok(rustix::io::pread(file, buffer, place)?)
        };
        let answer = table::with_sock(to, |it, sock| sock.send_file(it, count, read));
        answer.unwrap_or(Answer::Theirs)
    });
    if let Some(Ok(n)) = sent.map(u64::try_from) {
        let end = start.saturating_add(n);
        match offset {
            Some(offset) => *offset = off64_t::try_from(end).unwrap_or(off64_t::MAX),
            // It could be told above.
            None => drop(rustix::fs::seek(file, rustix::fs::SeekFrom::Start(end))),
        }
    }
    piped(sent, 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile(
    to: c_int,
    from: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    // SAFETY: the caller's arguments; off_t is off64_t on every 64-bit target.
    unsafe { sendfile64(to, from, offset, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendfile64(
    to: c_int,
    from: c_int,
    offset: *mut off64_t,
    count: size_t,
) -> ssize_t {
    let ours = table::is_known(to).then(|| {
        // SAFETY: the caller's offset, or null.
        send_file(to, from, unsafe { offset.as_mut() }, count)
    });
    // SAFETY: the caller's arguments.
    ours.flatten().unwrap_or_else(|| unsafe { real::sendfile64(to, from, offset, count) })
}

/// Connections of SMC cannot be spliced: EINVAL, after which programs copy.
#[unsafe(no_mangle)]
unsafe extern "C" fn splice(
    from: c_int,
    from_offset: *mut off64_t,
    to: c_int,
    to_offset: *mut off64_t,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    let refuse = |fd| {
        let unknown = !table::is_known(fd);
        if unknown { None } else { run(|| refused(fd)) }
    };
    let ours = refuse(from).or_else(|| refuse(to));
    // SAFETY: the caller's arguments.
    ours.unwrap_or_else(|| unsafe { real::splice(from, from_offset, to, to_offset, len, flags) })
}

/// EINVAL, unless the connection is TCP's.
fn refused(fd: c_int) -> Answer<usize> {
    let answer =
        table::with_sock(fd, |file, sock| match sock.receive(file, &mut [], libc::MSG_DONTWAIT) {
            Answer::Theirs => Answer::Theirs,
            Answer::Ours(_) => Answer::Ours(Err(Errno::INVAL.into())),
        });
    answer.unwrap_or(Answer::Theirs)
}
