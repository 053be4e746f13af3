// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The name under which both ends of a connection look for each other.
//!
//! Invariant: two ends have the same key if and only if each one's addresses are the other's reversed, within one scope.

use std::net::{IpAddr, SocketAddr};

/// A network namespace: that of one cookie under one running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The kernel's `boot_id`, which VMs on one host do not share.
    pub kernel: u128,
    /// The namespace's `SO_NETNS_COOKIE`, unique while that kernel runs.
    pub cookie: u64,
}

/// Within what a connection's addresses mean one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only within this network namespace, where TCP itself keeps them apart.
    Namespace(Namespace),
    /// Wherever the fabric reaches: the policy says so of both addresses
    /// ([`is_unique`](crate::policy::Policy::is_unique)).
    Fabric,
}

/// Which of the two ends one is: that with the lower address and port, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The lower one.
    Low,
    /// The higher one.
    High,
}

/// Addresses, ports and scope of a connection, in a form that is the same for both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; Self::LEN]);

/// Both ends have one address and port: a socket that is connected to itself, and has nobody to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection's two ends are one")]
pub struct ToItself;

impl Key {
    /// Bytes: twice address (16, IPv4 as `::ffff:a.b.c.d`) and port (2), kernel (16), cookie (8); all big-endian. In
    /// the fabric's scope, kernel and cookie are 0.
    pub const LEN: usize = 60;

    /// What a listener at this address listens to, and who connects to it calls: no connection has this key.
    pub fn of_listener(address: SocketAddr, scope: Scope) -> Self {
        Self::from_parts(&end(address), &[0; 18], scope)
    }

    /// The key of the connection from `local` to `peer`, and which side `local` is.
    ///
    /// # Errors
    ///
    /// If `local` is `peer`.
    pub fn new(
        local: SocketAddr,
        peer: SocketAddr,
        scope: Scope,
    ) -> Result<(Self, Side), ToItself> {
        let (local, peer) = (end(local), end(peer));
        let (low, high, side) = match local.cmp(&peer) {
            std::cmp::Ordering::Less => (local, peer, Side::Low),
            std::cmp::Ordering::Greater => (peer, local, Side::High),
            std::cmp::Ordering::Equal => return Err(ToItself),
        };
        Ok((Self::from_parts(&low, &high, scope), side))
    }

    fn from_parts(low: &[u8; 18], high: &[u8; 18], scope: Scope) -> Self {
        let (kernel, cookie) = match scope {
            Scope::Namespace(namespace) => (namespace.kernel, namespace.cookie),
            Scope::Fabric => (0, 0),
        };
        let mut bytes = [0; Self::LEN];
        let parts = [&low[..], &high[..], &kernel.to_be_bytes()[..], &cookie.to_be_bytes()[..]];
        for (byte, part) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *byte = *part;
        }
        Self(bytes)
    }

    /// As the board stores it.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl From<[u8; Key::LEN]> for Key {
    fn from(bytes: [u8; Key::LEN]) -> Self {
        Self(bytes)
    }
}

/// Address and port, in the order in which ends are compared.
fn end(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    let parts = ip.octets().into_iter().chain(address.port().to_be_bytes());
    for (byte, part) in bytes.iter_mut().zip(parts) {
        *byte = part;
    }
    bytes
}
