// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The vhost-user connection, brought up in the order in which QEMU does it.
//!
//! Invariant: every request is answered before the next is sent, within the socket's timeout; an answer that
//! is not the request's ends the connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ism_abi::{Config, F_BOARD, F_WINDOW, Gid, QUEUE_COUNT, SHM_WINDOW};

use super::PATIENCE;
use super::message::{self, Message, front};
use super::queue::{Queue, Ram};
use crate::error::{Error, Result};
use crate::own::Own;

/// Virtio feature bit: the device conforms to virtio 1.
const VIRTIO_F_VERSION_1: u64 = 1 << 32;
/// Feature bit: there are protocol features.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Protocol features: MQ, REPLY_ACK, BACKEND_REQ, CONFIG, BACKEND_SEND_FD, CONFIGURE_MEM_SLOTS,
/// SHARED_OBJECT, SHMEM.
const NEEDED: u64 = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 15 | 1 << 18 | 1 << 22;
/// Driver features: a window, no move queue. A board if there is one.
const FEATURES: u64 = VIRTIO_F_VERSION_1 | PROTOCOL_FEATURES | 1 << F_WINDOW;

/// The socket to the daemon.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Own,
    /// Driver features that are used.
    features: u64,
}

impl Connection {
    /// Does what QEMU does when it realizes the device.
    pub(super) fn open(socket: UnixStream) -> Result<Self> {
        let timeout = Error::io("setting a timeout");
        socket.set_read_timeout(Some(PATIENCE)).map_err(timeout)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(Error::io("setting a timeout"))?;
        let socket = Own::new(socket.into());
        let mut connection = Self { socket, features: FEATURES };
        let features = connection.get("GET_FEATURES", front::GET_FEATURES)?;
        missing("features", FEATURES & !features)?;
        connection.features |= features & 1 << F_BOARD;
        let protocol = connection.get("GET_PROTOCOL_FEATURES", front::GET_PROTOCOL_FEATURES)?;
        missing("protocol features", NEEDED & !protocol)?;
        let code = front::SET_PROTOCOL_FEATURES;
        connection.set("SET_PROTOCOL_FEATURES", code, &NEEDED.to_ne_bytes(), None)?;
        let queues = connection.get("GET_QUEUE_NUM", front::GET_QUEUE_NUM)?;
        if queues < u64::from(QUEUE_COUNT) {
            return Err(Error::Device(format!("{queues} queues instead of {QUEUE_COUNT}")));
        }
        connection.set("SET_OWNER", front::SET_OWNER, &[], None)?;
        let what = "GET_SHMEM_CONFIG";
        let sizes = connection.call(what, front::GET_SHMEM_CONFIG, &[], None)?.body;
        let at = 8 + 8 * usize::from(SHM_WINDOW);
        let size = sizes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        match size.map(u64::from_ne_bytes) {
            None | Some(0) => Err(Error::Device("no window".into())),
            Some(_) => Ok(connection),
        }
    }

    /// Gives the daemon its end of the channel for its requests.
    pub(super) fn set_channel(&mut self, end: BorrowedFd<'_>) -> Result<()> {
        self.set("SET_BACKEND_REQ_FD", front::SET_BACKEND_REQ_FD, &[], Some(end))
    }

    /// The device's configuration space.
    pub(super) fn config(&self) -> Result<Vec<u8>> {
        let size = u32::try_from(Config::SIZE).unwrap_or(u32::MAX);
        let mut body = words32(&[0, size, 0]);
        body.resize(body.len() + Config::SIZE, 0);
        let reply = self.call("GET_CONFIG", front::GET_CONFIG, &body, None)?.body;
        let config = reply.get(12..12 + Config::SIZE);
        config.map(<[u8]>::to_vec).ok_or_else(|| Error::Device("a short GET_CONFIG".into()))
    }

