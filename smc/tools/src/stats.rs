// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC's counters since the network namespace began.
//!
//! Invariant: absolute numbers, never reset and never subtracted here.

use serde::{Deserialize, Serialize};

use crate::netlink::{Attributes, Malformed};

const GEN_STATS: u16 = 7;

/// `SMC_NLA_STATS_*`.
const SMCD_TECH: u16 = 1;
const SMCR_TECH: u16 = 2;
const CLNT_HS_ERR_CNT: u16 = 3;
const SRV_HS_ERR_CNT: u16 = 4;

/// `SMC_NLA_STATS_T_*`.
mod tech {
    pub(super) const TX_RMB_SIZE: u16 = 1;
    pub(super) const RX_RMB_SIZE: u16 = 2;
    pub(super) const TXPLOAD_SIZE: u16 = 3;
    pub(super) const RXPLOAD_SIZE: u16 = 4;
    pub(super) const TX_RMB_STATS: u16 = 5;
    pub(super) const RX_RMB_STATS: u16 = 6;
    pub(super) const CLNT_V1_SUCC: u16 = 7;
    pub(super) const CLNT_V2_SUCC: u16 = 8;
    pub(super) const SRV_V1_SUCC: u16 = 9;
    pub(super) const SRV_V2_SUCC: u16 = 10;
    pub(super) const SPLICE_CNT: u16 = 12;
    pub(super) const CORK_CNT: u16 = 13;
    pub(super) const NDLY_CNT: u16 = 14;
    pub(super) const URG_DATA_CNT: u16 = 15;
    pub(super) const RX_BYTES: u16 = 16;
    pub(super) const TX_BYTES: u16 = 17;
    pub(super) const RX_CNT: u16 = 18;
    pub(super) const TX_CNT: u16 = 19;
    pub(super) const RX_RMB_USAGE: u16 = 20;
    pub(super) const TX_RMB_USAGE: u16 = 21;
}

/// `SMC_NLA_STATS_RMB_*`.
mod buffers {
    pub(super) const SIZE_SM_PEER_CNT: u16 = 1;
    pub(super) const SIZE_SM_CNT: u16 = 2;
    pub(super) const FULL_PEER_CNT: u16 = 3;
    pub(super) const FULL_CNT: u16 = 4;
    pub(super) const REUSE_CNT: u16 = 5;
    pub(super) const ALLOC_CNT: u16 = 6;
    pub(super) const DGRADE_CNT: u16 = 7;
}

/// The size classes of a histogram: up to 8 KiB, 16 KiB … 1 MiB, and more.
pub const SIZE_CLASSES: [&str; 9] =
    ["8KB", "16KB", "32KB", "64KB", "128KB", "256KB", "512KB", "1024KB", ">1024KB"];

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Connections over SMC-D.
    pub smcd: Technology,
    /// Connections over SMC-R.
    pub smcr: Technology,
    /// Failed handshakes as a client.
    pub client_handshake_errors: u64,
    /// Failed handshakes as a server.
    pub server_handshake_errors: u64,
}

/// One technology's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Technology {
    /// Connections as a client, version 1.
    pub client_v1: u64,
    /// Connections as a client, version 2.
    pub client_v2: u64,
    /// Connections as a server, version 1.
    pub server_v1: u64,
    /// Connections as a server, version 2.
    pub server_v2: u64,
    /// What was received.
    pub rx: Direction,
    /// What was sent.
    pub tx: Direction,
    /// `splice` and `sendfile` from a socket.
    pub splice: u64,
    /// Uses of `TCP_CORK`.
    pub cork: u64,
    /// Uses of `TCP_NODELAY`.
    pub nodelay: u64,
    /// Urgent data.
    pub urgent: u64,
}

/// One direction's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Bytes.
    pub bytes: u64,
    /// Calls of send or receive.
    pub requests: u64,
    /// Bytes of buffers in use now.
    pub buffer_bytes: u64,
    /// Requests by size, see [`SIZE_CLASSES`].
    pub request_sizes: [u64; 9],
    /// Buffers by size, see [`SIZE_CLASSES`].
    pub buffer_sizes: [u64; 9],
    /// Buffers allocated.
    pub buffers_allocated: u64,
    /// Buffers used again.
    pub buffers_reused: u64,
    /// Buffers smaller than asked for, for want of memory.
    pub buffers_downgraded: u64,
    /// Times a buffer was full.
    pub buffer_full: u64,
    /// Times the peer's buffer was full.
    pub peer_buffer_full: u64,
    /// Times a request exceeded the buffer.
    pub buffer_too_small: u64,
    /// Times a request exceeded the peer's buffer.
    pub peer_buffer_too_small: u64,
}

impl Stats {
    /// From the kernel's answer (`smc_nl_get_stats`, net/smc/smc_stats.c).
    pub fn parse(attributes: &Attributes<'_>) -> Result<Self, Malformed> {
        let all = attributes.require_nested("SMC_GEN_STATS", GEN_STATS)?;
        Ok(Stats {
            smcd: Technology::parse(&all.nested(SMCD_TECH)?)?,
            smcr: Technology::parse(&all.nested(SMCR_TECH)?)?,
            client_handshake_errors: all.count(CLNT_HS_ERR_CNT)?,
            server_handshake_errors: all.count(SRV_HS_ERR_CNT)?,
        })
    }
}

