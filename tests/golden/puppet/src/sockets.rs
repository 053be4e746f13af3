// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Named SMC sockets and the orders they take.
//!
//! Invariant: an order makes the system calls its name says and no others.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt,
};

/// `AF_SMC` (include/linux/socket.h).
const AF_SMC: AddressFamily = AddressFamily::from_raw(43);
/// `SMCPROTO_SMC6` (net/smc/smc.h); 0, the default, is `SMCPROTO_SMC`.
const SMCPROTO_SMC6: u32 = 1;

#[derive(Default)]
pub(crate) struct Sockets(Mutex<HashMap<String, Arc<OwnedFd>>>);

impl Sockets {
    /// Does what the words say:
    ///
    /// | Order | |
    /// |---|---|
    /// | `listen NAME ADDRESS [BUFFER]` | with SO_SNDBUF and SO_RCVBUF of that many bytes |
    /// | `connect NAME ADDRESS [BUFFER]` | |
    /// | `accept NAME LISTENER` | |
    /// | `send NAME BYTES` | letters from A on |
    /// | `trysend NAME BYTES` | as much as goes without waiting |
    /// | `oob NAME BYTES` | the last one is urgent |
    /// | `recv NAME BYTES` | exactly so many |
    /// | `shutdown NAME` | the sending side |
    /// | `close NAME` | |
    pub(crate) fn obey(&self, words: &[&str]) -> io::Result<()> {
        match *words {
            ["listen", name, address] => self.listen(name, address, None),
            ["listen", name, address, buffer] => self.listen(name, address, Some(buffer)),
            ["connect", name, address] => self.connect(name, address, None),
            ["connect", name, address, buffer] => self.connect(name, address, Some(buffer)),
            ["accept", name, listener] => {
                let accepted = rustix::net::accept(self.get(listener)?)?;
                self.put(name, accepted);
                Ok(())
            }
            ["send", name, bytes] => self.send(name, bytes, SendFlags::empty()),
            ["trysend", name, bytes] => self.send(name, bytes, SendFlags::DONTWAIT),
            ["oob", name, bytes] => self.send(name, bytes, SendFlags::OOB),
            ["recv", name, bytes] => self.receive(name, bytes),
            ["shutdown", name] => Ok(rustix::net::shutdown(self.get(name)?, Shutdown::Write)?),
            ["close", name] => {
                self.get(name)?;
                let socket = self.lock().remove(name);
                drop(socket); // outside the lock: closing may linger
                Ok(())
            }
            _ => Err(io::Error::other("no such order")),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: &str) -> io::Result<Arc<OwnedFd>> {
        let found = self.lock().get(name).cloned();
        found.ok_or_else(|| io::Error::other(format!("there is no socket {name}")))
    }

    fn put(&self, name: &str, socket: OwnedFd) {
        self.lock().insert(name.to_owned(), Arc::new(socket));
    }

    fn listen(&self, name: &str, address: &str, buffer: Option<&str>) -> io::Result<()> {
        let (socket, address) = socket(address, buffer)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 16)?;
        self.put(name, socket);
        Ok(())
    }

    fn connect(&self, name: &str, address: &str, buffer: Option<&str>) -> io::Result<()> {
        let (socket, address) = socket(address, buffer)?;
        rustix::net::connect(&socket, &address)?;
        self.put(name, socket);
        Ok(())
    }

    fn send(&self, name: &str, bytes: &str, flags: SendFlags) -> io::Result<()> {
        let (socket, bytes) = (self.get(name)?, number(bytes)?);
        let letters: Vec<u8> = (b'A'..=b'Z').cycle().take(bytes).collect();
        let mut sent = 0;
        while sent < bytes {
            match rustix::net::send(&socket, letters.get(sent..).unwrap_or_default(), flags) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::AGAIN) if flags.contains(SendFlags::DONTWAIT) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn receive(&self, name: &str, bytes: &str) -> io::Result<()> {
        let (socket, mut left) = (self.get(name)?, number(bytes)?);
        let mut buffer = vec![0; left];
        while left > 0 {
            let room = buffer.get_mut(..left).unwrap_or_default();
            let (_, count) = rustix::net::recv(&socket, room, RecvFlags::empty())?;
            if count == 0 {
                return Err(io::Error::other(format!("the stream ended {left} bytes early")));
            }
            left -= count;
        }
        Ok(())
    }
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| io::Error::other(format!("{text} is no number of bytes")))
}

fn socket(address: &str, buffer: Option<&str>) -> io::Result<(OwnedFd, SocketAddr)> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let protocol = NonZero::new(SMCPROTO_SMC6).map(Protocol::from_raw);
    let protocol = protocol.filter(|_| address.is_ipv6());
    let socket =
        rustix::net::socket_with(AF_SMC, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)?;
    if let Some(buffer) = buffer {
        sockopt::set_socket_send_buffer_size(&socket, number(buffer)?)?;
        sockopt::set_socket_recv_buffer_size(&socket, number(buffer)?)?;
    }
    Ok((socket, address))
}
