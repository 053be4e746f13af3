// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An ISM fabric: DMBs of the ends, as the device and its driver promise them to SMC.
//!
//! Invariant: a DMB has one owner and one writer; a token names one DMB for ever; memory of a new
//! DMB is zero (`include/linux/dibs.h`).

use std::collections::BTreeMap;

use smc_wire::id::{DmbToken, IsmGid};

/// Memory of one DMB.
#[derive(Debug)]
struct Dmb {
    owner: IsmGid,
    writer: IsmGid,
    bytes: Vec<u8>,
    /// Whether the writer has it mapped: then the memory outlives the owner's unregister.
    attached: bool,
    registered: bool,
}

/// The fabric.
#[derive(Debug, Default)]
pub struct Ism {
    dmbs: BTreeMap<u64, Dmb>,
    tokens: u64,
}

/// The device refused: no such token, not the caller's, or outside of the DMB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl Ism {
    /// Registers `len` bytes of `owner` for `writer`.
    pub fn register(&mut self, owner: IsmGid, writer: IsmGid, len: usize) -> DmbToken {
        self.tokens += 1;
        // Spread, as real tokens are; an odd factor keeps them distinct.
        let token = self.tokens.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bytes = vec![0; len];
        self.dmbs.insert(token, Dmb { owner, writer, bytes, attached: false, registered: true });
        DmbToken(token)
    }

    fn find(&mut self, token: DmbToken) -> Result<&mut Dmb, Refused> {
        self.dmbs.get_mut(&token.0).ok_or(Refused)
    }

    /// Ends a DMB; a writer that is attached keeps the memory until it detaches.
    pub fn unregister(&mut self, owner: IsmGid, token: DmbToken) -> Result<(), Refused> {
        let dmb = self.find(token)?;
        if dmb.owner != owner || !dmb.registered {
            return Err(Refused);
        }
        dmb.registered = false;
        if !dmb.attached {
            self.dmbs.remove(&token.0);
        }
        Ok(())
    }

    /// Maps a DMB into its writer.
    pub fn attach(&mut self, writer: IsmGid, token: DmbToken) -> Result<usize, Refused> {
        let dmb = self.find(token)?;
        if dmb.writer != writer || !dmb.registered || dmb.attached {
            return Err(Refused);
        }
        dmb.attached = true;
        Ok(dmb.bytes.len())
    }

    /// Unmaps it again.
    pub fn detach(&mut self, writer: IsmGid, token: DmbToken) -> Result<(), Refused> {
        let dmb = self.find(token)?;
        if dmb.writer != writer || !dmb.attached {
            return Err(Refused);
        }
        dmb.attached = false;
        if !dmb.registered {
            self.dmbs.remove(&token.0);
        }
        Ok(())
    }

    /// Zeroes an own DMB.
    pub fn zero(&mut self, owner: IsmGid, token: DmbToken) -> Result<(), Refused> {
        let dmb = self.find(token)?;
        if dmb.owner != owner {
            return Err(Refused);
        }
        dmb.bytes.fill(0);
        Ok(())
    }

    /// `move_data`, and stores through a mapping.
    pub fn write(
        &mut self,
        writer: IsmGid,
        token: DmbToken,
        offset: usize,
        bytes: &[u8],
    ) -> Result<IsmGid, Refused> {
        let dmb = self.find(token)?;
        if dmb.writer != writer || !(dmb.registered || dmb.attached) {
            return Err(Refused);
        }
        let place = dmb.bytes.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
        place.ok_or(Refused)?.copy_from_slice(bytes);
        Ok(dmb.owner)
    }

    /// The owner reads its own DMB; a writer reads what it has mapped.
    pub fn read(&self, token: DmbToken, offset: usize, len: usize) -> Result<&[u8], Refused> {
        let dmb = self.dmbs.get(&token.0).ok_or(Refused)?;
        dmb.bytes.get(offset..).and_then(|rest| rest.get(..len)).ok_or(Refused)
    }

    /// An end is gone, with all that it owns or has mapped.
    pub fn remove(&mut self, gid: IsmGid) {
        for dmb in self.dmbs.values_mut().filter(|dmb| dmb.writer == gid) {
            dmb.attached = false;
        }
        for dmb in self.dmbs.values_mut().filter(|dmb| dmb.owner == gid) {
            dmb.registered = false;
        }
        self.dmbs.retain(|_, dmb| dmb.registered || dmb.attached);
    }

    /// DMBs that there are.
    pub fn len(&self) -> usize {
        self.dmbs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.dmbs.is_empty()
    }
}
