// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reliable-connected queue pair under a link: what both ends tell each other, and the attributes
//! that follow.
//!
//! Invariant: attributes depend on the two ports, the two queue pairs and the gateway, on nothing else
//! (`smc_ib.c:62-115`).

use smc_wire::id::{Mac, Psn, Qpn, RoceGid};

use crate::id::DeviceId;

/// Local acknowledge timeout: 4.096 µs * 2^15, some 134 ms (`SMC_QP_TIMEOUT`).
pub const TIMEOUT: u8 = 15;
/// Repetitions of a packet that was not acknowledged (`SMC_QP_RETRY_CNT`).
pub const RETRY_COUNT: u8 = 7;
/// Repetitions after "receiver not ready"; 7 means for ever (`SMC_QP_RNR_RETRY`).
pub const RNR_RETRY: u8 = 7;
/// How long the peer waits after "receiver not ready", in InfiniBand's code (`SMC_QP_MIN_RNR_TIMER`).
pub const MIN_RNR_TIMER: u8 = 5;
/// Hops that a packet may take within a subnet.
pub const HOPS_DIRECT: u8 = 1;
/// Hops that a packet may take when a gateway lies between (`IPV6_DEFAULT_HOPLIMIT`).
pub const HOPS_GATEWAY: u8 = 64;

pub use smc_wire::size::PathMtu;

/// A RoCE port of ours that may carry links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Which one.
    pub device: DeviceId,
    /// Its MAC address.
    pub mac: Mac,
    /// Its GID for this link group's VLAN and, in version 2, for its IP address.
    pub gid: RoceGid,
    /// The MTU that is active on it.
    pub mtu: PathMtu,
}

/// A queue pair of ours, as the caller created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePair {
    /// Its number.
    pub qpn: Qpn,
    /// The number of the first packet that it will send; random.
    pub psn: Psn,
}

/// The other end of a link: what Accept, Confirm or ADD_LINK says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerEnd {
    /// The queue pair's number.
    pub qpn: Qpn,
    /// The number of the first packet that it will send.
    pub psn: Psn,
    /// The port's GID.
    pub gid: RoceGid,
    /// The port's MAC address.
    pub mac: Mac,
    /// The port's MTU.
    pub mtu: PathMtu,
}

/// Attributes for "initialised" and "ready to receive" (`smc_ib_modify_qp_init`, `..._rtr`).
///
/// The queue pair is of type RC, has P_Key index 0 and lets the peer write local memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rtr {
    /// The smaller one of both ports' MTUs.
    pub path_mtu: PathMtu,
    /// The peer's queue pair.
    pub dest_qpn: Qpn,
    /// The first packet number that the peer will send.
    pub rq_psn: Psn,
    /// The peer's GID.
    pub dgid: RoceGid,
    /// The MAC address to send to: the peer's, or the gateway's.
    pub dmac: Mac,
    /// [`HOPS_DIRECT`] or [`HOPS_GATEWAY`].
    pub hop_limit: u8,
    /// [`MIN_RNR_TIMER`].
    pub min_rnr_timer: u8,
    /// RDMA reads and atomics that the peer may have under way: 1, though SMC uses none.
    pub max_dest_rd_atomic: u8,
}

/// Attributes for "ready to send" (`smc_ib_modify_qp_rts`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rts {
    /// The first packet number that this side sends.
    pub sq_psn: Psn,
    /// [`TIMEOUT`].
    pub timeout: u8,
    /// [`RETRY_COUNT`].
    pub retry_count: u8,
    /// [`RNR_RETRY`].
    pub rnr_retry: u8,
    /// RDMA reads and atomics under way: 1, though SMC uses none.
    pub max_rd_atomic: u8,
}

/// What makes a queue pair on `port` receive from `peer`, through `gateway` if there is one.
pub fn rtr(port: &Port, peer: &PeerEnd, gateway: Option<Mac>) -> Rtr {
    Rtr {
        path_mtu: port.mtu.min(peer.mtu),
        dest_qpn: peer.qpn,
        rq_psn: peer.psn,
        dgid: peer.gid,
        dmac: gateway.unwrap_or(peer.mac),
        hop_limit: if gateway.is_some() { HOPS_GATEWAY } else { HOPS_DIRECT },
        min_rnr_timer: MIN_RNR_TIMER,
        max_dest_rd_atomic: 1,
    }
}

/// What makes `qp` send.
pub fn rts(qp: &QueuePair) -> Rts {
    Rts {
        sq_psn: qp.psn,
        timeout: TIMEOUT,
        retry_count: RETRY_COUNT,
        rnr_retry: RNR_RETRY,
        max_rd_atomic: 1,
    }
}
