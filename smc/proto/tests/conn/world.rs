// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two connections, their rings, and what is between them.
//!
//! Invariant: a wish is carried out exactly as its documentation says, or not at all where a link
//! broke.

use std::collections::VecDeque;
use std::time::Duration;

use smc_proto::Instant;
use smc_proto::conn::{
    AUTOCORK, Chunks, Connection, How, Params, Ready, Receipt, Ring, SendFlags, Sender, Wish, Write,
};
use smc_wire::cdc::{Smcd, Smcr};
use smc_wire::id::AlertToken;

pub(crate) const OOB: SendFlags = SendFlags { more: false, oob: true };
pub(crate) const MORE: SendFlags = SendFlags { more: true, oob: false };
pub(crate) const PLAIN: SendFlags = SendFlags { more: false, oob: false };

/// The two ends, A and B.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// How an end sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With a send ring of that many bytes.
    Copied(u32),
    Mapped,
    Rdma(u32),
}

/// What a queue pair has taken and not delivered.
#[derive(Debug, Clone)]
enum Posted {
    Write { to: usize, bytes: Vec<u8> },
    Message(Smcr, Receipt),
}

pub(crate) struct End {
    pub(crate) conn: Connection,
    pub(crate) kind: Kind,
    send: Vec<u8>,
    pub(crate) ring: Vec<u8>,
    /// What the peer wrote last into our area.
    pub(crate) area: Smcd,
    /// What is on the link, in order.
    posted: VecDeque<Posted>,
    /// Delivered, but not completed yet.
    uncompleted: VecDeque<Receipt>,
    /// CDCs that this end published, the latest last.
    pub(crate) cdcs: Vec<Smcd>,
    /// Numbers of the SMC-R messages among them.
    pub(crate) seqnos: Vec<u16>,
    pub(crate) woken: Ready,
    pub(crate) tcp: Vec<How>,
    pub(crate) tcp_aborted: bool,
    pub(crate) released: bool,
    /// Its ring serves another connection.
    pub(crate) reused: bool,
}

pub(crate) struct World {
    pub(crate) ends: [End; 2],
    /// Deliver all that is posted, and complete it, as soon as possible.
    pub(crate) prompt: bool,
    pub(crate) now: Instant,
}

fn ring(len: u32) -> Ring {
    Ring::new(len).unwrap()
}

impl End {
    fn new(kind: Kind, own: u32, peer: u32) -> Self {
        let sender = match kind {
            Kind::Copied(len) => Sender::Copied { ring: ring(len) },
            Kind::Mapped => Sender::Mapped,
            Kind::Rdma(len) => {
                Sender::Rdma { ring: ring(len), token: AlertToken(7), autocork: AUTOCORK }
            }
        };
        let send = match kind {
            Kind::Copied(len) | Kind::Rdma(len) => len as usize,
            Kind::Mapped => 0,
        };
        Self {
            conn: Connection::new(&Params { ring: ring(own), peer_ring: ring(peer), sender }),
            kind,
            send: vec![0; send],
            ring: vec![0; own as usize],
            area: Smcd::default(),
            posted: VecDeque::new(),
            uncompleted: VecDeque::new(),
            cdcs: Vec::new(),
            seqnos: Vec::new(),
            woken: Ready::NOTHING,
            tcp: Vec::new(),
            tcp_aborted: false,
            released: false,
            reused: false,
        }
    }
}

impl World {
    /// A has a ring of `rings.0` bytes, B one of `rings.1`.
    pub(crate) fn new(kinds: [Kind; 2], rings: (u32, u32)) -> Self {
        Self {
            ends: [End::new(kinds[0], rings.0, rings.1), End::new(kinds[1], rings.1, rings.0)],
            prompt: true,
            now: Instant(0),
        }
    }

    pub(crate) fn conn(&mut self, i: usize) -> &mut Connection {
        &mut self.ends[i].conn
    }

