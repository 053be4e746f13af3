// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sizes as messages carry them: buffers, a power of two from 16 KiB, and packets, one from 256;
//! both are compressed into 4 bits.
//!
//! Invariant: a buffer's `n` is from 0 to 15 and means `2^(14 + n)` bytes (`smc_compress_bufsize`); a
//! packet's is from 1 to 5 and means `2^(7 + n)` (`enum ib_mtu`).

use crate::Error;

/// A buffer's size in its compressed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferSize(u8);

impl BufferSize {
    /// 16 KiB.
    pub const MIN: Self = Self(0);
    /// 1 MiB, the largest that Linux uses for SMC-D (`SMCD_DMBE_SIZES`).
    pub const MAX_SMCD: Self = Self(6);
    /// 2 MiB, the largest DMB of vhost-user-ism. Linux takes it from a peer.
    pub const MAX_DMB: Self = Self(7);
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

/// The largest packet of a path, as InfiniBand numbers the five that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathMtu(u8);

impl PathMtu {
    /// 256 bytes.
    pub const MIN: Self = Self(1);
    /// 1024 bytes: what an Ethernet of 1500 bytes carries.
    pub const M1024: Self = Self(3);
    /// 4096 bytes.
    pub const MAX: Self = Self(5);

    /// Checks the low four bits of `bits`, which `field` holds.
    ///
    /// # Errors
    /// [`Error::Field`] if they are not 1 to 5.
    pub const fn from_bits(field: &'static str, bits: u8) -> Result<Self, Error> {
        match bits & 0xF {
            n @ 1..=5 => Ok(Self(n)),
            n => Err(Error::Field { field, value: n as u64, allowed: "1 (256 bytes) to 5 (4096)" }),
        }
    }

    /// The four bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Bytes: 256 to 4096.
    pub const fn bytes(self) -> u32 {
        1 << (7 + self.0)
    }
}
