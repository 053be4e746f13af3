// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is counted, as `smcd stats` and `smcr stats` show it (`smc_stats.h`).
//!
//! Invariant: recording is a few additions, without memory and without failure; counters wrap.
//!
//! Counters are plain numbers. Who runs on several threads has a [`Stats`] for each and adds them up
//! with [`Stats::add`], as Linux does with one for each CPU.
//!
//! With the feature `serde` they can be told to another process, and are shown as JSON; but for
//! [`Stats::fallbacks`], which the tools have in words.

mod fallback;
#[cfg(test)]
mod tests;

use smc_wire::size::BufferSize;

pub use self::fallback::{FALLBACK_REASONS, Fallbacks, Reasons};
use crate::conn::Counts;
use crate::group::{BufferKind, Role, Version};

/// Size classes of a [`Histogram`]: up to 8 KiB, 16 KiB … 1 MiB, and more (`SMC_BUF_MAX`).
pub const SIZE_CLASSES: usize = 9;

/// Everything (`struct smc_stats`, `struct smc_stats_rsn`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Stats {
    /// Connections over SMC-D.
    pub smcd: Technology,
    /// Connections over SMC-R.
    pub smcr: Technology,
    /// Handshakes as a client that ended in an error, neither SMC nor fallback.
    pub client_handshake_errors: u64,
    /// The same as a server.
    pub server_handshake_errors: u64,
    /// Fallbacks to TCP.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub fallbacks: Fallbacks,
}

/// One technology's counters (`struct smc_stats_tech`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Technology {
    /// Handshakes that gave a connection, as a client, with version 1.
    pub client_v1: u64,
    /// As a client, with version 2.
    pub client_v2: u64,
    /// As a server, with version 1.
    pub server_v1: u64,
    /// As a server, with version 2.
    pub server_v2: u64,
    /// What was received.
    pub rx: Direction,
    /// What was sent.
    pub tx: Direction,
    /// Calls with urgent data, sent or received.
    pub urgent: u64,
    /// Calls of `splice` that read from a socket.
    pub splice: u64,
    /// Times that TCP_CORK was taken off.
    pub cork: u64,
    /// Times that TCP_NODELAY was put on.
    pub nodelay: u64,
}

/// One direction's counters. In Linux's names all buffers are RMBs here, the send buffers too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Direction {
    /// Bytes moved.
    pub bytes: u64,
    /// Calls of send or receive, failed ones too.
    pub requests: u64,
    /// Sizes of the calls that moved data: what was asked when sending, what came when receiving.
    pub request_sizes: Histogram,
    /// Bytes of buffers in use now.
    pub buffer_bytes: u64,
    /// Sizes of the buffers that connections got.
    pub buffer_sizes: Histogram,
    /// Buffers made anew.
    pub buffers_allocated: u64,
    /// Buffers used again.
    pub buffers_reused: u64,
    /// Connections whose first wish for a size failed.
    pub buffers_downgraded: u64,
    /// Times that our buffer was full.
    pub buffer_full: u64,
    /// Times that the peer's buffer was full; sending only.
    pub peer_buffer_full: u64,
    /// Calls that were larger than our buffer, or when receiving smaller than what lay there.
    pub buffer_too_small: u64,
    /// Calls that were larger than the peer's buffer; sending only.
    pub peer_buffer_too_small: u64,
}

/// How many were of which size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Histogram(pub [u64; SIZE_CLASSES]);

impl Stats {
    /// SMC-D's counters or SMC-R's.
    pub fn technology(&mut self, smcd: bool) -> &mut Technology {
        if smcd { &mut self.smcd } else { &mut self.smcr }
    }

    /// A handshake failed without fallback.
    pub fn handshake_error(&mut self, role: Role) {
        let counter = match role {
            Role::Client => &mut self.client_handshake_errors,
            Role::Server => &mut self.server_handshake_errors,
        };
        *counter = counter.wrapping_add(1);
    }

    /// Adds another's counters to these.
    pub fn add(&mut self, other: &Self) {
        self.smcd.add(&other.smcd);
        self.smcr.add(&other.smcr);
        sum(&mut self.client_handshake_errors, other.client_handshake_errors);
        sum(&mut self.server_handshake_errors, other.server_handshake_errors);
        self.fallbacks.add(&other.fallbacks);
    }
}