    /// Carries out all wishes of an end.
    pub(crate) fn run(&mut self, i: usize) {
        while let Some(wish) = self.ends[i].conn.poll_wish() {
            assert!(!self.ends[i].released, "a wish after the release: {wish:?}");
            self.carry_out(i, wish);
        }
    }

    fn carry_out(&mut self, i: usize, wish: Wish) {
        let rdma = matches!(self.ends[i].kind, Kind::Rdma(_));
        match wish {
            Wish::FetchUrgent { at } => {
                let byte = self.ends[i].ring[at as usize];
                self.ends[i].conn.handle_urgent_byte(byte);
            }
            Wish::Write(Write { from, to, len }) => {
                assert!(len > 0);
                let (from, to) = (from as usize, to as usize);
                let bytes = self.ends[i].send[from..from + len as usize].to_vec();
                assert!(to + bytes.len() <= self.ends[1 - i].ring.len(), "out of the ring");
                if rdma {
                    self.ends[i].posted.push_back(Posted::Write { to, bytes });
                } else {
                    assert!(!self.ends[1 - i].reused, "a write into another connection");
                    self.ends[1 - i].ring[to..to + bytes.len()].copy_from_slice(&bytes);
                }
            }
            Wish::PublishSmcd(area) => {
                assert!(!rdma && !self.ends[1 - i].reused, "a word into another connection");
                self.ends[1 - i].area = area;
                self.ends[i].cdcs.push(area);
            }
            Wish::PublishSmcr(message, receipt) => {
                assert!(rdma && message.token == AlertToken(7));
                let Smcr { prod, cons, flags, state, .. } = message;
                self.ends[i].cdcs.push(Smcd { prod, cons, flags, state });
                self.ends[i].seqnos.push(message.seqno);
                self.ends[i].posted.push_back(Posted::Message(message, receipt));
            }
            Wish::Wake(ready) => self.ends[i].woken |= ready,
            Wish::ShutdownTcp(how) => self.ends[i].tcp.push(how),
            Wish::AbortTcp => self.ends[i].tcp_aborted = true,
            Wish::Release => {
                self.ends[i].released = true;
                self.ends[i].reused = self.ends[i].conn.is_ring_reusable();
            }
        }
    }

    /// SMC-D: end `i` looks at its area.
    pub(crate) fn look(&mut self, i: usize) {
        let (prod, cons) = self.ends[i].area.to_halves();
        if !self.ends[i].released {
            self.ends[i].conn.handle_cdc_smcd(prod, cons);
        }
        self.run(i);
    }

    /// SMC-R: delivers up to `n` of what end `i` posted, and says how many there were.
    pub(crate) fn deliver(&mut self, i: usize, n: usize) -> usize {
        for done in 0..n {
            let Some(posted) = self.ends[i].posted.pop_front() else { return done };
            match posted {
                Posted::Write { to, bytes } => {
                    assert!(!self.ends[1 - i].reused, "a write into another connection");
                    self.ends[1 - i].ring[to..to + bytes.len()].copy_from_slice(&bytes);
                }
                Posted::Message(message, receipt) => {
                    self.ends[i].uncompleted.push_back(receipt);
                    if !self.ends[1 - i].released {
                        self.ends[1 - i].conn.handle_cdc_smcr(&message);
                        self.run(1 - i);
                    }
                }
            }
        }
        n
    }

    /// SMC-R: what end `i` posted is lost.
    pub(crate) fn drop_posted(&mut self, i: usize) {
        self.ends[i].posted.clear();
        self.ends[i].uncompleted.clear();
    }

    /// SMC-R: completes up to `n` of the messages that end `i` posted.
    pub(crate) fn complete(&mut self, i: usize, n: usize) {
        for _ in 0..n {
            let Some(receipt) = self.ends[i].uncompleted.pop_front() else { return };
            self.ends[i].conn.handle_completion(receipt);
            self.run(i);
        }
    }

