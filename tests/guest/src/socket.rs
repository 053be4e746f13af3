// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stream sockets of either family.
//!
//! Invariant: an SMC socket is asked for as AF_SMC; whether SMC carries it is the kernel's affair.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, sockopt};

/// `AF_SMC` (include/linux/socket.h).
const AF_SMC: AddressFamily = AddressFamily::from_raw(43);
/// `SMCPROTO_SMC6` (net/smc/smc.h); 0, the default, is `SMCPROTO_SMC`.
const SMCPROTO_SMC6: u32 = 1;

/// Which sockets to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// AF_SMC.
    Smc,
    /// AF_INET or AF_INET6.
    Tcp,
}

fn socket(family: Family, address: SocketAddr) -> io::Result<OwnedFd> {
    let (domain, protocol) = match (family, address) {
        (Family::Smc, SocketAddr::V4(_)) => (AF_SMC, None),
        (Family::Smc, SocketAddr::V6(_)) => (AF_SMC, smc6()),
        (Family::Tcp, SocketAddr::V4(_)) => (AddressFamily::INET, None),
        (Family::Tcp, SocketAddr::V6(_)) => (AddressFamily::INET6, None),
    };
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(domain, SocketType::STREAM, flags, protocol)?)
}

fn smc6() -> Option<Protocol> {
    std::num::NonZero::new(SMCPROTO_SMC6).map(Protocol::from_raw)
}

/// A listening socket.
pub(crate) fn listen(family: Family, address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(family, address)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 256)?;
    Ok(socket)
}

/// The next connection of a listening socket.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<TcpStream> {
    Ok(rustix::net::accept(listener)?.into())
}

/// A connection.
pub(crate) fn connect(family: Family, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(family, address)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}
