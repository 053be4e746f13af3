// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where two ends of a connection look for each other: keys of the board.
//!
//! Invariant: a key is of this network namespace, where TCP itself keeps addresses apart, unless the policy says that
//! the addresses are unique among all that share the fabric.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use ism_client::board::Key as Bytes;
use rustix::net::{AddressFamily, SocketType, connect, getpeername, getsockname, socket};
use smc_discovery::policy::{Policy, Transport};
use smc_discovery::rendezvous::{Key, Scope, Side};
use smc_discovery::sockopt::namespace;
use smc_snapshot::reason;

use crate::settings::SETTINGS;

/// Where the kernel says which addresses are this namespace's.
const LOCAL_V4: &str = "/proc/net/fib_trie";
const LOCAL_V6: &str = "/proc/net/if_inet6";

fn policy() -> Result<&'static Policy, u32> {
    SETTINGS.policy.as_ref().ok_or(reason::BADPOLICY)
}

/// Whether an address is one of this network namespace: then packets to it come from it.
fn is_local(ip: IpAddr) -> bool {
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let source = socket(family, SocketType::DGRAM, None).ok().and_then(|probe| {
        // Connecting a socket of UDP sends nothing.
        connect(&probe, &SocketAddr::new(ip, 9)).ok()?;
        SocketAddr::try_from(getsockname(&probe).ok()?).ok()
    });
    source.is_some_and(|source| source.ip() == ip)
}

fn here(fd: BorrowedFd<'_>) -> Option<Scope> {
    namespace(fd).ok().map(Scope::Namespace)
}

fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// What a client that connects to `peer` calls, if it may.
pub(super) fn to_call(fd: BorrowedFd<'_>, peer: SocketAddr) -> Option<Bytes> {
    let key = if is_local(peer.ip()) {
        Key::of_listener(any(peer.port()), here(fd)?)
    } else if policy().ok()?.is_unique(peer.ip()) {
        Key::of_listener(peer, Scope::Fabric)
    } else {
        return None;
    };
    Some(*key.as_bytes())
}

/// What a listener at `local` listens to.
pub(super) fn of_listener(fd: BorrowedFd<'_>, local: SocketAddr) -> Vec<Bytes> {
    let port = local.port();
    if port == 0 {
        return Vec::new(); // the kernel will choose one
    }
    let inside = here(fd).map(|scope| Key::of_listener(any(port), scope));
    let Ok(policy) = policy() else { return Vec::new() };
    let mut addresses = Vec::new();
    if policy.has_unique() {
        addresses = if local.ip().is_unspecified() { own_addresses() } else { vec![local.ip()] };
        addresses.retain(|ip| policy.is_unique(*ip));
    }
    let outside = addresses.into_iter().map(|ip| SocketAddr::new(ip, port));
    let outside = outside.map(|address| Key::of_listener(address, Scope::Fabric));
    inside.into_iter().chain(outside).map(|key| *key.as_bytes()).collect()
}

/// Its port at this end.
pub(super) fn port(fd: BorrowedFd<'_>) -> Option<u16> {
    let local = getsockname(fd).ok().and_then(|it| SocketAddr::try_from(it).ok());
    local.map(|local| local.port())
}

/// The key of a connection, and which of its ends this one is.
pub(super) fn of_connection(fd: BorrowedFd<'_>) -> Result<(Bytes, Side), u32> {
    let local = getsockname(fd).ok().and_then(|it| SocketAddr::try_from(it).ok());
    let peer = getpeername(fd).ok().flatten().and_then(|it| SocketAddr::try_from(it).ok());
    let (Some(local), Some(peer)) = (local.map(canonical), peer.map(canonical)) else {
        return Err(reason::UNASKED);
    };
    let policy = policy()?;
    if policy.decides(local, peer) == Transport::Tcp {
        return Err(reason::POLICY);
    }
    let scope = if is_local(peer.ip()) {
        here(fd).ok_or(reason::UNASKED)?
    } else if policy.is_unique(local.ip()) && policy.is_unique(peer.ip()) {
        Scope::Fabric
    } else {
        return Err(reason::NOTUNIQUE);
    };
    let (key, side) = Key::new(local, peer, scope).map_err(|_| reason::UNASKED)?;
    Ok((*key.as_bytes(), side))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The addresses of this network namespace.
fn own_addresses() -> Vec<IpAddr> {
    let v4 = std::fs::read_to_string(LOCAL_V4).unwrap_or_default();
    let v6 = std::fs::read_to_string(LOCAL_V6).unwrap_or_default();
    v4_addresses(&v4).into_iter().chain(v6_addresses(&v6)).collect()
}

/// Of lines `|-- ADDRESS`, those that a line `/32 host LOCAL` follows.
fn v4_addresses(table: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let mut last = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(ip) = last.take().filter(|ip| !addresses.contains(ip))
        {
            addresses.push(ip);
        }
    }
    addresses
}

/// The first word of each line, 32 digits.
fn v6_addresses(table: &str) -> Vec<IpAddr> {
    let words = table.lines().filter_map(|line| line.split_whitespace().next());
    let bits = words.filter_map(|word| u128::from_str_radix(word, 16).ok());
    bits.map(|bits| Ipv6Addr::from(bits).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_of_addresses_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.1.0.0\n        /16 link UNICAST\n\
                    \x20    |-- 10.1.0.7\n        /32 host LOCAL\n     |-- 10.1.255.255\n\
                    \x20       /32 link BROADCAST\nLocal:\n     |-- 10.1.0.7\n        /32 host LOCAL\n";
        assert_eq!(v4_addresses(trie), ["10.1.0.7".parse::<IpAddr>().unwrap()]);
        let inet6 = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     20010db8000000000000000000000002 02 40 00 80     eth0\n";
        let expected = ["::1".parse().unwrap(), "2001:db8::2".parse::<IpAddr>().unwrap()];
        assert_eq!(v6_addresses(inet6), expected);
        assert!(is_local("127.0.0.9".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
    }
}
