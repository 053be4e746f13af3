// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The RoCE side of a host: queue pairs that reach the other host's by their numbers, at once.
//!
//! Invariant: a message arrives once, after both its queue pairs are ready.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use smc_proto::Instant;
use smc_proto::endpoint::Endpoint;
use smc_proto::handshake::inventory::{InterfaceId, PortGid, RocePort, RoceVersion};
use smc_proto::id::{DeviceId, GroupId};
use smc_proto::smcr::qp::QueuePair;
use smc_proto::smcr::{LinkId, Rtoken, Wish, WorkId};
use smc_wire::id::{Mac, Psn, Qpn, Rkey, RoceGid};
use smc_wire::size::PathMtu;

/// A host's queue pairs, and what it posted.
pub(super) struct Adapter {
    qps: Vec<Qp>,
    posted: VecDeque<Posted>,
    last: u32,
}

struct Qp {
    number: Qpn,
    group: GroupId,
    link: LinkId,
    /// Whom it is connected to.
    to: Option<Qpn>,
}

struct Posted {
    group: GroupId,
    link: LinkId,
    work: WorkId,
    message: Vec<u8>,
}

/// The port of host `n`.
pub(super) fn port(n: u8, interface: InterfaceId) -> RocePort {
    let gid = RoceGid(Ipv4Addr::new(10, 0, 0, n).to_ipv6_mapped().octets());
    RocePort {
        id: DeviceId(2),
        adapter: "rxe0".into(),
        port: 1,
        mac: Mac([2, 0, 0, 0, 0, n]),
        interface: Some(interface),
        pnetid: None,
        active: true,
        gids: vec![PortGid { gid, version: RoceVersion::V2, interface }],
        mtu: PathMtu::M1024,
    }
}

impl Adapter {
    pub(super) fn new() -> Self {
        Self { qps: Vec::with_capacity(2), posted: VecDeque::with_capacity(4), last: 0 }
    }

    /// Does what a link group wishes.
    pub(super) fn carry_out(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        group: GroupId,
        wish: Wish,
    ) {
        match wish {
            Wish::CreateQp { link, .. } => {
                let number = Qpn(self.next());
                self.qps.push(Qp { number, group, link, to: None });
                let qp = QueuePair { qpn: number, psn: Psn(1) };
                endpoint.handle_qp_created(now, group, link, Some(qp));
            }
            Wish::ModifyRtr { link, attributes } => {
                if let Some(qp) = self.qps.iter_mut().find(|qp| qp.is(group, link)) {
                    qp.to = Some(attributes.dest_qpn);
                }
            }
            Wish::RegisterMr { link, buffer } => {
                let rtoken = Rtoken { rkey: Rkey(self.next()), vaddr: u64::from(buffer.0) << 20 };
                endpoint.handle_mr_registered(now, group, link, buffer, Some(rtoken));
            }
            Wish::PostSend { link, work, message } => {
                self.posted.push_back(Posted { group, link, work, message });
            }
            Wish::Drain { link } => endpoint.handle_drained(now, group, link),
            Wish::DestroyQp { link } => self.qps.retain(|qp| !qp.is(group, link)),
            _ => {}
        }
    }

    /// Takes the oldest message to its queue pair at the `peer`, whose number and link it gives.
    pub(super) fn send(&mut self, peer: &Self) -> Option<Arrival> {
        let Posted { group, link, .. } = self.posted.front()?;
        let to = self.qps.iter().find(|qp| qp.is(*group, *link))?.to?;
        let at = peer.qps.iter().find(|qp| qp.number == to && qp.to.is_some())?;
        let (to_group, to_link) = (at.group, at.link);
        let Posted { group, link, work, message } = self.posted.pop_front()?;
        Some(Arrival { to_group, to_link, group, link, work, message })
    }

    fn next(&mut self) -> u32 {
        self.last += 1;
        self.last
    }
}

/// A message that arrives.
pub(super) struct Arrival {
    to_group: GroupId,
    to_link: LinkId,
    group: GroupId,
    link: LinkId,
    work: WorkId,
    message: Vec<u8>,
}

impl Arrival {
    /// Tells the receiver, then the sender.
    pub(super) fn tell(self, now: Instant, from: &mut Endpoint, to: &mut Endpoint) {
        let Self { to_group, to_link, group, link, work, message } = self;
        // It is a case's check that the handshake succeeds, so that nothing is dropped here.
        let _ = to.handle_recv(now, to_group, to_link, &message);
        from.handle_sent(now, group, link, work, true);
    }
}

impl Qp {
    fn is(&self, group: GroupId, link: LinkId) -> bool {
        self.group == group && self.link == link
    }
}
