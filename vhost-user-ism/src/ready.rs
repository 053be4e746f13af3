// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tells systemd (`Type=notify`) that the daemon serves, so that who is ordered after it finds its sockets.
//!
//! Invariant: systemd's socket is reached before the sandbox is entered, which would not let it be.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Whom to tell, if systemd started this process and wants to know.
#[derive(Debug)]
pub struct Ready(Option<UnixDatagram>);

impl Ready {
    /// As `NOTIFY_SOCKET` says (sd_notify(3)).
    ///
    /// # Errors
    /// There is nobody.
    pub fn from_environment() -> io::Result<Self> {
        let socket = std::env::var_os("NOTIFY_SOCKET").map(|path| connect(&path)).transpose()?;
        Ok(Self(socket))
    }

    /// Every socket is there, and served.
    ///
    /// # Errors
    /// Nobody hears it any more.
    pub fn say(self) -> io::Result<()> {
        self.0.map_or(Ok(0), |socket| socket.send(b"READY=1")).map(drop)
    }
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
