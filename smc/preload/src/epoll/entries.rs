// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The connections in an epoll instance.
//!
//! Invariant: an entry is found by its number only as long as that is its connection's. It stays longer: to the kernel,
//! too, an entry is one of a file and a number, and ends with the file or by a call for both.

use std::collections::HashMap;
use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use super::{File, Interest};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Entries {
    numbered: HashMap<c_int, Arc<Interest>>,
    /// Those whose numbers the program has closed, but not their connections.
    orphans: Vec<Arc<Interest>>,
}

impl Entries {
    /// The entry with a number.
    pub(super) fn at(&self, fd: c_int) -> Option<Arc<Interest>> {
        self.numbered.get(&fd).cloned()
    }

    /// The entry of a connection that has a number: an orphan's may be its again.
    pub(super) fn find(&self, fd: c_int, file: &Arc<File>) -> Option<Arc<Interest>> {
        let orphan = || self.orphans.iter().find(|it| it.is_of(fd, file));
        self.numbered.get(&fd).or_else(orphan).cloned()
    }

    /// Those with numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = &Arc<Interest>> {
        self.numbered.values()
    }

    pub(super) fn insert(&mut self, interest: &Arc<Interest>) {
        self.numbered.insert(interest.fd, Arc::clone(interest));
    }

    /// Its number may be another connection's from now on.
    pub(super) fn orphan(&mut self, interest: &Interest) {
        let orphan = self.take(interest);
        self.orphans.extend(orphan);
    }

    pub(super) fn remove(&mut self, interest: &Interest) {
        self.take(interest);
        self.orphans.retain(|it| !ptr::eq(&**it, interest));
    }

    fn take(&mut self, interest: &Interest) -> Option<Arc<Interest>> {
        let there = self.numbered.get(&interest.fd)?;
        if ptr::eq(&**there, interest) { self.numbered.remove(&interest.fd) } else { None }
    }

    /// All of them, which are here no more.
    pub(super) fn drain(&mut self) -> Vec<Arc<Interest>> {
        let numbered = self.numbered.drain().map(|(_, interest)| interest);
        numbered.chain(self.orphans.drain(..)).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.numbered.is_empty() && self.orphans.is_empty()
    }
}
