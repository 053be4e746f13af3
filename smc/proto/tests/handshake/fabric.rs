// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The RoCE side of a pair: queue pairs that reach each other by number.

use std::collections::{BTreeMap, VecDeque};

use smc_proto::handshake::inventory::{PortGid, RocePort, RoceVersion};
use smc_proto::id::{DeviceId, GroupId};
use smc_proto::smcr::qp::QueuePair;
use smc_proto::smcr::{LinkId, Rtoken, Wish, WorkId};
use smc_wire::id::{Mac, Psn, Qpn, Rkey, RoceGid};
use smc_wire::size::PathMtu;

use crate::craft::gid_of;
use crate::pair::{IF, Pair};

/// Queue pairs and what is on its way between them.
#[derive(Debug, Default)]
pub(crate) struct Fabric {
    qps: BTreeMap<u32, Qp>,
    posted: VecDeque<Posted>,
    keys: u32,
    last_qpn: u32,
    pub(crate) faults: [RdmaFaults; 2],
}

/// Faults of one end.
#[derive(Debug, Default)]
pub(crate) struct RdmaFaults {
    pub(crate) no_qp: bool,
    pub(crate) no_mr: bool,
    /// Queue pairs cannot be made ready to receive.
    pub(crate) no_rtr: bool,
    /// What CONFIRM LINK says is cleared: the peer has eyecatchers in its RMBEs.
    pub(crate) eyecatchers: bool,
    /// Sends vanish.
    pub(crate) mute: bool,
}

#[derive(Debug)]
struct Qp {
    end: usize,
    group: GroupId,
    link: LinkId,
    dest: Option<u32>,
}

#[derive(Debug)]
struct Posted {
    from: u32,
    work: WorkId,
    message: Vec<u8>,
}

/// A RoCE port of host `n`: version 1 by its MAC, version 2 by an address.
pub(crate) fn port(n: u8, id: u32) -> RocePort {
    let mac = Mac([2, 0, 0, 0, n, id as u8]);
    let mut v1 = [0xFE; 16];
    v1[10..].copy_from_slice(&mac.0);
    let gid = |gid, version| PortGid { gid, version, interface: IF };
    RocePort {
        id: DeviceId(100 + id),
        adapter: format!("rxe{id}"),
        port: 1,
        mac,
        interface: Some(IF),
        pnetid: None,
        active: true,
        gids: vec![
            gid(RoceGid(v1), RoceVersion::V1),
            gid(gid_of([10, 0, id as u8 - 1, n]), RoceVersion::V2),
        ],
        mtu: PathMtu::M1024,
    }
}

impl Pair {
    /// Two hosts with a RoCE port each.
    pub(crate) fn roce() -> Self {
        let mut pair = Self::bare();
        for n in [0, 1] {
            pair.ends[n].endpoint.set_port(pair.now, port(n as u8 + 1, 1));
        }
        pair
    }

    /// Sets one end's versions of SMC-R.
    pub(crate) fn speak(&mut self, n: usize, v1: bool, v2: bool, release: u8) {
        let mut config = self.ends[n].endpoint.config().clone();
        config.smcr = smc_proto::config::Versions { v1, v2 };
        config.release = release;
        self.ends[n].endpoint.configure(config).unwrap();
    }

    pub(crate) fn carry_out_links(&mut self, n: usize, group: GroupId, wish: Wish) {
        let now = self.now;
        let fabric = &mut self.fabric;
        let endpoint = &mut self.ends[n].endpoint;
        match wish {
            Wish::CreateQp { .. } if fabric.faults[n].no_qp => {
                let Wish::CreateQp { link, .. } = wish else { return };
                endpoint.handle_qp_created(now, group, link, None);
            }
            Wish::CreateQp { link, .. } => {
                fabric.last_qpn += 1;
                let qpn = fabric.last_qpn;
                fabric.qps.insert(qpn, Qp { end: n, group, link, dest: None });
                let qp = QueuePair { qpn: Qpn(qpn), psn: Psn(qpn * 3) };
                endpoint.handle_qp_created(now, group, link, Some(qp));
            }
            Wish::ModifyRtr { link, .. } if fabric.faults[n].no_rtr => {
                endpoint.handle_qp_failed(now, group, link);
            }
            Wish::ModifyRtr { link, attributes } => {
                let qps = fabric.qps.values_mut();
                for qp in qps.filter(|qp| (qp.end, qp.group, qp.link) == (n, group, link)) {
                    qp.dest = Some(attributes.dest_qpn.0);
                }
            }
            Wish::RegisterMr { link, buffer } => {
                fabric.keys += 1;
                let rtoken = Rtoken { rkey: Rkey(fabric.keys), vaddr: u64::from(buffer.0) << 20 };
                let rtoken = (!fabric.faults[n].no_mr).then_some(rtoken);
                endpoint.handle_mr_registered(now, group, link, buffer, rtoken);
            }
            Wish::PostSend { link, work, message } => {
                let own = |(_, qp): &(&u32, &Qp)| (qp.end, qp.group, qp.link) == (n, group, link);
                let from = *fabric.qps.iter().find(own).unwrap().0;
                let mut message = message;
                if fabric.faults[n].eyecatchers && matches!(message[0], 0x01 | 0x21) {
                    message[3] &= 0x80;
                }
                if !fabric.faults[n].mute {
                    fabric.posted.push_back(Posted { from, work, message });
                }
            }
            Wish::Drain { link } => endpoint.handle_drained(now, group, link),
            Wish::DestroyQp { link } => {
                fabric.qps.retain(|_, qp| (qp.end, qp.group, qp.link) != (n, group, link));
            }
            _ => {}
        }
    }

    /// Moves one message between queue pairs, if one can be moved.
    pub(crate) fn deliver_rdma(&mut self) -> bool {
        let ready = |qps: &BTreeMap<u32, Qp>, from: u32| {
            let dest = qps.get(&from)?.dest?;
            qps.get(&dest).filter(|qp| qp.dest.is_some()).map(|_| dest)
        };
        let qps = &self.fabric.qps;
        let Some(at) = self.fabric.posted.iter().position(|it| ready(qps, it.from).is_some())
        else {
            return false;
        };
        let Posted { from, work, message } = self.fabric.posted.remove(at).unwrap();
        let to = ready(&self.fabric.qps, from).unwrap();
        let (from, to) = (&self.fabric.qps[&from], &self.fabric.qps[&to]);
        let now = self.now;
        self.ends[to.end].endpoint.handle_recv(now, to.group, to.link, &message);
        self.ends[from.end].endpoint.handle_sent(now, from.group, from.link, work, true);
        true
    }

    /// Gives a message to whatever queue pair end `n` has for its only group.
    pub(crate) fn inject_rdma(&mut self, n: usize, message: &[u8]) -> smc_proto::smcr::Received {
        let qp = self.fabric.qps.values().find(|qp| qp.end == n).unwrap();
        let (group, link) = (qp.group, qp.link);
        self.ends[n].endpoint.handle_recv(self.now, group, link, message)
    }
}
