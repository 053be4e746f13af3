// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What applications do with their sockets.
//!
//! Invariant: an application never waits: what cannot be done now is not done.

use smc_proto::conn::{How, LINGER, SendError, SendFlags};
use smc_proto::endpoint::Path;

use crate::coverage::Kind;
use crate::model::End;
use crate::socket::Phase;
use crate::world::{Event, World};

impl World {
    /// `send` of `bytes`, as far as there is room.
    pub(crate) fn send(&mut self, conn: usize, side: usize, bytes: u32, more: bool) {
        self.send_with(conn, side, bytes, SendFlags { more, oob: false });
    }

    /// `send(MSG_OOB)`.
    pub(crate) fn send_urgent(&mut self, conn: usize, side: usize, bytes: u16) {
        if matches!(self.pairs[conn].sides[side].phase, Phase::Smc(_)) {
            self.send_with(conn, side, bytes.into(), SendFlags { more: false, oob: true });
        }
    }

    fn send_with(&mut self, conn: usize, side: usize, bytes: u32, flags: SendFlags) {
        let pair = &mut self.pairs[conn];
        let outgoing = pair.streams[side].outgoing(bytes as usize);
        match &mut pair.sides[side].phase {
            Phase::Plain(_) => {
                pair.streams[side].accepted(outgoing.len(), false);
                self.tcp_send(conn, side, outgoing);
            }
            Phase::Smc(smc) => match smc.conn.send_room() {
                Ok(_) => self.fill(conn, side, &outgoing, flags),
                Err(SendError::Shutdown) => {}
                Err(SendError::Reset) => {
                    let broken = pair.streams[side].broken().is_some();
                    let judged = broken.then_some(()).ok_or("send: a reset, and nothing broke");
                    self.judge(conn, judged.map_err(str::to_owned));
                }
            },
            Phase::Handshake | Phase::Over => {}
        }
    }

    /// Puts bytes where there is room, again and again until there is none.
    fn fill(&mut self, conn: usize, side: usize, outgoing: &[u8], flags: SendFlags) {
        let mut rest = outgoing;
        while !rest.is_empty() {
            let host = self.pairs[conn].sides[side].host;
            let gid = self.hosts[host].gid;
            let pair = &mut self.pairs[conn];
            let Some(smc) = pair.sides[side].smc() else { return };
            let Ok(room) = smc.conn.send_room() else { return };
            let n = rest.len().min(room.total() as usize);
            if n == 0 {
                return;
            }
            let (now, later) = rest.split_at(n);
            let mut at = 0;
            for range in room.ranges() {
                let part = &now[at..now.len().min(at + range.len())];
                at += part.len();
                match &smc.established.path {
                    Path::Copied { .. } | Path::Rdma { .. } => {
                        smc.send[range.start..range.start + part.len()].copy_from_slice(part);
                    }
                    Path::Mapped { peer, .. } => {
                        let place = peer.ring_offset() as usize + range.start;
                        // A mapping that was revoked takes stores, and nobody sees them.
                        let _ = self.ism.write(gid, peer.token(), place, part);
                    }
                }
            }
            // Only the last piece has the urgent byte.
            let oob = flags.oob && later.is_empty();
            let more = flags.more || !later.is_empty();
            smc.conn.commit(u32::try_from(n).unwrap_or(u32::MAX), SendFlags { more, oob });
            pair.streams[side].accepted(n, oob);
            rest = later;
            self.pump();
        }
    }

    /// Sends what `MSG_MORE` held back.
    pub(crate) fn flush(&mut self, conn: usize, side: usize) {
        if let Some(smc) = self.pairs[conn].sides[side].smc() {
            smc.conn.flush();
        }
    }

    /// `recv` of up to `bytes`.
    pub(crate) fn receive(&mut self, conn: usize, side: usize, bytes: u32, peek: bool) {
        loop {
            let before = self.pairs[conn].streams[1 - side].progress().1;
            self.receive_once(conn, side, bytes, peek);
            self.pump();
            let more = self.pairs[conn].streams[1 - side].progress().1 > before;
            if bytes != u32::MAX || peek || !more {
                return;
            }
        }
    }

