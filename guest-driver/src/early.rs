// SPDX-License-Identifier: GPL-2.0

//! Ends of connections that would overtake their beginning.
//!
//! net/smc (7.3.4) takes a peer's "done writing" and "closed" for the end of the TCP connection
//! as well, even while it still waits for that connection's last handshake message, CLC Confirm
//! (`smc_cdc_msg_recv_action` sets RCV_SHUTDOWN on it). Shared memory is faster than TCP, so a
//! client that sends and shuts down at once would lose its connection, and hang. Therefore such
//! a message waits until some milliseconds after its connection's first, unless this side has
//! consumed bytes of the peer's, whose handshake is over then.
//!
//! Invariant: a message is held back for at most [`HOLD_MS`] and a timer tick. Messages are
//! cumulative, so a later one replaces it.

/// Longer than a TCP segment takes, shorter than people notice.
pub(crate) const HOLD_MS: u32 = 10;
const HOLD_NS: u64 = HOLD_MS as u64 * 1_000_000;

/// `struct smcd_cdc_msg` (net/smc/smc_cdc.h), which is written at a DMB's start.
pub(crate) type Cdc = [u8; 32];
/// Its consumer cursor, wrap and count together, and the state flags behind it.
const CONSUMED: core::ops::Range<usize> = 16..22;
const FLAGS: usize = 23;
/// peer_done_writing, peer_conn_closed, peer_conn_abort.
const ENDING: u8 = 0xe0;
/// peer_conn_closed, peer_conn_abort: nothing of this connection follows.
const ENDED: u8 = 0x60;

/// What to do with a message.
pub(crate) enum Verdict {
    /// Send it.
    Send,
    /// Send this one, which was held back, and then it.
    SendAfter(Cdc),
    /// It was kept; [`Early::due`] gives it back.
    Kept,
    /// An earlier one is just being sent: ask again.
    Wait,
}

/// The messages of one peer's DMB.
#[derive(Default)]
pub(crate) struct Early {
    /// When the connection's first message was sent, in nanoseconds; `None`: not yet.
    since: Option<u64>,
    held: Option<Cdc>,
    /// [`Early::due`] gave one out that is not written yet: a newer one must not overtake it.
    sending: bool,
}

impl Early {
    /// A message is to be sent, at `now` in nanoseconds.
    pub(crate) fn judge(&mut self, cdc: &Cdc, now: u64) -> Verdict {
        if self.sending {
            return Verdict::Wait;
        }
        let flags = cdc.get(FLAGS).copied().unwrap_or(0);
        let consumed = cdc.get(CONSUMED).is_some_and(|cursor| cursor != [0; 6]);
        if flags & ENDING == 0 {
            // After a message that was held back, this is another connection's.
            let held = self.held.take();
            if held.is_some() {
                self.since = None;
            }
            self.since.get_or_insert(now);
            return held.map_or(Verdict::Send, Verdict::SendAfter);
        }
        let since = *self.since.get_or_insert(now);
        if !consumed && now.saturating_sub(since) < HOLD_NS {
            self.held = Some(*cdc);
            return Verdict::Kept;
        }
        self.held = None;
        self.sent(flags);
        Verdict::Send
    }

    /// Takes a message that has waited long enough; [`Early::written`] follows.
    pub(crate) fn due(&mut self, now: u64) -> Option<Cdc> {
        let since = self.since?;
        if now.saturating_sub(since) < HOLD_NS {
            return None;
        }
        let cdc = self.held.take()?;
        self.sending = true;
        self.sent(cdc.get(FLAGS).copied().unwrap_or(0));
        Some(cdc)
    }

    /// What [`Early::due`] gave out has been written.
    pub(crate) fn written(&mut self) {
        self.sending = false;
    }

    /// Whether a message waits.
    pub(crate) fn holds(&self) -> bool {
        self.held.is_some()
    }

    fn sent(&mut self, flags: u8) {
        if flags & ENDED != 0 {
            self.since = None;
        }
    }
}
