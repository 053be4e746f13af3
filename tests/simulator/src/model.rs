// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What TCP would do: the judge of every byte, end of file and reset that an application sees.
//!
//! Invariant: knows nothing of SMC; byte `n` of a stream is a function of the stream and `n`, so
//! that each byte that arrives can be judged by its place.

use std::collections::VecDeque;

/// The byte at `position` of the stream with `seed`.
pub fn byte(seed: u64, position: u64) -> u8 {
    let mixed = (seed ^ position).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8 ^ (position as u8)
}

/// What an application may be told at the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side has closed or shut down, and everything was read.
    Eof,
    /// ECONNRESET, ECONNABORTED or ETIMEDOUT.
    Reset,
}

/// One direction of one connection.
#[derive(Debug)]
pub struct Stream {
    seed: u64,
    /// Bytes that the sender's `send` accepted.
    accepted: u64,
    /// The next byte that the receiver's application gets.
    next: u64,
    /// Positions of urgent bytes that are not read in line, in order; the last one counts.
    urgent: VecDeque<u64>,
    /// The sender's application sends no more.
    finished: bool,
    /// Something happened after which a reset is no surprise, and bytes may be lost.
    broken: Option<&'static str>,
}

impl Stream {
    /// Nothing was sent yet.
    pub fn new(seed: u64) -> Self {
        let urgent = VecDeque::new();
        Self { seed, accepted: 0, next: 0, urgent, finished: false, broken: None }
    }

    /// The next `n` bytes that the sender's application sends.
    pub fn outgoing(&self, n: usize) -> Vec<u8> {
        (self.accepted..).take(n).map(|at| byte(self.seed, at)).collect()
    }

    /// `send` accepted `n` of them; the last one is urgent if `urgent`.
    pub fn accepted(&mut self, n: usize, urgent: bool) {
        self.accepted += n as u64;
        if urgent && n > 0 {
            self.urgent.push_back(self.accepted - 1);
        }
    }

    /// The sender's application has closed or shut down its side.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// From now on a reset is allowed, because of `why`.
    pub fn break_for(&mut self, why: &'static str) {
        self.broken.get_or_insert(why);
    }

    /// Why a reset would be allowed.
    pub fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// Whether there is anything left that the receiver has to get.
    pub fn is_drained(&self) -> bool {
        let skipped = |at: &u64| *at >= self.next;
        self.next + self.urgent.iter().filter(|at| skipped(at)).count() as u64 >= self.accepted
    }

    /// Bytes accepted, and bytes delivered.
    pub fn progress(&self) -> (u64, u64) {
        (self.accepted, self.next)
    }

    /// `recv` gave `bytes`; with `peek` they come again.
    ///
    /// # Errors
    /// What TCP would not have done, in words.
    pub fn received(&mut self, bytes: &[u8], peek: bool) -> Result<(), String> {
        let mut at = self.next;
        for &got in bytes {
            // An urgent byte that is not read in line is left out, if it is still urgent.
            if self.urgent.contains(&at) && got != byte(self.seed, at) {
                at += 1;
            }
            if at >= self.accepted {
                return Err(format!("byte {at} was received, {} were sent", self.accepted));
            }
            let sent = byte(self.seed, at);
            if got != sent {
                return Err(format!("byte {at} is {got:#04x}, {sent:#04x} was sent"));
            }
            at += 1;
        }
        if !peek {
            self.next = at;
            self.urgent.retain(|urgent| *urgent >= at);
        }
        Ok(())
    }

    /// `recv(MSG_OOB)` gave `got`.
    ///
    /// # Errors
    /// If no such byte was sent as urgent.
    pub fn received_urgent(&self, got: u8, all_urgent: &[u64]) -> Result<(), String> {
        let known = all_urgent.iter().any(|at| byte(self.seed, *at) == got);
        known.then_some(()).ok_or_else(|| format!("urgent byte {got:#04x} was never sent"))
    }

    /// The receiver's application was told `end`.
    ///
    /// # Errors
    /// If TCP would not have told it so.
    pub fn ended(&self, end: End) -> Result<(), String> {
        match end {
            End::Reset if self.broken.is_none() => Err("a reset, and nothing broke".into()),
            End::Eof if !self.finished && self.broken.is_none() => {
                Err("an end of file, and the sender has not finished".into())
            }
            End::Eof if !self.is_drained() && self.broken.is_none() => {
                Err(format!("an end of file after {} of {} bytes", self.next, self.accepted))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(n: usize) -> (Stream, Vec<u8>) {
        let mut stream = Stream::new(7);
        let bytes = stream.outgoing(n);
        stream.accepted(n, false);
        (stream, bytes)
    }

    #[test]
    fn a_wrong_a_doubled_and_an_invented_byte_are_found() {
        let (mut stream, bytes) = sent(100);
        stream.received(&bytes[..10], false).unwrap();
        stream.received(&bytes[10..20], true).unwrap();
        assert!(stream.received(&bytes[..10], false).is_err());
        assert!(stream.received(&bytes[11..20], false).is_err());
        stream.received(&bytes[10..], false).unwrap();
        assert!(stream.received(&[byte(7, 100)], false).is_err());
    }

    #[test]
    fn an_end_of_file_is_judged() {
        let (mut stream, bytes) = sent(3);
        assert!(stream.ended(End::Eof).is_err());
        stream.finish();
        assert!(stream.ended(End::Eof).is_err(), "three bytes are missing");
        stream.received(&bytes, false).unwrap();
        stream.ended(End::Eof).unwrap();
        assert!(stream.ended(End::Reset).is_err());
        stream.break_for("the test says so");
        stream.ended(End::Reset).unwrap();
    }
}
