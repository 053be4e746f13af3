// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The window: what the daemon has mapped, by its place. Nothing is mapped there: each extent is wherever
//! the kernel put it.
//!
//! Invariant: no two extents share a place; one that was taken out stays mapped for the views that hold it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smc_ring::{Mapping, Memory, View};

use crate::error::{Error, Result};

/// Extents by their place in bytes.
#[derive(Debug, Default)]
pub(super) struct Window(Mutex<BTreeMap<u64, Arc<Mapping>>>);

impl Window {
    /// Maps `len` bytes from `at` of a file to `offset`.
    pub(super) fn map(&self, file: &OwnedFd, at: u64, offset: u64, len: u64) -> Result<()> {
        let strange = || Error::Device(format!("a map of {len:#x} bytes at {offset:#x}"));
        let end = offset.checked_add(len).ok_or_else(strange)?;
        let mut extents = self.lock();
        let before = extents.range(..end).next_back();
        if before.is_some_and(|(start, mapping)| start + mapping.len() as u64 > offset) {
            return Err(strange());
        }
        let mapping = Mapping::new(file, at, usize::try_from(len).map_err(|_| strange())?)?;
        extents.insert(offset, Arc::new(mapping));
        Ok(())
    }

    /// Takes out the extent at `offset`.
    pub(super) fn unmap(&self, offset: u64, len: u64) -> Result<()> {
        let mut extents = self.lock();
        match extents.get(&offset) {
            Some(mapping) if mapping.len() as u64 == len => {
                extents.remove(&offset);
                Ok(())
            }
            _ => Err(Error::Device(format!("an unmap of {len:#x} bytes at {offset:#x}"))),
        }
    }

    /// `len` bytes at `offset`.
    pub(super) fn view(&self, offset: u64, len: usize) -> Result<View> {
        let missing = || Error::Device(format!("nothing is mapped at {offset:#x} of the window"));
        let extents = self.lock();
        let (start, mapping) = extents.range(..=offset).next_back().ok_or_else(missing)?;
        let within = usize::try_from(offset - start).map_err(|_| missing())?;
        let mapping = Arc::clone(mapping);
        Ok(View::new(mapping).part(within, len)?)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Mapping>>> {
        // Changed by single calls, so a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
