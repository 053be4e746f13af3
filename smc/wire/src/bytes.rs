// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reads and writes fields one after another.
//!
//! Invariant: the bounds are checked on each access; nothing else in the crate touches a slice by
//! index.

use crate::Error;

/// A position in bytes that are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    /// Begins at the first byte of `bytes`, which should hold a `what`.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes, len: bytes.len() }
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let Some((taken, rest)) = self.rest.split_at_checked(n) else {
            return Err(Error::Short {
                what: self.what,
                need: self.position() + n,
                have: self.len,
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes, by value.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Three bytes, big-endian: a QPN or a PSN.
    pub(crate) fn u24(&mut self) -> Result<u32, Error> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_be_bytes([0, a, b, c]))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.len - self.rest.len()
    }

    /// Bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// A position in bytes that are written.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    what: &'static str,
    bytes: &'a mut [u8],
    position: usize,
}

impl<'a> Writer<'a> {
    /// Begins at the first byte of `bytes`, which shall hold a `what`.
    pub(crate) fn new(what: &'static str, bytes: &'a mut [u8]) -> Self {
        Self { what, bytes, position: 0 }
    }

    pub(crate) fn put(&mut self, field: &[u8]) -> Result<(), Error> {
        let (need, have) = (self.position + field.len(), self.bytes.len());
        let Some(room) = self.bytes.get_mut(self.position..need) else {
            return Err(Error::Short { what: self.what, need, have });
        };
        room.copy_from_slice(field);
        self.position = need;
        Ok(())
    }

    pub(crate) fn zeros(&mut self, n: usize) -> Result<(), Error> {
        (0..n).try_for_each(|_| self.put(&[0]))
    }

    pub(crate) fn u8(&mut self, field: u8) -> Result<(), Error> {
        self.put(&[field])
    }

    pub(crate) fn u16(&mut self, field: u16) -> Result<(), Error> {
        self.put(&field.to_be_bytes())
    }

    /// The low three bytes, big-endian.
    pub(crate) fn u24(&mut self, field: u32) -> Result<(), Error> {
        let [_, low @ ..] = field.to_be_bytes();
        self.put(&low)
    }

    pub(crate) fn u32(&mut self, field: u32) -> Result<(), Error> {
        self.put(&field.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, field: u64) -> Result<(), Error> {
        self.put(&field.to_be_bytes())
    }

    /// Bytes written so far: what `emit` returns.
    pub(crate) fn position(&self) -> usize {
        self.position
    }
}
