// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Decisions from a fuzzer's bytes.
//!
//! Invariant: when the bytes end, every further decision is 0.

/// Bytes not used yet.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// No byte is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A byte says how many follow.
    pub fn run(&mut self) -> &'a [u8] {
        let len = self.byte();
        self.take(len.into())
    }

    /// Four bytes, little-endian.
    pub fn word(&mut self) -> u32 {
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(self.take(4)) {
            *to = *from;
        }
        u32::from_le_bytes(word)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
