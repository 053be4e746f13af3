// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Version 1 stays within a subnet: which ones a client names, and whether a server is in one.
//!
//! Invariant: both look at the interface that the TCP connection's packets leave by, never at
//! link-local addresses (`smc_clc_prfx_set`, `smc_clc_prfx_match`; RFC 7609, 3.2).

use std::net::IpAddr;

use smc_wire::clc::{PrefixV4, PrefixV6, Prefixes};

use super::inventory::{Address, Interface};
use super::route::Route;

/// The subnets that a client names: the one of its IPv4 address, or the first eight of its
/// interface's IPv6 addresses; `None` if there is none.
pub(crate) fn named(route: &Route, interface: &Interface) -> Option<Prefixes> {
    let mut prefixes = Prefixes::default();
    match route.local.to_canonical() {
        IpAddr::V4(local) => {
            let address = interface.addresses.iter().find(|it| it.covers4(local))?;
            prefixes.v4 = PrefixV4 { subnet: address.subnet4()?, len: address.prefix_len.min(32) };
        }
        IpAddr::V6(_) => {
            let subnets = interface.addresses.iter().filter_map(prefix6);
            prefixes.v6.extend(subnets.take(prefixes.v6.capacity()));
            if prefixes.v6.is_empty() {
                return None;
            }
        }
    }
    Some(prefixes)
}

/// Whether the server's interface has an address in a subnet that the client named, with a mask of
/// the same length.
pub(crate) fn matches(interface: &Interface, prefixes: &Prefixes) -> bool {
    let mut addresses = interface.addresses.iter();
    if prefixes.v6.is_empty() {
        let PrefixV4 { subnet, len } = prefixes.v4;
        addresses.any(|it| it.prefix_len == len && it.covers4(subnet))
    } else {
        addresses.filter_map(prefix6).any(|ours| prefixes.v6.iter().any(|it| same6(it, &ours)))
    }
}

/// Whether the two are one subnet; the client may not have masked its own.
fn same6(theirs: &PrefixV6, ours: &PrefixV6) -> bool {
    prefix6(&Address { ip: theirs.subnet.into(), prefix_len: theirs.len }).as_ref() == Some(ours)
}

fn prefix6(address: &Address) -> Option<PrefixV6> {
    address.subnet6().map(|subnet| PrefixV6 { subnet, len: address.prefix_len.min(128) })
}
