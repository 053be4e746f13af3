// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What TCP would do: the judge of every byte, end of file and reset that an application sees.
//!
//! Invariant: knows nothing of SMC; byte `n` of a stream is a function of the stream and `n`, so
//! that each byte that arrives can be judged by its place.

use std::collections::BTreeSet;

/// The byte at `position` of the stream with `seed`.
fn byte(seed: u64, position: u64) -> u8 {
    (seed.wrapping_add(position).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
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
    /// Where the receiver's application may be: more than one place only where an urgent byte may
    /// have been left out of the stream or not.
    places: BTreeSet<u64>,
    /// Positions of the bytes that were sent as urgent.
    urgent: BTreeSet<u64>,
    /// The sender's application sends no more.
    finished: bool,
    /// Something happened after which a reset is no surprise, and bytes may be lost.
    broken: Option<&'static str>,
}

impl Stream {
    /// Nothing was sent yet.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            accepted: 0,
            places: BTreeSet::from([0]),
            urgent: BTreeSet::new(),
            finished: false,
            broken: None,
        }
    }

    /// The next `n` bytes that the sender's application sends.
    pub fn outgoing(&self, n: usize) -> Vec<u8> {
        (self.accepted..).take(n).map(|at| byte(self.seed, at)).collect()
    }

    /// `send` accepted `n` of them; the last one is urgent if `urgent`.
    pub fn accepted(&mut self, n: usize, urgent: bool) {
        self.accepted += n as u64;
        if urgent && n > 0 {
            self.urgent.insert(self.accepted - 1);
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

    /// Whether the receiver has got all there is: an urgent byte at the end need not be in line.
    pub fn is_drained(&self) -> bool {
        self.places.iter().any(|at| (*at..self.accepted).all(|rest| self.urgent.contains(&rest)))
    }

    /// Bytes accepted, and bytes delivered at most.
    pub fn progress(&self) -> (u64, u64) {
        (self.accepted, self.places.last().copied().unwrap_or_default())
    }

    /// `recv` gave `bytes`; with `peek` they come again.
    ///
    /// # Errors
    /// What TCP would not have done, in words.
    pub fn received(&mut self, bytes: &[u8], peek: bool) -> Result<(), String> {
        let mut places = self.places.clone();
        for (n, &got) in bytes.iter().enumerate() {
            let mut next = BTreeSet::new();
            for &at in &places {
                let in_line = std::iter::once(at);
                let left_out = self.urgent.contains(&at).then_some(at + 1);
                let may_be = in_line.chain(left_out);
                next.extend(may_be.filter(|at| *at < self.accepted && byte(self.seed, *at) == got));
            }
            if next.is_empty() {
                let (accepted, _) = self.progress();
                return Err(format!(
                    "byte {n} of a read at {places:?} of {accepted} is {got:#04x}"
                ));
            }
            places = next.into_iter().map(|at| at + 1).collect();
        }
        if !peek {
            self.places = places;
        }
        Ok(())
    }

    /// `recv(MSG_OOB)` gave `got`.
    ///
    /// # Errors
    /// If no such byte was sent as urgent.
    pub fn received_urgent(&self, got: u8) -> Result<(), String> {
        let known = self.urgent.iter().any(|at| byte(self.seed, *at) == got);
        known.then_some(()).ok_or_else(|| format!("urgent byte {got:#04x} was never sent"))
    }

    /// The receiver's application was told `end`.
    ///
    /// # Errors
    /// If TCP would not have told it so.
    pub fn ended(&self, end: End) -> Result<(), String> {
        let (accepted, got) = self.progress();
        match end {
            _ if self.broken.is_some() => Ok(()),
            End::Reset => Err("a reset, and nothing broke".into()),
            End::Eof if !self.finished => Err("an end of file before the sender's end".into()),
            End::Eof if !self.is_drained() => Err(format!("an end of file at {got} of {accepted}")),
            End::Eof => Ok(()),
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
    fn a_doubled_a_missing_and_an_invented_byte_are_found() {
        let (mut stream, bytes) = sent(100);
        stream.received(&bytes[..10], false).unwrap();
        stream.received(&bytes[10..20], true).unwrap();
        assert!(stream.received(&bytes[..10], false).is_err());
        assert!(stream.received(&bytes[11..20], false).is_err());
        stream.received(&bytes[10..], false).unwrap();
        let next = stream.outgoing(1);
        assert!(stream.received(&next, false).is_err());
    }

    #[test]
    fn an_urgent_byte_may_be_left_out_and_no_other() {
        let (mut stream, mut bytes) = sent(10);
        let more = stream.outgoing(10);
        stream.accepted(10, true);
        bytes.extend(&more[..9]);
        let last = stream.outgoing(5);
        stream.accepted(5, false);
        bytes.extend(&last);
        stream.received(&bytes, false).unwrap();
        assert!(stream.is_drained());
        stream.received_urgent(more[9]).unwrap();
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
