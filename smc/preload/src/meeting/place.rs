// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where two ends of a connection look for each other: keys of the board.
//!
//! Invariant: a key is of this network namespace, where TCP itself keeps addresses apart, unless the policy says that
//! the addresses are unique among all that share the fabric.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use ism_client::board::Key as Bytes;
use rustix::net::{AddressFamily, SocketType, connect, getpeername, getsockname, socket, sockopt};
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

/// Any address of the same family.
fn any(of: SocketAddr) -> SocketAddr {
    let any: IpAddr =
        if of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, of.port())
}

/// Where a connection to `peer` goes: one to no address in particular, to this host's own.
fn meant(peer: SocketAddr) -> SocketAddr {
    let own: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    if peer.ip().is_unspecified() { SocketAddr::new(own, peer.port()) } else { peer }
}

/// What a client that connects to `peer` calls, if it may: listeners at this very address, and at any.
pub(super) fn to_call(fd: BorrowedFd<'_>, peer: SocketAddr) -> Vec<Bytes> {
    let mut keys = Vec::new();
    let mut add = |at, scope| keys.push(*Key::of_listener(at, scope).as_bytes());
    if is_local(peer.ip()) {
        let peer = meant(peer);
        if let Some(scope) = here(fd) {
            [peer, any(peer)].into_iter().for_each(|at| add(at, scope));
        }
    } else if policy().is_ok_and(|policy| policy.is_unique(peer.ip())) {
        add(peer, Scope::Fabric);
    }
    keys
}

/// Whether a listener at any address of IPv6 has IPv4's clients too.
fn has_both(fd: BorrowedFd<'_>, local: SocketAddr) -> bool {
    let is_any = local.is_ipv6() && local.ip().is_unspecified();
    is_any && !sockopt::ipv6_v6only(fd).unwrap_or(false)
}

/// Whether what is connected at `local` may have been accepted by a listener at `at`.
pub(super) fn serves(at: SocketAddr, local: SocketAddr) -> bool {
    let is_any = at.ip().is_unspecified() && at.is_ipv4() == local.is_ipv4();
    at.port() == local.port() && (is_any || at.ip() == local.ip())
}

/// What a listener at `local` listens to: each address, and its key.
pub(super) fn of_listener(fd: BorrowedFd<'_>, local: SocketAddr) -> Vec<(SocketAddr, Bytes)> {
    let port = local.port();
    if port == 0 {
        return Vec::new(); // the kernel will choose one
    }
    let Ok(policy) = policy() else { return Vec::new() };
    let v4 = has_both(fd, local).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    let inside: Vec<_> = [Some(local), v4].into_iter().flatten().collect();
    let mut outside = Vec::new();
    if policy.has_unique() {
        let addresses =
            if local.ip().is_unspecified() { own_addresses() } else { vec![local.ip()] };
        let unique = addresses.into_iter().filter(|ip| policy.is_unique(*ip));
        outside.extend(unique.map(|ip| SocketAddr::new(ip, port)));
        outside.retain(|address| inside.iter().any(|at| serves(*at, *address)));
    }
    let inside = here(fd).into_iter().flat_map(|scope| inside.iter().map(move |at| (*at, scope)));
    let all = inside.chain(outside.into_iter().map(|at| (at, Scope::Fabric)));
    all.map(|(at, scope)| (at, *Key::of_listener(at, scope).as_bytes())).collect()
}

/// Its address at this end.
pub(super) fn local(fd: BorrowedFd<'_>) -> Option<SocketAddr> {
    let local = getsockname(fd).ok().and_then(|it| SocketAddr::try_from(it).ok());
    local.map(canonical)
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
