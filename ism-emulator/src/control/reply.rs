// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A reply's bytes.
//!
//! Invariant: a refusal has the length that its command's OK has, and is zero after the header.

use ism_abi::{HelloReply, ReplyHeader, StatsReply, status};

use crate::member::Member;
use crate::refusal::Refusal;

/// Bytes of the longest reply.
const MAX: usize = ReplyHeader::SIZE + StatsReply::SIZE;

/// The device-writable bytes of a control buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    bytes: [u8; MAX],
    len: usize,
}

impl Reply {
    /// Header and body.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn new(status: u32, body: &[u8]) -> Self {
        let mut bytes = [0; MAX];
        let header = ReplyHeader { status, reserved: 0 }.to_bytes();
        for (to, from) in bytes.iter_mut().zip(header.iter().chain(body)) {
            *to = *from;
        }
        Self { bytes, len: (ReplyHeader::SIZE + body.len()).min(MAX) }
    }

    /// Done, with this body.
    pub(crate) fn ok(body: &[u8]) -> Self {
        Self::new(status::OK, body)
    }

    /// Not done; `len` is the reply's length in bytes.
    pub(crate) fn refused(refusal: Refusal, len: usize) -> Self {
        Self { len: len.min(MAX), ..Self::new(refusal.status(), &[]) }
    }

    /// Not done, because a HELLO came; `body` is the reply body's length in bytes.
    pub(crate) fn cut_off(body: usize) -> Self {
        Self::refused(Refusal::NotReady, ReplyHeader::SIZE + body)
    }

    /// The limits of a member.
    pub(crate) fn hello(member: &Member, max_dmbs: u32) -> Self {
        let quota = member.config.quota;
        let body = HelloReply {
            max_dmbs: quota.dmbs.min(max_dmbs),
            max_peers: quota.peers,
            max_bytes: quota.bytes,
            max_signal_rate: quota.signals_per_s,
            max_control_rate: quota.control_per_s,
        };
        Self::ok(&body.to_bytes())
    }
}
