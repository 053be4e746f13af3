// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SMC's counters since the network namespace began.
//!
//! Invariant: absolute numbers, never reset and never subtracted here.

pub use smc_proto::stats::{Direction, Histogram, Stats, Technology};

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
pub const SIZE_CLASSES: [&str; smc_proto::stats::SIZE_CLASSES] =
    ["8KB", "16KB", "32KB", "64KB", "128KB", "256KB", "512KB", "1024KB", ">1024KB"];

/// From the kernel's answer (`smc_nl_get_stats`, net/smc/smc_stats.c); fallbacks are another answer.
pub fn parse(attributes: &Attributes<'_>) -> Result<Stats, Malformed> {
    let all = attributes.require_nested("SMC_GEN_STATS", GEN_STATS)?;
    Ok(Stats {
        smcd: technology(&all.nested(SMCD_TECH)?)?,
        smcr: technology(&all.nested(SMCR_TECH)?)?,
        client_handshake_errors: all.count(CLNT_HS_ERR_CNT)?,
        server_handshake_errors: all.count(SRV_HS_ERR_CNT)?,
        ..Stats::default()
    })
}

fn technology(all: &Attributes<'_>) -> Result<Technology, Malformed> {
    let rx = Direction {
        bytes: all.count(tech::RX_BYTES)?,
        requests: all.count(tech::RX_CNT)?,
        buffer_bytes: all.count(tech::RX_RMB_USAGE)?,
        request_sizes: histogram(&all.nested(tech::RXPLOAD_SIZE)?)?,
        buffer_sizes: histogram(&all.nested(tech::RX_RMB_SIZE)?)?,
        ..of_buffers(&all.nested(tech::RX_RMB_STATS)?)?
    };
    let tx = Direction {
        bytes: all.count(tech::TX_BYTES)?,
        requests: all.count(tech::TX_CNT)?,
        buffer_bytes: all.count(tech::TX_RMB_USAGE)?,
        request_sizes: histogram(&all.nested(tech::TXPLOAD_SIZE)?)?,
        buffer_sizes: histogram(&all.nested(tech::TX_RMB_SIZE)?)?,
        ..of_buffers(&all.nested(tech::TX_RMB_STATS)?)?
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

fn of_buffers(all: &Attributes<'_>) -> Result<Direction, Malformed> {
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

/// `SMC_NLA_STATS_PLOAD_*`, numbered from 1 in the order of [`SIZE_CLASSES`].
fn histogram(all: &Attributes<'_>) -> Result<Histogram, Malformed> {
    let mut counts = Histogram::default();
    for (count, number) in counts.0.iter_mut().zip(1..) {
        *count = all.count(number)?;
    }
    Ok(counts)
}
