// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! DMB tokens: a keyed permutation of a counter (spec/decisions/0002-tokens.md).
//!
//! Invariant: `next` never returns 0 and never the same token twice, because a Feistel network is
//! a permutation whatever its round function is; unguessability is SipHash-2-4's.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Bytes of the key.
pub const TOKEN_KEY_SIZE: usize = 16;

/// Rounds: four make a strong pseudo-random permutation (Luby, Rackoff), eight leave room for the
/// short halves.
const ROUNDS: u8 = 8;

pub(crate) struct Tokens {
    key: SipHasher24,
    counter: u64,
}

impl fmt::Debug for Tokens {
    /// Without the key: who reads a log must not be able to compute tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issued", &self.counter).finish_non_exhaustive()
    }
}

impl Tokens {
    pub(crate) fn new(key: &[u8; TOKEN_KEY_SIZE]) -> Self {
        Self { key: SipHasher24::new_with_key(key), counter: 0 }
    }

    /// A token that no DMB of this fabric ever had.
    pub(crate) fn next(&mut self) -> u64 {
        loop {
            // Wraps after 2^64 tokens: five thousand years at a hundred million a second.
            self.counter = self.counter.wrapping_add(1);
            let token = self.permute(self.counter);
            if token != 0 {
                return token;
            }
        }
    }

    fn permute(&self, block: u64) -> u64 {
        let (mut left, mut right) = halves(block);
        for round in 0..ROUNDS {
            let mut keyed = self.key;
            keyed.write_u32(right);
            keyed.write_u8(round);
            let (_, mixed) = halves(keyed.finish());
            (left, right) = (right, left ^ mixed);
        }
        u64::from(left) << 32 | u64::from(right)
    }
}

/// High and low half.
fn halves(block: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = block.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_do_not_repeat() {
        let mut tokens = Tokens::new(b"0123456789abcdef");
        let issued: HashSet<u64> = (0..100_000).map(|_| tokens.next()).collect();
        assert!(issued.len() == 100_000 && !issued.contains(&0));
    }

    /// The network run backwards: what it permutes can be told from the result, so no two are equal.
    fn invert(tokens: &Tokens, token: u64) -> u64 {
        let (mut left, mut right) = halves(token);
        for round in (0..ROUNDS).rev() {
            let mut keyed = tokens.key;
            keyed.write_u32(left);
            keyed.write_u8(round);
            let (_, mixed) = halves(keyed.finish());
            (left, right) = (right ^ mixed, left);
        }
        u64::from(left) << 32 | u64::from(right)
    }

    #[test]
    fn the_permutation_is_one() {
        let tokens = Tokens::new(b"0123456789abcdef");
        for block in [0, 1, 2, 0xffff_ffff, 1 << 32, u64::MAX - 1, u64::MAX] {
            assert_eq!(invert(&tokens, tokens.permute(block)), block);
        }
    }

    #[test]
    fn zero_is_skipped() {
        let mut tokens = Tokens::new(b"0123456789abcdef");
        tokens.counter = invert(&tokens, 0).wrapping_sub(1);
        let after_zero = tokens.permute(tokens.counter.wrapping_add(2));
        assert_eq!(tokens.next(), after_zero);
    }

    #[test]
    fn the_key_decides() {
        let of = |key| Tokens::new(key).next();
        let (one, other) = (of(b"0123456789abcdef"), of(b"0123456789abcdeg"));
        // About half the bits differ; these two keys' do.
        assert!((16..=48).contains(&(one ^ other).count_ones()));
    }
}
