// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Buffer sizes as messages carry them: a power of two from 16 KiB, compressed into 4 bits.
//!
//! Invariant: `bytes = 2^(14 + n)`, `n` from 0 to 15 (`smc_compress_bufsize`).

/// A buffer's size in its compressed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferSize(u8);

impl BufferSize {
    /// 16 KiB.
    pub const MIN: Self = Self(0);
    /// 1 MiB, the largest that Linux uses for SMC-D (`SMCD_DMBE_SIZES`).
    pub const MAX_SMCD: Self = Self(6);
    /// 512 MiB, the largest that the wire can say (`SMCR_RMBE_SIZES`).
    pub const MAX: Self = Self(15);

    /// The low four bits of `n`.
    pub const fn from_bits(n: u8) -> Self {
        Self(n & 0xF)
    }

    /// The four bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Bytes: 16 KiB to 512 MiB.
    pub const fn bytes(self) -> u32 {
        1 << (14 + self.0)
    }

    /// The smallest size that holds `bytes`, at most `max`.
    pub const fn covering(bytes: u32, max: Self) -> Self {
        let mut n = 0;
        while n < max.0 && (1u32 << (14 + n)) < bytes {
            n += 1;
        }
        Self(n)
    }

    /// The next smaller size, if there is one: a step of degradation.
    pub const fn smaller(self) -> Option<Self> {
        if self.0 == 0 { None } else { Some(Self(self.0 - 1)) }
    }
}
