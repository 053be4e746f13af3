// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! RoCE between the ends: reliable-connected queue pairs and memory regions.
//!
//! Invariant: a queue pair delivers what was posted in order, each once, or fails it and all that is
//! behind it; a write lands only in memory registered for the link that it comes by.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::conn::Receipt;
use smc_proto::id::{BufferId, DeviceId, GroupId};
use smc_proto::smcr::qp::{QueuePair, Rtr, Rts};
use smc_proto::smcr::{LinkId, Rtoken, WorkId};
use smc_wire::id::{Psn, Qpn, Rkey};

/// How long a queue pair repeats a packet for a peer that does not answer.
pub(crate) const RETRIES: Duration = Duration::from_secs(1);
/// Sends under way on a queue pair, at most (`net.smc.smcr_max_send_wr`).
pub(crate) const SLOTS: usize = 16;

/// A link of a group at an end.
pub(crate) type Place = (usize, GroupId, LinkId);

/// A work request.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// A send of a link group.
    Llc { work: WorkId, bytes: Vec<u8> },
    /// An RDMA write of a connection.
    Write { rkey: Rkey, address: u64, bytes: Vec<u8> },
    /// A send of a connection's side.
    Cdc { conn: usize, side: usize, receipt: Receipt, bytes: Vec<u8> },
}

/// One end's queue pair.
#[derive(Debug)]
pub(crate) struct Qp {
    pub(crate) place: Place,
    pub(crate) port: DeviceId,
    pub(crate) rtr: Option<Rtr>,
    pub(crate) rts: Option<Rts>,
    pub(crate) failed: bool,
    /// A CONFIRM LINK was answered on it: the link carries connections.
    pub(crate) confirmed: bool,
    /// Posted, not on the wire yet.
    pub(crate) queue: VecDeque<Work>,
    /// Sends that have not completed.
    pub(crate) sends: usize,
    pub(crate) drain: bool,
    /// When the next thing leaves, and when the next one completes, at the earliest.
    pub(crate) free: [Instant; 2],
}

/// Memory that a peer may write by one link.
#[derive(Debug)]
struct Region {
    place: Place,
    buffer: BufferId,
    address: u64,
}

/// All queue pairs and memory regions.
#[derive(Debug, Default)]
pub(crate) struct Roce {
    pub(crate) qps: BTreeMap<u32, Qp>,
    regions: BTreeMap<u32, Region>,
    /// Bytes of the RMBs, by end and name.
    pub(crate) rmbs: BTreeMap<(usize, BufferId), Vec<u8>>,
    names: u32,
}

impl Roce {
    fn name(&mut self) -> u32 {
        self.names += 1;
        self.names
    }

    /// A new queue pair.
    pub(crate) fn create(&mut self, place: Place, port: DeviceId) -> QueuePair {
        let qpn = self.name();
        let qp = Qp {
            place,
            port,
            rtr: None,
            rts: None,
            failed: false,
            confirmed: false,
            queue: VecDeque::new(),
            sends: 0,
            drain: false,
            free: [Instant(0); 2],
        };
        self.qps.insert(qpn, qp);
        QueuePair { qpn: Qpn(qpn), psn: Psn(qpn * 7) }
    }

    /// The number of a link's queue pair.
    pub(crate) fn number(&self, place: Place) -> Option<u32> {
        self.qps.iter().find(|(_, qp)| qp.place == place).map(|(qpn, _)| *qpn)
    }

    /// A link's queue pair.
    pub(crate) fn qp(&mut self, place: Place) -> Option<&mut Qp> {
        self.qps.values_mut().find(|qp| qp.place == place)
    }

    /// Destroys a link's queue pair and its memory regions.
    pub(crate) fn destroy(&mut self, place: Place) {
        self.qps.retain(|_, qp| qp.place != place);
        self.regions.retain(|_, region| region.place != place);
    }

    /// An end is gone.
    pub(crate) fn remove(&mut self, host: usize) {
        self.qps.retain(|_, qp| qp.place.0 != host);
        self.regions.retain(|_, region| region.place.0 != host);
        self.rmbs.retain(|(owner, _), _| *owner != host);
    }

    /// Registers a buffer for a link; send buffers are no one else's to write.
    pub(crate) fn register(&mut self, place: Place, buffer: BufferId) -> Rtoken {
        let rkey = self.name();
        let address = u64::from(rkey) << 32;
        self.regions.insert(rkey, Region { place, buffer, address });
        Rtoken { rkey: Rkey(rkey), vaddr: address }
    }

    /// Takes a registration back.
    pub(crate) fn deregister(&mut self, place: Place, buffer: BufferId) {
        self.regions.retain(|_, region| region.place != place || region.buffer != buffer);
    }

    /// The queue pair that `qpn` is connected with, if both are connected with one another.
    pub(crate) fn peer(&self, qpn: u32) -> Option<u32> {
        let here = self.qps.get(&qpn)?;
        let rtr = here.rtr.filter(|_| here.rts.is_some() && !here.failed)?;
        let there = self.qps.get(&rtr.dest_qpn.0).filter(|qp| !qp.failed)?;
        let back = there.rtr?;
        (back.dest_qpn.0 == qpn && back.path_mtu == rtr.path_mtu).then_some(rtr.dest_qpn.0)
    }

    /// Whether a group has a link at an end that carries connections, but for those `without`; `up` says
    /// which ports are.
    pub(crate) fn carries(
        &self,
        (host, group): (usize, GroupId),
        without: impl Fn(u32, &Qp) -> bool,
        up: impl Fn(&Qp) -> bool,
    ) -> bool {
        self.qps.iter().any(|(&qpn, qp)| {
            let ours = (qp.place.0, qp.place.1) == (host, group) && qp.confirmed;
            let peer = self.peer(qpn).and_then(|peer| Some((peer, self.qps.get(&peer)?)));
            ours && !without(qpn, qp)
                && up(qp)
                && peer.is_some_and(|(qpn, peer)| !without(qpn, peer) && up(peer))
        })
    }

    /// A write comes by the queue pair `to`; whether it may.
    pub(crate) fn write(&mut self, to: u32, rkey: Rkey, address: u64, bytes: &[u8]) -> bool {
        let Some(region) = self.regions.get(&rkey.0) else { return false };
        let by = self.qps.get(&to).map(|qp| qp.place);
        let offset = address.checked_sub(region.address).and_then(|it| usize::try_from(it).ok());
        let (Some(offset), true) = (offset, by == Some(region.place)) else { return false };
        let Some(rmb) = self.rmbs.get_mut(&(region.place.0, region.buffer)) else { return false };
        match rmb.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}
