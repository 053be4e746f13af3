// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lists of keys and GIDs at the end of messages.
//!
//! Invariant: a parsed list has only whole items that were received; nothing is copied or allocated.

use core::fmt;

use crate::Error;
use crate::bytes::{Reader, Writer};
use crate::id::{Rkey, RoceGid};

/// Room for the longest item.
const ITEM: usize = 16;

/// What a [`List`] holds: [`Rkey`], [`RkeyUpdate`] or [`RoceGid`].
pub trait Item: Copy + PartialEq + fmt::Debug {
    /// Bytes on the wire, at most 16.
    const LEN: usize;

    /// From its wire form, the first [`Item::LEN`] bytes.
    fn from_wire(bytes: [u8; ITEM]) -> Self;

    /// To its wire form, zeros behind it.
    fn to_wire(self) -> [u8; ITEM];
}

impl Item for RoceGid {
    const LEN: usize = 16;

    fn from_wire(bytes: [u8; ITEM]) -> Self {
        Self(bytes)
    }

    fn to_wire(self) -> [u8; ITEM] {
        self.0
    }
}

impl Item for Rkey {
    const LEN: usize = 4;

    fn from_wire([a, b, c, d, ..]: [u8; ITEM]) -> Self {
        Self(u32::from_be_bytes([a, b, c, d]))
    }

    fn to_wire(self) -> [u8; ITEM] {
        (u128::from(self.0) << 96).to_be_bytes()
    }
}

/// The key of an RMB on the new link (`struct smc_llc_msg_add_link_cont_rt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RkeyUpdate {
    /// The RMB's key on the link that carries the message: says which RMB is meant.
    pub known: Rkey,
    /// Its key on the new link.
    pub new: Rkey,
    /// Its address on the new link.
    pub vaddr: u64,
}

impl Item for RkeyUpdate {
    const LEN: usize = 16;

    fn from_wire([k0, k1, k2, k3, n0, n1, n2, n3, vaddr @ ..]: [u8; ITEM]) -> Self {
        Self {
            known: Rkey(u32::from_be_bytes([k0, k1, k2, k3])),
            new: Rkey(u32::from_be_bytes([n0, n1, n2, n3])),
            vaddr: u64::from_be_bytes(vaddr),
        }
    }

    fn to_wire(self) -> [u8; ITEM] {
        let keys = u128::from(self.known.0) << 96 | u128::from(self.new.0) << 64;
        (keys | u128::from(self.vaddr)).to_be_bytes()
    }
}

/// A list that was received, as the bytes it came in, or one that shall be sent.
#[derive(Clone, Copy)]
pub struct List<'a, T>(Source<'a, T>);

#[derive(Clone, Copy)]
enum Source<'a, T> {
    Wire(&'a [u8]),
    Own(&'a [T]),
}

impl<'a, T: Item> List<'a, T> {
    /// No items.
    pub const EMPTY: Self = Self(Source::Own(&[]));

    /// A list to be sent.
    pub const fn new(items: &'a [T]) -> Self {
        Self(Source::Own(items))
    }

    /// As many of `claimed` items as are there.
    pub(super) fn parse(reader: &mut Reader<'a>, claimed: usize) -> Result<Self, Error> {
        let there = reader.rest().len() / T::LEN;
        Ok(Self(Source::Wire(reader.take(claimed.min(there) * T::LEN)?)))
    }

    pub(super) fn emit(&self, writer: &mut Writer) -> Result<(), Error> {
        self.iter().try_for_each(|item| {
            let bytes = item.to_wire();
            writer.put(bytes.get(..T::LEN).unwrap_or_default())
        })
    }

    /// Bytes on the wire.
    pub(super) fn wire_len(&self) -> usize {
        self.len() * T::LEN
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Wire(bytes) => bytes.len() / T::LEN,
            Source::Own(items) => items.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let (bytes, items): (&[u8], &[T]) = match self.0 {
            Source::Wire(bytes) => (bytes, &[]),
            Source::Own(items) => (&[], items),
        };
        let wire = bytes.chunks_exact(T::LEN).map(|chunk| {
            let mut item = [0; ITEM];
            for (to, from) in item.iter_mut().zip(chunk) {
                *to = *from;
            }
            T::from_wire(item)
        });
        wire.chain(items.iter().copied())
    }
}

impl<T: Item> Default for List<'_, T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<T: Item> PartialEq for List<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Item> Eq for List<'_, T> {}

impl<T: Item> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
