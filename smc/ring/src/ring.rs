// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ring of a DMB: the bytes behind its CDC area.
//!
//! Invariant: a copy stays inside the ring, and is one or two pieces.

use std::mem::MaybeUninit;

use smc_wire::cdc::Smcd;

use crate::view::{OutOfBounds, View};

/// A ring's bytes; the cursors are the connection's.
#[derive(Debug, Clone)]
pub struct Ring(View);

impl Ring {
    /// The ring of a DMB's element: what is behind the 32 bytes of the CDC area.
    ///
    /// # Errors
    /// There is nothing behind them.
    pub fn of(element: &View) -> Result<Self, OutOfBounds> {
        let outside = OutOfBounds { at: Smcd::LEN, len: 1, size: element.len() };
        match element.len().checked_sub(Smcd::LEN) {
            None | Some(0) => Err(outside),
            Some(len) => element.part(Smcd::LEN, len).map(Self),
        }
    }

    /// Bytes.
    #[expect(clippy::len_without_is_empty, reason = "no ring is empty")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Copies `bytes` to offset `at`, and what is past the ring's end to its start.
    ///
    /// # Errors
    /// `at` is past the end, or there are more bytes than the ring has; nothing is copied then.
    #[inline]
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let (first, second) = self.split(at, bytes.len())?;
        let (head, tail) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
        self.0.write(at, head)?;
        if second > 0 { self.0.write(0, tail) } else { Ok(()) }
    }

    /// As [`Ring::write`], past the caches: for a reader on a core that has none in common with this one.
    ///
    /// # Errors
    /// As for [`Ring::write`].
    pub fn write_past_caches(&self, at: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let (first, second) = self.split(at, bytes.len())?;
        let (head, tail) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
        self.0.write_past_caches(at, head)?;
        if second > 0 { self.0.write_past_caches(0, tail) } else { Ok(()) }
    }

    /// Copies bytes from offset `at`, and from the ring's start what is past its end.
    ///
    /// # Errors
    /// As for [`Ring::write`].
    #[inline]
    pub fn read(&self, at: usize, buffer: &mut [u8]) -> Result<(), OutOfBounds> {
        let (first, second) = self.split(at, buffer.len())?;
        let (head, tail) = buffer.split_at_mut(first);
        self.0.read(at, head)?;
        if second > 0 { self.0.read(0, tail) } else { Ok(()) }
    }

    /// As [`Ring::read`], into a buffer that need not be initialised, and is after it.
    ///
    /// # Errors
    /// As for [`Ring::write`].
    pub fn read_uninit(
        &self,
        at: usize,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<(), OutOfBounds> {
        let (first, second) = self.split(at, buffer.len())?;
        let (head, tail) = buffer.split_at_mut(first);
        self.0.read_uninit(at, head)?;
        if second > 0 { self.0.read_uninit(0, tail).map(drop) } else { Ok(()) }
    }

    /// Makes all bytes zero.
    pub fn zero(&self) {
        self.0.zero();
    }

    /// How many of `len` bytes from `at` are before the end, and how many after.
    #[inline]
    fn split(&self, at: usize, len: usize) -> Result<(usize, usize), OutOfBounds> {
        let size = self.0.len();
        if at >= size || len > size {
            return Err(OutOfBounds { at, len, size });
        }
        let first = len.min(size - at);
        Ok((first, len - first))
    }
}
