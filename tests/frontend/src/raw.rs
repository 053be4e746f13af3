// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! vhost-user messages byte by byte, for front-ends that do not keep the protocol.
//!
//! Invariant: nothing is checked on the way out, and nothing on the way in is believed.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Header flag: protocol version 1.
pub const VERSION_1: u32 = 1;
/// Header flag: this is a reply.
pub const REPLY: u32 = 4;
/// Header flag: an answer is asked for.
pub const NEED_REPLY: u32 = 8;
/// The most descriptors the kernel takes in one message (SCM_MAX_FD).
pub const MAX_FDS: usize = 253;

/// A message's bytes: request code, flags, size of the body, body.
pub fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = header(request, flags, size).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// A header whose size need not be the body's.
pub fn header(request: u32, flags: u32, size: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (place, word) in bytes.chunks_mut(4).zip([request, flags, size]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Sends bytes with descriptors attached; how many bytes went out. Does not block.
pub fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// Reads one message: its three header words and its body. Descriptors with it are dropped.
pub fn receive(mut socket: &UnixStream) -> io::Result<([u32; 3], Vec<u8>)> {
    let mut bytes = [0; 12];
    socket.read_exact(&mut bytes)?;
    let mut words = [0; 3];
    for (word, place) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*place);
    }
    let len = usize::try_from(words[2]).unwrap_or(usize::MAX).min(1 << 16);
    let mut body = vec![0; len];
    socket.read_exact(&mut body)?;
    Ok((words, body))
}
