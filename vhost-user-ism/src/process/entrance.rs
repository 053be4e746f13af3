// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The connection that a process is given, and the message that it comes with (`ism_abi::door`).
//!
//! Invariant: the connection was made by this process, whoever else knocked at the listening socket.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use ism_abi::door::{MAX_TEXT, VERSION};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::socket::Listening;

/// Names tried before it is given up.
const TRIES: usize = 8;

/// A listening socket with one connection in its queue, and that connection's other end.
///
/// vhost-user-backend takes listening sockets only. This one has an abstract name for a moment, which any
/// process of the host could connect to. Its queue has room for one connection, so if ours got in,
/// ours is the one; if somebody was faster, another name is tried.
///
/// # Errors
/// No descriptors, or somebody was faster each time.
pub(super) fn private() -> io::Result<(Listening, UnixStream)> {
    for _ in 0..TRIES {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        // As text, because it is shown as it is in /proc/net/unix as long as the connection lives.
        let name = format!("vhost-user-ism-{:032x}", u128::from_ne_bytes(random));
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        let listening = socket(SocketFlags::CLOEXEC)?;
        rustix::net::bind(&listening, &address)?;
        rustix::net::listen(&listening, 0)?;
        let connection = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        match rustix::net::connect(&connection, &address) {
            Ok(()) => {
                let connection = UnixStream::from(connection);
                connection.set_nonblocking(false)?;
                return Ok((Listening::of(UnixListener::from(listening)), connection));
            }
            Err(rustix::io::Errno::AGAIN) => log::warn!("somebody knocks at private sockets"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("somebody else connects to each socket that is made for a process"))
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Says the door's one message. Does not block: it always fits into a new socket's buffer.
///
/// # Errors
/// The process went away.
pub(super) fn say(
    client: &UnixStream,
    code: u8,
    text: &str,
    connection: Option<&UnixStream>,
) -> io::Result<()> {
    let mut message = vec![VERSION, code];
    message.extend(text.bytes().take(MAX_TEXT));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = connection.iter().map(|connection| connection.as_fd()).collect();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(client, &[IoSlice::new(&message)], &mut control, flags)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn the_connection_is_the_one_that_is_accepted() {
        let (listening, mut connection) = private().expect("sockets");
        let (mut accepted, _) = listening.socket().accept().expect("one waits");
        connection.write_all(b"x").expect("write");
        let mut byte = [0];
        accepted.read_exact(&mut byte).expect("read");
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn nobody_else_gets_into_the_queue() {
        let (listening, _connection) = private().expect("sockets");
        let address = rustix::net::getsockname(listening.socket()).expect("a name");
        let other = socket(SocketFlags::NONBLOCK).expect("socket");
        assert_eq!(rustix::net::connect(&other, &address), Err(rustix::io::Errno::AGAIN));
    }
}
