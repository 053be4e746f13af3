// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes of state, and allocations.
//!
//! Invariant: the heap is counted too, by [`heap::growth`]: the program's allocator is
//! [`heap::Counted`].

use std::mem::size_of;

use smc_proto::Instant;
use smc_proto::conn::Connection;
use smc_proto::group::{Ask, Fate, Groups, Limits, Peer, Role, SmcdPeer, Version};
use smc_proto::id::{ConnId, DeviceId};
use smc_proto::smcr::{self, LinkGroup, qp};
use smc_proto::stats::Stats;
use smc_wire::id::{IsmGid, Mac, RoceGid};
use smc_wire::llc;
use smc_wire::size::PathMtu;

use super::handshake::{self, Device, Hosts, Outcome};
use super::{Case, connection};
use crate::heap::{self, Growth};
use crate::report::Row;

/// Bytes of state that a connection may take.
const TARGET_BYTES: u64 = 512;
/// Things of a kind that are made to count one: with the one before them as many connections as an
/// SMC-R link group has.
const MANY: u8 = 254;

/// What is kept for a connection and for a link group, and how often memory is asked for.
///
/// # Errors
/// If a case cannot be set up.
pub fn rows() -> Result<Vec<Row>, String> {
    let value = size_of::<Connection>() as u64;
    let [smcd, smcr] = [Device::Ism, Device::Roce].map(connection_in_endpoint);
    let round = connection::cases()?.iter_mut().map(allocations).max().unwrap_or(0);
    let mut rows = vec![
        bytes("connection, its machine", value).within(TARGET_BYTES),
        bytes("connection of SMC-D, machine, endpoint, group", value + smcd?).within(TARGET_BYTES),
        bytes("connection of SMC-R, machine, endpoint, group", value + smcr?).within(TARGET_BYTES),
        bytes("link group of SMC-D, without connections", smcd_group()?),
        bytes("link group of SMC-R, new, one link", smcr_group()),
        number("allocations in a CDC round", round).within(0),
    ];
    for case in handshake::cases()?.iter_mut().filter(|case| !case.on_new) {
        rows.push(number(&format!("allocations in {}", case.name), allocations(case)));
    }
    Ok(rows)
}

fn bytes(name: &str, bytes: u64) -> Row {
    Row::of_count(name, bytes, "B")
}

fn number(name: &str, count: u64) -> Row {
    Row::of_count(name, count, "")
}

/// Allocations in one of many repetitions.
fn allocations(case: &mut Case) -> u64 {
    case.repeat(MANY.into());
    heap::growth(|| case.repeat(MANY.into())).1.allocations.div_ceil(MANY.into())
}

/// Heap that an established connection takes at one end.
fn connection_in_endpoint(device: Device) -> Result<u64, String> {
    let mut hosts = Hosts::new(device)?;
    hosts.establish();
    let (all, Growth { bytes, .. }) = heap::growth(|| {
        (0..MANY).all(|_| matches!(hosts.establish(), [Some(Outcome::Established { .. }), _]))
    });
    if all { Ok(bytes / u64::from(MANY) / 2) } else { Err("a handshake failed".into()) }
}

fn smcd_group() -> Result<u64, String> {
    let mut groups = Groups::new(Limits::default());
    let mut stats = Stats::default();
    let (outcome, Growth { bytes, .. }) = heap::growth(|| {
        (1..=MANY).try_for_each(|n| {
            let gid = IsmGid { gid: n.into(), ext: n.into() };
            let peer = Peer::Smcd(SmcdPeer { device: DeviceId(1), emulated: true, gid });
            let ask = Ask { peer, role: Role::Server, version: Version::V2, vlan: 0 };
            let conn = ConnId(n.into());
            let joined = groups.join_server(conn, &ask).map_err(|error| error.to_string())?;
            groups.settle(joined.group);
            groups
                .leave(Instant(1), joined.group, conn, Fate::Reuse, &mut stats)
                .map_err(|error| error.to_string())
        })
    });
    outcome.map(|()| bytes / u64::from(MANY))
}

fn smcr_group() -> u64 {
    let (mac, gid) = (Mac([2, 0, 0, 0, 0, 1]), RoceGid([0xFE; 16]));
    let port = qp::Port { device: DeviceId(1), mac, gid, mtu: PathMtu::M1024 };
    let params = smcr::Params::new(smcr::Role::Server, llc::Version::V2, [1; 4], port);
    let (_group, Growth { bytes, .. }) = heap::growth(|| Box::new(LinkGroup::new(&params)));
    bytes
}
