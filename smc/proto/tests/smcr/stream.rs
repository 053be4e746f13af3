// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection that sends in one direction, with the least that SMC-R demands of it: write, then
//! CDC; rewind and validate when it is moved.
//!
//! Invariant: the receiver believes a CDC only if the bytes that it tells of are in its RMB.

use smc_proto::id::{BufferId, ConnId};
use smc_proto::smcr::route::{Chunk, Work};
use smc_proto::smcr::{LinkId, Route, RtokenIndex};
use smc_wire::cdc::{Cursor, ProducerFlags, Smcr};
use smc_wire::id::AlertToken;

use crate::fabric::World;
use crate::host::{CLIENT, Item, SERVER, Side};

/// Sends that may be under way.
const WINDOW: usize = 3;
const CHUNK: usize = 100;

pub(crate) struct Stream {
    pub(crate) from: Side,
    pub(crate) conn: ConnId,
    /// The connection's name on each side.
    pub(crate) ends: [ConnId; 2],
    pub(crate) token: AlertToken,
    /// The receiver's RMB, and the sender's name for it.
    pub(crate) rmb: BufferId,
    pub(crate) index: RtokenIndex,
    pub(crate) route: Route,
    /// The link that it was moved to last.
    pub(crate) told: LinkId,
    data: Vec<u8>,
    sent: usize,
    completed: usize,
    pub(crate) seqno: u16,
    completed_seqno: u16,
    under_way: Vec<(u16, usize)>,
    pub(crate) killed: bool,
    // The receiver's side.
    seen: u16,
    pub(crate) received: usize,
    pub(crate) aborted: bool,
    pub(crate) moves: usize,
}

impl Stream {
    /// Bytes still to be sent or to be completed.
    pub(crate) fn is_done(&self) -> bool {
        self.completed == self.data.len() && self.received == self.data.len()
    }

    /// The next bytes with their work requests.
    pub(crate) fn next(&mut self) -> Option<(Vec<u8>, Vec<Work>)> {
        if self.under_way.len() >= WINDOW || self.sent == self.data.len() {
            return None;
        }
        let end = self.data.len().min(self.sent + CHUNK);
        let bytes = self.data[self.sent..end].to_vec();
        let (from, len) = (u32::try_from(self.sent).unwrap(), u32::try_from(bytes.len()).unwrap());
        self.sent = end;
        self.seqno = self.seqno.wrapping_add(1);
        self.under_way.push((self.seqno, end));
        let prod = Cursor { wrap: 0, count: u32::try_from(end).unwrap() };
        let cdc = Smcr { seqno: self.seqno, token: self.token, prod, ..Smcr::default() };
        let chunks = [Chunk { from, to: from, len }];
        Some((bytes, self.route.publish(&chunks, &cdc).collect()))
    }

    /// A CDC has completed.
    pub(crate) fn completed(&mut self, link: LinkId, seqno: u16) {
        let at = self.under_way.iter().position(|(under_way, _)| *under_way == seqno);
        if let Some(at) = at.filter(|_| link == self.route.link) {
            let (seqno, end) = self.under_way.remove(at);
            self.completed = end;
            self.completed_seqno = seqno;
        }
    }

    /// The connection has another link: rewinds, and gives the validation.
    pub(crate) fn moved(&mut self, at: usize, route: Option<Route>) -> Vec<Item> {
        self.moves += 1;
        self.under_way.clear();
        self.sent = self.completed;
        let Some(route) = route else {
            self.killed = true;
            return Vec::new();
        };
        self.route = route;
        let mut bytes = [0; Smcr::LEN];
        Smcr::validation(self.completed_seqno, self.token).emit(&mut bytes).unwrap();
        vec![Item::Cdc { stream: at, seqno: self.completed_seqno, bytes: bytes.to_vec() }]
    }

    /// The receiver gets a CDC (`smc_cdc_rx_handler`).
    pub(crate) fn take(&mut self, cdc: &Smcr, memory: &[u8]) {
        let ahead = cdc.seqno.wrapping_sub(self.seen).cast_signed();
        if cdc.flags.contains(ProducerFlags::FAILOVER_VALIDATION) {
            self.aborted |= ahead > 0;
        } else if ahead > 0 {
            self.seen = cdc.seqno;
            self.received = cdc.prod.count as usize;
            assert_eq!(memory[..self.received], self.data[..self.received], "CDC before its data");
        }
    }
}

impl World {
    /// Begins to send `len` bytes from one side, as a connection that came after the first contact.
    ///
    /// `rmb` is the receiver's, shared already.
    pub(crate) fn send(&mut self, from: Side, rmb: BufferId, len: usize) -> usize {
        let n = u32::try_from(self.streams.len()).unwrap() + 1;
        let to = 1 - from;
        let ends = [ConnId(n), ConnId(n + 1000)];
        let server_link = self.group(SERVER).join(ends[SERVER]).unwrap();
        let end = self.group(SERVER).link(server_link).unwrap();
        let (qpn, port) = (end.qp.unwrap().qpn, end.port);
        let client = self.group(CLIENT);
        let client_link = client.join_on(ends[CLIENT], qpn, port.gid, port.mac).unwrap();
        let links = [server_link, client_link];
        let rtoken = self.group(to).local_rtoken(rmb, links[to]).unwrap();
        let index = self.group(from).add_rtoken(links[from], rtoken).unwrap();
        let route = self.group(from).route(ends[from], index).unwrap();
        let data: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256).to_le_bytes()[0]).collect();
        self.streams.push(Stream {
            from,
            conn: ends[from],
            ends,
            token: AlertToken(n),
            rmb,
            index,
            route,
            told: route.link,
            data,
            sent: 0,
            completed: 0,
            seqno: 0,
            completed_seqno: 0,
            under_way: Vec::new(),
            killed: false,
            seen: 0,
            received: 0,
            aborted: false,
            moves: 0,
        });
        let at = self.streams.len() - 1;
        self.push_stream(at);
        at
    }
}