    fn receive_once(&mut self, conn: usize, side: usize, bytes: u32, peek: bool) {
        if !self.take_late(conn, side) {
            return;
        }
        let pair = &mut self.pairs[conn];
        let (got, end) = match &mut pair.sides[side].phase {
            Phase::Plain(inbox) => {
                let n = inbox.len().min(bytes as usize);
                let got = inbox[..n].to_vec();
                if !peek {
                    inbox.drain(..n);
                }
                (got, None)
            }
            Phase::Smc(smc) => {
                let chunks = smc.conn.readable(0);
                let n = chunks.total().min(bytes);
                let mut got = Vec::new();
                for range in chunks.ranges() {
                    let len = range.len().min(n as usize - got.len());
                    match self.ring(conn, side, range.start, len) {
                        Some(part) => got.extend(part),
                        None => break,
                    }
                }
                let Some(smc) = self.pairs[conn].sides[side].smc() else { return };
                if !peek {
                    smc.conn.consume(u32::try_from(got.len()).unwrap_or(u32::MAX));
                }
                let none_left = got.is_empty() && chunks.total() == 0;
                let end = match smc.conn.take_error() {
                    Some(_) if none_left => Some(End::Reset),
                    _ if none_left && smc.conn.unread() == 0 && smc.conn.is_read_shut() => {
                        Some(End::Eof)
                    }
                    _ => None,
                };
                (got, end)
            }
            Phase::Handshake | Phase::Over => return,
        };
        let judged = self.pairs[conn].streams[1 - side].received(&got, peek);
        self.judge(conn, judged.map_err(|what| format!("side {side}: {what}")));
        match end {
            Some(End::Reset) => self.reset(conn, side),
            Some(End::Eof) if !self.pairs[conn].sides[side].ended => {
                self.pairs[conn].sides[side].ended = true;
                let judged = self.pairs[conn].streams[1 - side].ended(End::Eof);
                self.judge(conn, judged.map_err(|what| format!("side {side}: {what}")));
            }
            _ => {}
        }
    }

    /// `recv(MSG_OOB)`.
    pub(crate) fn receive_urgent(&mut self, conn: usize, side: usize) {
        let pair = &mut self.pairs[conn];
        if let Some(smc) = pair.sides[side].smc()
            && let Ok(byte) = smc.conn.take_urgent(false)
        {
            self.coverage.saw(Kind::Message, "an urgent byte was read");
            let judged = self.pairs[conn].streams[1 - side].received_urgent(byte);
            self.judge(conn, judged);
        }
    }

    /// `shutdown(SHUT_WR)`.
    pub(crate) fn half_close(&mut self, conn: usize, side: usize) {
        let now = self.now();
        let pair = &mut self.pairs[conn];
        // TCP's own half close is not what this is about.
        let Some(smc) = pair.sides[side].smc() else { return };
        if smc.conn.shutdown(now, How::Write, LINGER).is_ok() {
            pair.streams[side].finish();
        }
    }

    /// `close`.
    pub(crate) fn close(&mut self, conn: usize, side: usize) {
        let now = self.now();
        let pair = &mut self.pairs[conn];
        pair.sides[side].closed = true;
        pair.streams[side].finish();
        pair.streams[1 - side].break_for("the receiver closed");
        let host = pair.sides[side].host;
        match &mut pair.sides[side].phase {
            Phase::Smc(smc) => {
                if smc.conn.unread() > 0 {
                    pair.streams[side].break_for("the sender closed with bytes unread");
                }
                if let Some(smc) = pair.sides[side].smc() {
                    smc.conn.close(now, LINGER);
                }
            }
            Phase::Handshake => {
                let id = pair.sides[side].id;
                pair.break_for("closed during the handshake");
                pair.sides[side].phase = Phase::Over;
                let endpoint = &mut self.hosts[host].endpoint;
                endpoint.release(now, id, smc_proto::group::Fate::Discard);
                self.tcp_abort(conn, side);
            }
            Phase::Plain(_) => pair.sides[side].phase = Phase::Over,
            Phase::Over => {}
        }
    }

    /// TCP takes bytes to the other side, in order and in pieces.
    pub(crate) fn tcp_send(&mut self, conn: usize, side: usize, bytes: Vec<u8>) {
        let cut = match bytes.len() {
            2.. if self.random.u8(..4) == 0 => self.random.usize(1..bytes.len()),
            len => len,
        };
        let (first, second) = bytes.split_at(cut);
        for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
            let time = self.now().after(self.delay()).max(self.tcp_free[conn][side]);
            self.tcp_free[conn][side] = time;
            self.schedule.at(time, Event::Tcp { conn, side: 1 - side, bytes: part.to_vec() });
        }
    }

    /// A side resets its TCP connection.
    pub(crate) fn tcp_abort(&mut self, conn: usize, side: usize) {
        let time = self.now().after(self.delay()).max(self.tcp_free[conn][side]);
        self.schedule.at(time, Event::TcpReset { conn, side: 1 - side });
    }
}