    /// SMC-R: the link breaks. Of what end 0 and 1 had posted, that many are delivered; no more
    /// completions come.
    pub(crate) fn break_link(&mut self, delivered: [usize; 2]) {
        let mut old = Vec::new();
        for (i, delivered) in delivered.into_iter().enumerate() {
            self.deliver(i, delivered);
        }
        for end in &mut self.ends {
            end.posted.clear();
            old.extend(end.uncompleted.drain(..));
        }
        for i in [A, B] {
            if !self.ends[i].released {
                self.ends[i].conn.switch_link();
            }
        }
        for receipt in old {
            // Late completions of the old link say nothing.
            self.ends[A].conn.handle_completion(receipt);
            self.ends[B].conn.handle_completion(receipt);
        }
        for i in [A, B] {
            self.run(i);
        }
    }

    /// What end `i` published gets to the other one.
    pub(crate) fn look_or_deliver(&mut self, i: usize) {
        if matches!(self.ends[i].kind, Kind::Rdma(_)) {
            self.deliver(i, usize::MAX);
            self.complete(i, usize::MAX);
        } else {
            self.look(1 - i);
        }
    }

    /// Runs both ends until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..64 {
            for i in [A, B] {
                self.run(i);
                self.look_or_deliver(i);
            }
        }
    }

    fn prompt(&mut self) {
        if self.prompt {
            self.settle();
        }
    }

    /// The application of end `i` sends, as far as there is room.
    pub(crate) fn send(&mut self, i: usize, bytes: &[u8], flags: SendFlags) -> usize {
        let Ok(room) = self.ends[i].conn.send_room() else { return 0 };
        let n = bytes.len().min(room.total() as usize);
        let mapped = self.ends[i].kind == Kind::Mapped;
        let target = if mapped { &mut self.ends[1 - i].ring } else { &mut self.ends[i].send };
        let [first, second] = room.ranges();
        for (at, byte) in first.chain(second).zip(&bytes[..n]) {
            target[at] = *byte;
        }
        let oob = flags.oob && n == bytes.len();
        self.ends[i].conn.commit(n as u32, SendFlags { oob, ..flags });
        self.run(i);
        self.prompt();
        n
    }

    fn bytes(&self, i: usize, chunks: Chunks, max: usize) -> Vec<u8> {
        let [first, second] = chunks.ranges();
        first.chain(second).take(max).map(|at| self.ends[i].ring[at]).collect()
    }

    /// The application of end `i` reads once.
    pub(crate) fn recv(&mut self, i: usize, max: usize) -> Vec<u8> {
        let bytes = self.bytes(i, self.ends[i].conn.readable(0), max);
        self.ends[i].conn.consume(bytes.len() as u32);
        self.run(i);
        self.prompt();
        bytes
    }

    /// The application of end `i` reads until there is no more.
    pub(crate) fn recv_all(&mut self, i: usize) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let some = self.recv(i, usize::MAX);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// The application of end `i` peeks, `peeked` bytes having been peeked at.
    pub(crate) fn peek(&self, i: usize, peeked: u32) -> Vec<u8> {
        self.bytes(i, self.ends[i].conn.readable(peeked), usize::MAX)
    }

    pub(crate) fn shutdown(&mut self, i: usize, how: How) {
        let now = self.now;
        self.ends[i].conn.shutdown(now, how, Duration::from_secs(2)).unwrap();
        self.run(i);
        self.prompt();
    }

    /// A shutdown of writing that is not carried out yet.
    pub(crate) fn shutdown_later(&mut self, i: usize) {
        let now = self.now;
        self.ends[i].conn.shutdown(now, How::Write, Duration::from_secs(2)).unwrap();
    }

    pub(crate) fn close(&mut self, i: usize) {
        let now = self.now;
        self.ends[i].conn.close(now, Duration::from_secs(2));
        self.run(i);
        self.prompt();
    }

    /// The CDC that end `i` published last.
    pub(crate) fn last(&self, i: usize) -> Smcd {
        *self.ends[i].cdcs.last().unwrap()
    }
}

/// Bytes that tell their place in a stream.
pub(crate) fn stream(from: usize, n: usize) -> Vec<u8> {
    (from..from + n).map(|at| (at % 251) as u8).collect()
}
