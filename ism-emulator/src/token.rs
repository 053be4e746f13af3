// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! DMB tokens: a keyed permutation of a counter (spec/decisions/0002-tokens.md).
//!
//! Invariant: `next` never returns 0 and never the same token twice, because a Feistel network is
//! a permutation whatever its round function is; unguessability is SipHash-2-4's.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Bytes of the key.
pub const TOKEN_KEY_SIZE: usize = 16;

/// Rounds: four make a strong pseudo-random permutation (Luby, Rackoff), eight leave room for the
/// short halves.
const ROUNDS: u8 = 8;

#[derive(Debug)]
pub(crate) struct Tokens {
    key: SipHasher24,
    counter: u64,
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
