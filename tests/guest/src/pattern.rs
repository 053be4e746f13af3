// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes that tell where in which stream they belong.
//!
//! Invariant: two streams with different seeds, or two offsets of one stream, do not look alike.

/// The bytes of one stream, from its start.
pub(crate) struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The stream with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        // An odd multiplier keeps seeds apart; zero would stay zero in the generator.
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, word: [0; 8], used: 8 }
    }

    /// Fills `buffer` with the next bytes.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.next_byte();
        }
    }

    /// Compares `bytes` with the next bytes; the index of the first that differs.
    pub(crate) fn check(&mut self, bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(|&byte| byte != self.next_byte())
    }

    fn next_byte(&mut self) -> u8 {
        if self.used == self.word.len() {
            // xorshift64 (Marsaglia 2003).
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.word = self.state.to_le_bytes();
            self.used = 0;
        }
        let byte = self.word.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let mut bytes = [0; 1000];
        Pattern::new(7).fill(&mut bytes);
        assert_eq!(Pattern::new(7).check(&bytes), None);
        bytes[500] ^= 1;
        assert_eq!(Pattern::new(7).check(&bytes), Some(500));
        assert!(Pattern::new(8).check(&bytes).is_some());
    }
}
