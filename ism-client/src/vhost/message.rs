// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! vhost-user messages: a header, a body, descriptors (QEMU's docs/interop/vhost-user.rst).
//!
//! Invariant: a message is read whole and its length is bounded before it is believed; waiting for one has an
//! end, which the socket's timeout sets.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Requests of the front-end that are used here.
pub(super) mod front {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const SET_VRING_BASE: u32 = 10;
    pub(crate) const SET_VRING_KICK: u32 = 12;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const SET_BACKEND_REQ_FD: u32 = 21;
    pub(crate) const GET_CONFIG: u32 = 24;
    pub(crate) const ADD_MEM_REG: u32 = 37;
    pub(crate) const GET_SHARED_OBJECT: u32 = 41;
    pub(crate) const GET_SHMEM_CONFIG: u32 = 44;
}

/// Requests of the back-end that are answered here.
pub(super) mod back {
    pub(crate) const SHMEM_MAP: u32 = 9;
    pub(crate) const SHMEM_UNMAP: u32 = 10;
}

/// Header flags: version 1.
const VERSION: u32 = 1;
/// Header flags: the version's bits.
const VERSION_MASK: u32 = 3;
/// Header flag: a reply.
const REPLY: u32 = 4;
/// Header flag: the sender wants an answer.
const NEED_REPLY: u32 = 8;
/// Bytes of a header.
const HEADER: usize = 12;
/// Bytes of the longest body that is read; GET_SHMEM_CONFIG's is the longest here.
const MAX_BODY: usize = 4096;

/// A message that came.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) code: u32,
    pub(super) wants_reply: bool,
    pub(super) is_reply: bool,
    pub(super) body: Vec<u8>,
    /// At most one; more are closed.
    pub(super) fd: Option<OwnedFd>,
}

/// Sends a request that wants an answer.
pub(super) fn request(
    socket: &impl AsFd,
    code: u32,
    body: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    send(socket, code, VERSION | NEED_REPLY, body, fd)
}

/// Sends the answer to a request.
pub(super) fn reply(socket: &impl AsFd, code: u32, body: &[u8]) -> io::Result<()> {
    send(socket, code, VERSION | REPLY, body, None)
}

fn send(
    socket: &impl AsFd,
    code: u32,
    flags: u32,
    body: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let len = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    for word in [code, flags, len] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fd.into_iter().collect();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let sent = sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    // Messages are far shorter than a socket's buffer, so they go whole or not at all.
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reads one message.
pub(super) fn receive(socket: &impl AsFd) -> io::Result<Message> {
    let mut header = [0; HEADER];
    let fd = receive_all(socket, &mut header)?;
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    let [code, flags, len] = words;
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_BODY);
    let len = len.filter(|_| flags & VERSION_MASK == VERSION);
    let len = len.ok_or_else(|| io::Error::other("no vhost-user message"))?;
    let mut body = vec![0; len];
    // Descriptors come with the first byte.
    drop(receive_all(socket, &mut body)?);
    Ok(Message {
        code,
        wants_reply: flags & NEED_REPLY != 0,
        is_reply: flags & REPLY != 0,
        body,
        fd,
    })
}

/// Fills `bytes`; the first descriptor that came with them.
pub(super) fn receive_all(socket: &impl AsFd, bytes: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let (mut filled, mut found) = (0, None);
    while filled < bytes.len() {
        let (read, fd) = receive_some(socket, bytes.get_mut(filled..).unwrap_or_default())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        found = found.or(fd);
    }
    Ok(found)
}

/// Reads once; how many bytes (0: the end), and the first descriptor that came with them.
pub(super) fn receive_some(
    socket: &impl AsFd,
    bytes: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let received = loop {
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.into_iter().next().or(fd);
        }
    }
    Ok((received.bytes, fd))
}
