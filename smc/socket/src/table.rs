// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which socket a signal is for.
//!
//! Invariant: an index names the socket whose connection has that DMB now, or nobody.

use std::sync::{Arc, PoisonError, RwLock};

use crate::shared::Shared;

/// Established sockets by their DMB's index.
#[derive(Debug, Default)]
pub(crate) struct Table(RwLock<Vec<Option<Arc<Shared>>>>);

impl Table {
    /// Says whose DMB `index` is; the table grows up to there.
    pub(crate) fn set(&self, index: u16, socket: Option<Arc<Shared>>) {
        let mut slots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let at = usize::from(index);
        if slots.len() <= at {
            slots.resize(at + 1, None);
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = socket;
        }
    }

    /// Whose it is.
    pub(crate) fn get(&self, index: u32) -> Option<Arc<Shared>> {
        let slots = self.0.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(usize::try_from(index).ok()?)?.clone()
    }
}
