// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Repeatable randomness.
//!
//! Invariant: the seed is printed when it is chosen, and the same seed gives the same numbers.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers from the seed in the variable `ISM_SEED`, else from the clock; says which.
    pub fn announced(what: &str) -> Self {
        let chosen = std::env::var("ISM_SEED").ok().and_then(|text| text.parse().ok());
        let seed = chosen.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_secs() << 30 ^ u64::from(now.subsec_nanos()))
        });
        eprintln!("{what}: ISM_SEED={seed}");
        Self::new(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        // The high half of a 32 × 32 bit product: below `limit`, so it fits.
        u32::try_from(((self.word() >> 32) * u64::from(limit)) >> 32).unwrap_or(0)
    }

    /// An index into something of `len` elements, which is not empty.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.word() % len as u64).unwrap_or(0)
    }

    /// One of `values`, which are not empty.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.index(values.len())]
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}
