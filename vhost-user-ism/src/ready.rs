// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tells systemd (`Type=notify`) that the daemon serves, so that who is ordered after it finds its sockets.
//!
//! Invariant: systemd's socket is reached before the sandbox is entered, which would not let it be; and where it
//! cannot be reached, the daemon serves nevertheless.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Whom to tell, if systemd started this process and wants to know.
#[derive(Debug)]
pub struct Ready(Option<UnixDatagram>);

impl Ready {
    /// As `NOTIFY_SOCKET` says (sd_notify(3)); empty, it is not set.
    #[must_use]
    pub fn from_environment() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        Self(path.and_then(|path| connect(&path).inspect_err(complain).ok()))
    }

    /// Every socket is there, and served.
    pub fn say(self) {
        if let Some(socket) = self.0 {
            // Nobody else can be told if it fails.
            let _ = socket.send(b"READY=1").inspect_err(complain);
        }
    }
}

fn complain(error: &io::Error) {
    log::warn!("NOTIFY_SOCKET: {error}; systemd is not told that the daemon serves");
}

/// `@` begins the name of an abstract socket.
fn connect(path: &OsStr) -> io::Result<UnixDatagram> {
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
