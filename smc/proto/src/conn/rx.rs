// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The way in: our ring, how far the peer has written it and the application has read it
//! (`smc_rx.c`).
//!
//! Invariant: `to_confirm + unread <= ring`: the peer never has more in our ring than the consumer
//! cursor that we published allows.
//!
//! ```text
//!  our ring  ──┬────────────┬──────────┬──────   the peer knows ring - to_confirm - unread to be free
//!              │ to_confirm │  unread  │
//!         (confirmed)     cons       prod
//! ```

use smc_wire::cdc::{ConnectionState, Cursor, ProducerFlags};

use super::cursor::{Chunks, Ring};
use super::error::Lie;
use super::urgent::{Mark, Passed};

/// Cursors and amounts of the receiving side.
#[derive(Debug)]
pub(super) struct Rx {
    pub(super) ring: Ring,
    /// The peer's producer cursor.
    pub(super) prod: Cursor,
    /// Our consumer cursor.
    pub(super) cons: Cursor,
    /// Bytes in the ring, an urgent one included.
    pub(super) unread: u32,
    /// Bytes that were consumed since the consumer cursor was published last.
    pub(super) to_confirm: u32,
    /// More than this must be consumed before an update is worth a CDC of its own.
    limit: u32,
    /// SMC-R: number of the last message.
    pub(super) seqno: u16,
    /// The peer's flags as a writer; we clear those that we have obeyed.
    pub(super) flags: ProducerFlags,
    /// How far the peer has closed; nothing is ever taken back.
    pub(super) state: ConnectionState,
    pub(super) mark: Mark,
}

/// The least number of consumed bytes that is worth a CDC of its own: `SOCK_MIN_SNDBUF / 2`, which
/// is 2048 bytes and a `struct sk_buff` in whole cache lines, 256 bytes on x86-64.
///
/// Any number works; with Linux's, our peers see CDCs at the same points.
const UPDATE_MIN: u32 = 2048 + 256;

impl Rx {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            ring,
            prod: Cursor::START,
            cons: Cursor::START,
            unread: 0,
            to_confirm: 0,
            limit: update_limit(ring),
            seqno: 0,
            flags: ProducerFlags::EMPTY,
            state: ConnectionState::EMPTY,
            mark: Mark::default(),
        }
    }

    /// Bytes that the application can read, an urgent byte kept aside not among them
    /// (`bytes_to_rcv`).
    pub(super) const fn unread_in_stream(&self) -> u32 {
        self.unread - self.mark.hidden()
    }

    /// Where the bytes are that one read may give, `skip` bytes having been peeked at.
    pub(super) fn chunks(&self, skip: u32) -> Chunks {
        let limit = self.mark.limit(self.unread);
        let skip = skip.min(limit);
        self.ring.chunks(self.ring.advance(self.cons, skip).count, limit - skip)
    }

    /// Bytes by which the peer's producer cursor `is` is ahead of the last one, 0 if it is behind and
    /// `stale` messages are to be expected.
    ///
    /// # Errors
    /// [`Lie::Producer`]
    pub(super) fn judge(&self, is: Cursor, stale: bool) -> Result<u32, Lie> {
        if is == self.prod {
            return Ok(0);
        }
        let allowed = self.ring.len() - self.unread - self.to_confirm;
        match self.ring.distance(self.prod, is) {
            Some(news) if news <= allowed => Ok(news),
            None if stale && self.ring.repeats(is, self.prod) => Ok(0),
            _ => Err(Lie::Producer { was: self.prod, is, ring: self.ring.len(), allowed }),
        }
    }

    /// `n` more bytes are in the ring, as judged.
    pub(super) fn arrived(&mut self, n: u32) {
        self.prod = self.ring.advance(self.prod, n);
        self.unread += n;
        self.mark.outdated();
    }

    /// The application read `n` bytes, at most what [`chunks`](Self::chunks) gave. Whether the peer
    /// must be told at once: it waits for its urgent byte to be consumed.
    pub(super) fn consume(&mut self, n: u32) -> bool {
        self.pass(n);
        match self.mark.consumed(n) {
            Passed::Nothing => false,
            Passed::Mark => true,
            Passed::MarkUnread => {
                self.pass(1);
                true
            }
        }
    }

    fn pass(&mut self, n: u32) {
        self.cons = self.ring.advance(self.cons, n);
        self.unread -= n;
        self.to_confirm += n;
    }

    /// Whether the consumer cursor shall be published without anything else to say
    /// (`smc_tx_consumer_update`).
    pub(super) const fn update_is_due(&self) -> bool {
        if self.flags.contains(ProducerFlags::CONSUMER_UPDATE_REQUESTED) && self.to_confirm > 0 {
            return true;
        }
        if self.to_confirm <= self.limit {
            return false;
        }
        let sender_free = self.ring.len() - self.to_confirm - self.unread;
        sender_free <= self.ring.len() / 2 || self.flags.contains(ProducerFlags::WRITE_BLOCKED)
    }

    /// The ring was drained, so a writer that was blocked is no more, or soon knows it.
    pub(super) const fn drained(&mut self) {
        if self.unread == 0 {
            self.flags.remove(ProducerFlags::WRITE_BLOCKED);
        }
    }

    /// The consumer cursor was published. If it says nothing new, a request stands: who asked waits for
    /// what will be read. Linux forgets it.
    pub(super) const fn published(&mut self) {
        if self.to_confirm > 0 {
            self.to_confirm = 0;
            self.flags.remove(ProducerFlags::CONSUMER_UPDATE_REQUESTED);
        }
    }
}

/// `smc_rmb_wnd_update_limit`; at most half a ring, which no ring of a real size comes near.
pub(super) fn update_limit(ring: Ring) -> u32 {
    (ring.len() / 10).max(UPDATE_MIN).min(ring.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    // row 41
    #[test]
    fn an_update_is_worth_a_tenth_of_the_ring_or_2304_bytes() {
        let limit = |len| Ring::new(len).map(update_limit);
        assert_eq!(limit(16352), Some(2304));
        assert_eq!(limit(65504), Some(6550));
        assert_eq!(limit(1 << 29), Some((1 << 29) / 10));
        assert_eq!(limit(64), Some(32));
    }
}
