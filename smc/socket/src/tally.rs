// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What one connection counts, until somebody asks or it ends.
//!
//! Invariant: counting is a few additions to plain numbers, under a lock that is held anyway; each call
//! that moved bytes is counted once, however often it had to wait.

use smc_proto::conn::Connection;
use smc_proto::stats::Technology;

/// A connection's counters.
#[derive(Debug, Default)]
pub(crate) struct Tally(Technology);

impl Tally {
    /// A call with `wanted` bytes left, of which `skip` were sent before, has sent `moved`.
    #[inline]
    pub(crate) fn sent(&mut self, wanted: usize, skip: usize, moved: usize) {
        if skip == 0 && moved > 0 {
            self.0.tx.request(wanted, moved);
        } else {
            self.0.tx.bytes = self.0.tx.bytes.wrapping_add(moved as u64);
        }
    }

    /// A call that received `skip` bytes before has received `moved`; they were not peeked at.
    #[inline]
    pub(crate) fn received(&mut self, skip: usize, moved: usize) {
        if skip == 0 && moved > 0 {
            self.0.rx.request(moved, moved);
        } else {
            self.0.rx.bytes = self.0.rx.bytes.wrapping_add(moved as u64);
        }
    }

    /// A call with an urgent byte.
    #[cold]
    pub(crate) fn urgent(&mut self) {
        self.0.urgent = self.0.urgent.wrapping_add(1);
    }

    /// A call found no room for all it has.
    #[cold]
    pub(crate) fn blocked(conn: &mut Connection, wanted: usize) {
        conn.count_send(wanted);
        conn.await_room();
    }

    /// What was counted, here and by the machine.
    pub(crate) fn sum(&mut self, conn: &mut Connection) -> &Technology {
        self.0.add_counts(&conn.take_counts());
        &self.0
    }

    /// Bytes and calls, sent and received.
    pub(crate) fn traffic(&self) -> [(u64, u64); 2] {
        [&self.0.tx, &self.0.rx].map(|side| (side.bytes, side.requests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_in_pieces_is_one() {
        let mut tally = Tally::default();
        tally.sent(100, 0, 0);
        tally.sent(100, 0, 60);
        tally.sent(40, 60, 40);
        tally.received(0, 0);
        tally.received(0, 10_000);
        tally.received(10_000, 5);
        assert_eq!(tally.traffic(), [(100, 1), (10_005, 1)]);
        assert_eq!(tally.0.tx.request_sizes.0[0], 1);
        assert_eq!(tally.0.rx.request_sizes.0[1], 1);
    }
}
