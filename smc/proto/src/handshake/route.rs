// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The TCP connection under a handshake, and how RoCE packets would go beside it.
//!
//! Invariant: says what the operating system found; nothing here is from the peer's messages.

use std::net::{IpAddr, Ipv4Addr};

use smc_wire::id::Mac;

use super::inventory::InterfaceId;

/// A TCP connection that has just been established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The interface its packets leave by, if the system has a route for it.
    pub interface: Option<InterfaceId>,
    /// Its local address.
    pub local: IpAddr,
    /// Its remote address; unspecified if that is not known.
    pub peer: IpAddr,
    /// Whether the peer's SYN or SYN-ACK carried the SMC option.
    pub smc: bool,
    /// Whether an IPsec policy was set on the socket.
    pub ipsec: bool,
    /// Bytes of send buffer that the application asked for, if it did.
    pub sndbuf: Option<u32>,
    /// Bytes of receive buffer that the application asked for, if it did.
    pub rcvbuf: Option<u32>,
}

impl Route {
    /// The local address if the connection is IPv4, also as IPv6 sockets name it: RoCEv2 needs one.
    pub(crate) fn local4(&self) -> Option<Ipv4Addr> {
        match self.local.to_canonical() {
            IpAddr::V4(local) => Some(local),
            IpAddr::V6(_) => None,
        }
    }
}

/// The first station on the way to a RoCE port (`smc_ib_find_route`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Its MAC: the port's own, or a gateway's.
    pub mac: Mac,
    /// Whether it is a gateway.
    pub gateway: bool,
}
