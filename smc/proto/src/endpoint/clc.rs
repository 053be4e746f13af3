// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CLC messages that come.
//!
//! Invariant: takes whole messages out of the stream, one at a time, and nothing that follows
//! (`smc_clc_wait_msg`).

use std::net::IpAddr;

use smc_wire::clc::{Decline, Diagnosis, Frame, Message, frame};

use super::Endpoint;
use super::state::{Handshake, State};
use crate::Instant;
use crate::group::Cause;
use crate::handshake::reason::{End, Failure, Kind, Reason};
use crate::id::{ConnId, GroupId};

/// What each CLC message begins with.
const EYECATCHERS: [[u8; 4]; 2] = [[0xE2, 0xD4, 0xC3, 0xC4], [0xE2, 0xD4, 0xC3, 0xD9]];

impl Endpoint {
    /// Bytes lie in the connection's TCP stream: `peeked` begins with the first of them. Returns
    /// how many to take out; with 0, call again when there are more, or after the next wish of this
    /// connection if no message is [expected](Self::expects_clc).
    pub fn handle_clc(&mut self, now: Instant, conn: ConnId, peeked: &[u8]) -> usize {
        self.now = now;
        if peeked.is_empty() || !self.expects_clc(conn) {
            return 0;
        }
        let whole = match frame(peeked) {
            Ok(Frame::More { .. }) => return 0,
            Ok(Frame::Message { len }) => peeked.get(..len).unwrap_or(peeked),
            Err(error) => {
                if let Some(hs) = self.take(conn) {
                    self.end(hs, Failure::from(error).into());
                }
                return 0;
            }
        };
        let message = Message::parse(whole);
        if let Some(hs) = self.take(conn) {
            // A client that waits no more is not answered: it may have closed, and an answer would be
            // a reset to those of its bytes that nobody has read.
            if matches!((&hs.state, &message), (State::Listening, Ok(Message::Proposal(_))))
                && let Some((decline, len)) = peeked.get(whole.len()..).and_then(withdrawal)
            {
                self.declined(hs, &decline);
                return whole.len() + len;
            }
            match message {
                Ok(message) => self.message(hs, message),
                Err(error) => self.end(hs, Failure::from(error).into()),
            }
        }
        whole.len()
    }

    /// Bytes lie in a connection's TCP stream, as for [`handle_clc`](Self::handle_clc). If they are the first that a
    /// server gets, and not those of a CLC message, then its peer has proposed nothing: it is TCP with these bytes.
    /// True: so it is. For who expects a proposal by hearsay; Linux fails.
    pub fn handle_plain(&mut self, now: Instant, conn: ConnId, peeked: &[u8]) -> bool {
        self.now = now;
        let is_begun = |eyecatcher: [u8; 4]| eyecatcher.iter().zip(peeked).all(|(a, b)| a == b);
        if EYECATCHERS.into_iter().any(is_begun) {
            return false;
        }
        let listening = self.take_if(conn, |state| matches!(state, State::Listening));
        let is_plain = listening.is_some();
        if let Some(hs) = listening {
            self.end(hs, End::Fallback(Diagnosis::PEERNOSMC.into()));
        }
        is_plain
    }

    /// The peer ended the TCP connection, or it broke, before the handshake's end.
    pub fn handle_tcp_end(&mut self, now: Instant, conn: ConnId) {
        self.now = now;
        if let Some(hs) = self.take(conn) {
            self.end(hs, Failure::Reset.into());
        }
    }

    fn message(&mut self, mut hs: Box<Handshake>, message: Message) {
        let came = Kind::of(&message);
        let due = hs.due().unwrap_or(Kind::Decline);
        let state = std::mem::replace(&mut hs.state, State::Listening);
        match (state, message) {
            (_, Message::Decline(decline)) => self.declined(hs, &decline),
            (State::Proposed(offer), Message::Accept(accept)) => {
                self.accepted(hs, offer, &accept.0);
            }
            (State::Listening, Message::Proposal(proposal)) => self.proposed(hs, proposal),
            (State::Answered(way, wants, terms), Message::Confirm(confirm)) => {
                self.confirmed(hs, &way, wants, &terms, &confirm);
            }
            _ => self.end(hs, Failure::OutOfTurn { came, due }.into()),
        }
    }

    /// The peer declined; perhaps because it does not know our link group, which then is of no use.
    fn declined(&mut self, hs: Box<Handshake>, decline: &Decline) {
        let (held, from) = (hs.held, hs.route.peer);
        self.end(hs, End::Fallback(Reason::declined(decline.diagnosis)));
        if let Some(held) = held.filter(|_| decline.out_of_sync)
            && self.may_end(held.group, from)
        {
            self.groups.terminate(held.group, Cause::OutOfSync);
        }
    }

    /// Whether a TCP peer may end a group by its word alone. Anybody who can connect can send the
    /// Proposal of another host, so a group that other connections use is ended only for the address
    /// that it began with. Linux believes everybody (`smc_clc_wait_msg`).
    fn may_end(&self, group: GroupId, from: IpAddr) -> bool {
        let known = self.peers.get(&group).is_some_and(|peer| *peer == from);
        (known && !from.is_unspecified()) || self.groups.members(group).next().is_none()
    }
}

/// The Decline with which a client has withdrawn the Proposal before it, if it is there, and its length.
fn withdrawal(behind: &[u8]) -> Option<(Decline, usize)> {
    let Ok(Frame::Message { len }) = frame(behind) else { return None };
    match Message::parse(behind.get(..len)?) {
        Ok(Message::Decline(decline)) => Some((decline, len)),
        _ => None,
    }
}