impl Stats {
    /// Adds another's SMC-D counters to these.
    pub fn add(&mut self, other: &Self) {
        self.smcd.add(&other.smcd);
        sum(&mut self.client_handshake_errors, other.client_handshake_errors);
        sum(&mut self.server_handshake_errors, other.server_handshake_errors);
    }
}

fn sum(mine: &mut u64, theirs: u64) {
    *mine = mine.saturating_add(theirs);
}

impl Technology {
    fn add(&mut self, other: &Self) {
        self.rx.add(&other.rx);
        self.tx.add(&other.tx);
        sum(&mut self.client_v1, other.client_v1);
        sum(&mut self.client_v2, other.client_v2);
        sum(&mut self.server_v1, other.server_v1);
        sum(&mut self.server_v2, other.server_v2);
        sum(&mut self.splice, other.splice);
        sum(&mut self.cork, other.cork);
        sum(&mut self.nodelay, other.nodelay);
        sum(&mut self.urgent, other.urgent);
    }

    fn parse(all: &Attributes<'_>) -> Result<Self, Malformed> {
        let rx = Direction {
            bytes: all.count(tech::RX_BYTES)?,
            requests: all.count(tech::RX_CNT)?,
            buffer_bytes: all.count(tech::RX_RMB_USAGE)?,
            request_sizes: histogram(&all.nested(tech::RXPLOAD_SIZE)?)?,
            buffer_sizes: histogram(&all.nested(tech::RX_RMB_SIZE)?)?,
            ..Direction::parse_buffers(&all.nested(tech::RX_RMB_STATS)?)?
        };
        let tx = Direction {
            bytes: all.count(tech::TX_BYTES)?,
            requests: all.count(tech::TX_CNT)?,
            buffer_bytes: all.count(tech::TX_RMB_USAGE)?,
            request_sizes: histogram(&all.nested(tech::TXPLOAD_SIZE)?)?,
            buffer_sizes: histogram(&all.nested(tech::TX_RMB_SIZE)?)?,
            ..Direction::parse_buffers(&all.nested(tech::TX_RMB_STATS)?)?
        };
        Ok(Technology {
            client_v1: all.count(tech::CLNT_V1_SUCC)?,
            client_v2: all.count(tech::CLNT_V2_SUCC)?,
            server_v1: all.count(tech::SRV_V1_SUCC)?,
            server_v2: all.count(tech::SRV_V2_SUCC)?,
            rx,
            tx,
            splice: all.count(tech::SPLICE_CNT)?,
            cork: all.count(tech::CORK_CNT)?,
            nodelay: all.count(tech::NDLY_CNT)?,
            urgent: all.count(tech::URG_DATA_CNT)?,
        })
    }

    /// Connections in all roles and versions.
    pub fn connections(&self) -> u64 {
        [self.client_v1, self.client_v2, self.server_v1, self.server_v2]
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Direction {
    fn add(&mut self, other: &Self) {
        let histograms = [
            (&mut self.request_sizes, &other.request_sizes),
            (&mut self.buffer_sizes, &other.buffer_sizes),
        ];
        for (mine, theirs) in histograms {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| sum(mine, *theirs));
        }
        sum(&mut self.bytes, other.bytes);
        sum(&mut self.requests, other.requests);
        sum(&mut self.buffer_bytes, other.buffer_bytes);
        sum(&mut self.buffers_allocated, other.buffers_allocated);
        sum(&mut self.buffers_reused, other.buffers_reused);
        sum(&mut self.buffers_downgraded, other.buffers_downgraded);
        sum(&mut self.buffer_full, other.buffer_full);
        sum(&mut self.peer_buffer_full, other.peer_buffer_full);
        sum(&mut self.buffer_too_small, other.buffer_too_small);
        sum(&mut self.peer_buffer_too_small, other.peer_buffer_too_small);
    }

    fn parse_buffers(all: &Attributes<'_>) -> Result<Self, Malformed> {
        Ok(Direction {
            buffers_allocated: all.count(buffers::ALLOC_CNT)?,
            buffers_reused: all.count(buffers::REUSE_CNT)?,
            buffers_downgraded: all.count(buffers::DGRADE_CNT)?,
            buffer_full: all.count(buffers::FULL_CNT)?,
            peer_buffer_full: all.count(buffers::FULL_PEER_CNT)?,
            buffer_too_small: all.count(buffers::SIZE_SM_CNT)?,
            peer_buffer_too_small: all.count(buffers::SIZE_SM_PEER_CNT)?,
            ..Direction::default()
        })
    }
}

/// `SMC_NLA_STATS_PLOAD_*`, numbered from 1 in the order of [`SIZE_CLASSES`].
fn histogram(all: &Attributes<'_>) -> Result<[u64; 9], Malformed> {
    let mut counts = [0; 9];
    for (count, number) in counts.iter_mut().zip(1..) {
        *count = all.count(number)?;
    }
    Ok(counts)
}
