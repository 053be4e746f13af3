// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The steps of random lives.
//!
//! Invariant: few peers, sizes and VLANs, so that steps meet.

use proptest::prelude::*;
use smc_proto::group::{
    Ask, BufferKind, Cause, Fate, LinkPeer, Peer, RegisterError, Role, Version,
};

use crate::engine::{link, native, smcd, smcr};

/// One step. Numbers choose among what is there, modulo how much there is.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Server(Ask),
    Client(Ask, bool),
    Acquire(usize, BufferKind, u32),
    Leave(usize, Fate),
    Terminate(usize, Cause),
    Shutdown(u64, u64, u16),
    PeerDevice(u64, u64),
    OwnDevice(u32),
    SetLink(usize, u32, Option<LinkPeer>),
    SetOpen(usize, bool),
    LinksGone(usize),
    Spoil(usize),
    Seconds(u64),
    /// A registration or zeroing that is under way comes to its end.
    Finish(usize, Option<RegisterError>),
}

fn a_link() -> impl Strategy<Value = LinkPeer> {
    (0..2u8, 0..2u8, 0..2u32).prop_map(|(gid, mac, qpn)| link(gid, mac, qpn))
}

fn an_ask(role: Role) -> impl Strategy<Value = Ask> {
    let version = prop_oneof![Just(Version::V1), Just(Version::V2)];
    let limited = move |(version, peer, link, max_conns)| {
        let mut ask = smcr(role, version, peer, link);
        if let Peer::Smcr(peer) = &mut ask.peer {
            peer.max_conns = max_conns;
        }
        ask
    };
    prop_oneof![
        (1..3u64, 1..3u64).prop_map(move |(gid, ext)| smcd(role, gid, ext)),
        (1..3u64, 5..7u16).prop_map(move |(gid, vlan)| native(role, gid, vlan)),
        (version, 0..2u8, a_link(), prop_oneof![Just(2u8), Just(255)]).prop_map(limited),
    ]
}

pub(crate) fn a_step() -> impl Strategy<Value = Step> {
    let which = 0..1000usize;
    let kind = prop_oneof![Just(BufferKind::Receive), Just(BufferKind::Send)];
    let size = prop_oneof![Just(1u32), Just(40_000), Just(65_536), Just(4 << 20)];
    let fate = prop_oneof![3 => Just(Fate::Reuse), 1 => Just(Fate::Discard)];
    let cause = prop_oneof![Just(Cause::Operator), Just(Cause::OutOfSync), Just(Cause::PeerGone)];
    let error = prop_oneof![
        5 => Just(None),
        1 => Just(Some(RegisterError::NoSpace)),
        1 => Just(Some(RegisterError::Refused)),
        1 => Just(Some(RegisterError::Never)),
    ];
    prop_oneof![
        4 => an_ask(Role::Server).prop_map(Step::Server),
        2 => (an_ask(Role::Client), any::<bool>()).prop_map(|(ask, first)| Step::Client(ask, first)),
        10 => (which.clone(), kind, size).prop_map(|(at, kind, size)| Step::Acquire(at, kind, size)),
        6 => (which.clone(), fate).prop_map(|(at, fate)| Step::Leave(at, fate)),
        1 => (which.clone(), cause).prop_map(|(at, cause)| Step::Terminate(at, cause)),
        1 => (1..3u64, 1..3u64, 0..2u16).prop_map(|(gid, ext, vlan)| Step::Shutdown(gid, ext, vlan)),
        1 => (1..3u64, 1..3u64).prop_map(|(gid, ext)| Step::PeerDevice(gid, ext)),
        1 => (1..4u32).prop_map(Step::OwnDevice),
        3 => (which.clone(), 0..3u32, prop::option::weighted(0.8, a_link()))
            .prop_map(|(at, number, end)| Step::SetLink(at, number, end)),
        1 => (which.clone(), any::<bool>()).prop_map(|(at, open)| Step::SetOpen(at, open)),
        2 => which.clone().prop_map(Step::LinksGone),
        1 => which.clone().prop_map(Step::Spoil),
        2 => (0..700u64).prop_map(Step::Seconds),
        12 => (which, error).prop_map(|(at, error)| Step::Finish(at, error)),
    ]
}