    /// Does what QEMU does at the guest's DRIVER_OK: features, memory, rings.
    pub(super) fn start(&mut self, queues: &[Queue], ram: &Ram) -> Result<()> {
        self.set("SET_FEATURES", front::SET_FEATURES, &self.features.to_ne_bytes(), None)?;
        // Padding; then address of the guest, bytes, address of this process (the same: nobody looks),
        // place in the file.
        let region = words64(&[0, Ram::BASE, ram.len(), Ram::BASE, 0]);
        self.set("ADD_MEM_REG", front::ADD_MEM_REG, &region, Some(ram.file()))?;
        for queue in queues {
            self.start_queue(queue)?;
        }
        for queue in queues {
            let enable = words32(&[queue.index().into(), 1]);
            self.set("SET_VRING_ENABLE", front::SET_VRING_ENABLE, &enable, None)?;
        }
        Ok(())
    }

    fn start_queue(&self, queue: &Queue) -> Result<()> {
        let index = u32::from(queue.index());
        let num = words32(&[index, queue.size().into()]);
        self.set("SET_VRING_NUM", front::SET_VRING_NUM, &num, None)?;
        let base = words32(&[index, 0]);
        self.set("SET_VRING_BASE", front::SET_VRING_BASE, &base, None)?;
        let [descriptors, available, used] = queue.addresses();
        let mut address = words32(&[index, 0]);
        address.extend(words64(&[descriptors, used, available, 0]));
        self.set("SET_VRING_ADDR", front::SET_VRING_ADDR, &address, None)?;
        let index = words64(&[index.into()]);
        self.set("SET_VRING_KICK", front::SET_VRING_KICK, &index, Some(queue.kick_fd()))?;
        self.set("SET_VRING_CALL", front::SET_VRING_CALL, &index, Some(queue.call_fd()))
    }

    /// This process's end of the bell with the owner of a GID, if there is one.
    pub(super) fn shared_object(&self, gid: Gid) -> Result<Option<OwnedFd>> {
        let code = front::GET_SHARED_OBJECT;
        Ok(self.call("GET_SHARED_OBJECT", code, &gid, None)?.fd)
    }

    /// A request that is answered with a number.
    fn get(&self, what: &'static str, code: u32) -> Result<u64> {
        let reply = self.call(what, code, &[], None)?;
        let number = <[u8; 8]>::try_from(reply.body.as_slice());
        number.map(u64::from_ne_bytes).map_err(|_| Error::Device(format!("a short {what}")))
    }

    /// A request that is acknowledged.
    fn set(
        &self,
        what: &'static str,
        code: u32,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        // SET_PROTOCOL_FEATURES brings the acknowledgements, so it has none itself if they were not there.
        let reply = self.call(what, code, body, fd)?;
        match reply.body.as_slice() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Ok(()),
            _ => Err(Error::Device(format!("{what} was refused"))),
        }
    }

    fn call(
        &self,
        what: &'static str,
        code: u32,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Message> {
        let reply = message::request(&self.socket, code, body, fd)
            .and_then(|()| message::receive(&self.socket))
            .map_err(|error| failed(what, error));
        let reply = reply.and_then(|reply| {
            let is_it = reply.is_reply && reply.code == code;
            let wrong = format!("message {} in answer to {what}", reply.code);
            if is_it { Ok(reply) } else { Err(Error::Device(wrong)) }
        });
        // Answers would be mixed up from here on.
        reply.inspect_err(|_| {
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        })
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn failed(what: &'static str, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error.kind() {
        TimedOut | WouldBlock => Error::Timeout(what),
        BrokenPipe | ConnectionReset | UnexpectedEof => Error::Gone,
        _ => Error::Io { what, source: error },
    }
}

fn missing(what: &str, bits: u64) -> Result<()> {
    if bits == 0 {
        return Ok(());
    }
    Err(Error::Device(format!("its {what} lack {bits:#x}: is the socket a door for processes?")))
}

fn words32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn words64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