impl Technology {
    /// A handshake gave a connection (`SMC_STAT_CLNT_SUCC_INC`, `SMC_STAT_SERV_SUCC_INC`).
    pub fn handshake_success(&mut self, role: Role, version: Version) {
        let counter = match (role, version) {
            (Role::Client, Version::V1) => &mut self.client_v1,
            (Role::Client, Version::V2) => &mut self.client_v2,
            (Role::Server, Version::V1) => &mut self.server_v1,
            (Role::Server, Version::V2) => &mut self.server_v2,
        };
        *counter = counter.wrapping_add(1);
    }

    /// Adds what a connection counted of its buffers, from
    /// [`Connection::take_counts`](crate::conn::Connection::take_counts).
    pub fn add_counts(&mut self, counts: &Counts) {
        sum(&mut self.tx.buffer_full, counts.send_full.into());
        sum(&mut self.tx.peer_buffer_full, counts.peer_full.into());
        sum(&mut self.tx.buffer_too_small, counts.send_too_small.into());
        sum(&mut self.tx.peer_buffer_too_small, counts.peer_too_small.into());
        sum(&mut self.rx.buffer_full, counts.receive_full.into());
        sum(&mut self.rx.buffer_too_small, counts.receive_too_small.into());
    }

    pub(crate) fn direction(&mut self, kind: BufferKind) -> &mut Direction {
        match kind {
            BufferKind::Receive => &mut self.rx,
            BufferKind::Send => &mut self.tx,
        }
    }

    /// Connections in all roles and versions.
    pub fn connections(&self) -> u64 {
        [self.client_v1, self.client_v2, self.server_v1, self.server_v2]
            .iter()
            .fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Adds another's counters to these.
    pub fn add(&mut self, other: &Self) {
        self.rx.add(&other.rx);
        self.tx.add(&other.tx);
        sum(&mut self.client_v1, other.client_v1);
        sum(&mut self.client_v2, other.client_v2);
        sum(&mut self.server_v1, other.server_v1);
        sum(&mut self.server_v2, other.server_v2);
        sum(&mut self.urgent, other.urgent);
        sum(&mut self.splice, other.splice);
        sum(&mut self.cork, other.cork);
        sum(&mut self.nodelay, other.nodelay);
    }
}

impl Direction {
    /// A call asked for `len` bytes and moved `moved`; 0 for one that failed
    /// (`SMC_STAT_PAYLOAD_SUB`). A receiver passes what came as both.
    #[inline]
    pub fn request(&mut self, len: usize, moved: usize) {
        self.requests = self.requests.wrapping_add(1);
        if len > 0 && moved > 0 {
            self.request_sizes.record(len as u64);
            self.bytes = self.bytes.wrapping_add(moved as u64);
        }
    }

    pub(crate) fn buffer_allocated(&mut self, size: BufferSize) {
        self.buffers_allocated = self.buffers_allocated.wrapping_add(1);
        self.buffer_taken(size);
    }

    pub(crate) fn buffer_reused(&mut self, size: BufferSize) {
        self.buffers_reused = self.buffers_reused.wrapping_add(1);
        self.buffer_taken(size);
    }

    pub(crate) fn buffer_downgraded(&mut self) {
        self.buffers_downgraded = self.buffers_downgraded.wrapping_add(1);
    }

    pub(crate) fn buffer_released(&mut self, size: BufferSize) {
        self.buffer_bytes = self.buffer_bytes.wrapping_sub(size.bytes().into());
    }

    fn buffer_taken(&mut self, size: BufferSize) {
        self.buffer_sizes.record(size.bytes().into());
        self.buffer_bytes = self.buffer_bytes.wrapping_add(size.bytes().into());
    }

    fn add(&mut self, other: &Self) {
        self.request_sizes.add(&other.request_sizes);
        self.buffer_sizes.add(&other.buffer_sizes);
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
}

impl Histogram {
    /// Counts one of `bytes`, at least 1.
    #[inline]
    pub fn record(&mut self, bytes: u64) {
        let units = bytes.saturating_sub(1) >> 13; // of 8 KiB, as SMC_STAT_PAYLOAD_SUB
        let class = (u64::BITS - units.leading_zeros()) as usize;
        if let Some(counter) = self.0.get_mut(class.min(SIZE_CLASSES - 1)) {
            *counter = counter.wrapping_add(1);
        }
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            sum(mine, theirs);
        }
    }
}

fn sum(mine: &mut u64, theirs: u64) {
    *mine = mine.wrapping_add(theirs);
}
