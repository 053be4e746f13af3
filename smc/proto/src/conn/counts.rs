// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How often buffers were full or too small (`smc_stats.h`, `struct smc_stats_rmbcnt`).
//!
//! Invariant: a count is one addition and no memory; an exchange in which no buffer is full and no call
//! is told of counts nothing.
//!
//! A connection sees by itself when the peer's ring is full. What depends on the application's calls
//! its owner tells it, once a call. The sums go into [`Technology`](crate::stats::Technology).

use super::Connection;

/// What was counted since [`Connection::take_counts`]; each wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Room came for a sender that had found none (`SMC_STAT_RMB_TX_FULL`).
    pub send_full: u32,
    /// Bytes were to be sent and the peer's ring was full (`SMC_STAT_RMB_TX_PEER_FULL`).
    pub peer_full: u32,
    /// Calls with more bytes than the send ring has (`SMC_STAT_RMB_TX_SIZE_SMALL`).
    pub send_too_small: u32,
    /// Calls with more bytes than the peer's ring has (`SMC_STAT_RMB_TX_PEER_SIZE_SMALL`).
    pub peer_too_small: u32,
    /// Calls that found our ring full (`SMC_STAT_RMB_RX_FULL`).
    pub receive_full: u32,
    /// Calls that asked for less than was there (`SMC_STAT_RMB_RX_SIZE_SMALL`).
    pub receive_too_small: u32,
}

impl Connection {
    /// The application sends `len` bytes; to be said once a call, before its first
    /// [`send_room`](Self::send_room) (`smc_tx_sendmsg`).
    #[inline]
    pub fn count_send(&mut self, len: usize) {
        if self.is_send_over() {
            return;
        }
        count(&mut self.counts.send_too_small, len > self.tx.ring.len() as usize);
        count(&mut self.counts.peer_too_small, len > self.tx.peer.len() as usize);
    }

    /// The application asks for `len` bytes of the stream, also to peek at them; to be said once a
    /// call, before its first [`readable`](Self::readable) (`smc_rx_recvmsg`).
    #[inline]
    pub fn count_receive(&mut self, len: usize) {
        let unread = self.rx.unread_in_stream();
        count(&mut self.counts.receive_full, unread >= self.rx.ring.len());
        count(&mut self.counts.receive_too_small, len < unread as usize);
    }

    /// A call to send found no room, or a poll saw that there is none (`SOCK_NOSPACE`). Once there is
    /// some again, the send ring counts as having been full.
    #[inline]
    pub fn await_room(&mut self) {
        self.awaits_room |= !self.tx.is_open();
    }

    /// What was counted, which then begins at 0 again.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// There is room where there was none (`smc_tx_write_space`).
    pub(super) fn room_came(&mut self) {
        count(&mut self.counts.send_full, std::mem::take(&mut self.awaits_room));
    }

    /// Bytes are to be sent and none can be (`smc_tx_sndbuf_nonempty`).
    pub(super) fn found_peer_full(&mut self) {
        count(&mut self.counts.peer_full, true);
    }
}

#[inline]
fn count(counter: &mut u32, happened: bool) {
    *counter = counter.wrapping_add(happened.into());
}
