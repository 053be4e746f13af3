// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Enterprise ids: who may speak version 2 with whom.
//!
//! Invariant: at most four ids that a user defined, none of them twice; the system's id may be
//! switched off only while there is another one (`smc_clc_eid_table`).

use arrayvec::ArrayVec;
use smc_wire::id::{Eid, Ueid};

/// Ids that a user may define (`SMC_MAX_UEID`).
pub const MAX_UEIDS: usize = 4;

/// Why the table was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EidError {
    /// `ERANGE`.
    #[error("there are {MAX_UEIDS} user-defined EIDs already")]
    Full,
    /// `EEXIST`.
    #[error("this EID is defined already")]
    Exists,
    /// `ENOENT`.
    #[error("this EID is not defined")]
    Missing,
    /// `EOPNOTSUPP`.
    #[error("this system has no EID of its own")]
    NoSystem,
    /// `ENOENT`.
    #[error("the system's EID is the only one: define another before switching it off")]
    Only,
}

/// The EIDs of this host.
#[derive(Debug, Clone, Default)]
pub struct EidTable {
    ueids: ArrayVec<Ueid, MAX_UEIDS>,
    system: Option<Eid>,
    enabled: bool,
}

impl EidTable {
    /// No EID but the system's, which is switched on; only s390 has one.
    pub fn new(system: Option<Eid>) -> Self {
        Self { ueids: ArrayVec::new(), system, enabled: system.is_some() }
    }

    /// Defines an EID (`smc_clc_ueid_add`).
    ///
    /// # Errors
    /// [`EidError::Full`], [`EidError::Exists`].
    pub fn add(&mut self, ueid: Ueid) -> Result<(), EidError> {
        if self.ueids.is_full() {
            return Err(EidError::Full);
        }
        if self.ueids.contains(&ueid) {
            return Err(EidError::Exists);
        }
        self.ueids.push(ueid);
        Ok(())
    }

    /// Removes an EID; without the last one the system's is switched on
    /// (`smc_clc_ueid_remove`).
    ///
    /// # Errors
    /// [`EidError::Missing`].
    pub fn remove(&mut self, ueid: &Ueid) -> Result<(), EidError> {
        let at = self.ueids.iter().position(|it| it == ueid).ok_or(EidError::Missing)?;
        self.ueids.remove(at);
        self.enabled |= self.ueids.is_empty() && self.system.is_some();
        Ok(())
    }

    /// Removes every EID that a user defined.
    pub fn flush(&mut self) {
        self.ueids.clear();
        self.enabled = self.system.is_some();
    }

    /// Switches the system's EID on or off (`smc_nl_enable_seid`, `smc_nl_disable_seid`).
    ///
    /// # Errors
    /// [`EidError::NoSystem`], [`EidError::Only`].
    pub fn enable_system(&mut self, enabled: bool) -> Result<(), EidError> {
        if self.system.is_none() {
            return Err(EidError::NoSystem);
        }
        if !enabled && self.ueids.is_empty() {
            return Err(EidError::Only);
        }
        self.enabled = enabled;
        Ok(())
    }

    /// The EIDs that a user defined, in the order in which they were.
    pub fn ueids(&self) -> &[Ueid] {
        &self.ueids
    }

    /// The system's EID, if it is switched on.
    pub fn system(&self) -> Option<Eid> {
        self.system.filter(|_| self.enabled)
    }

    /// Whether this host would answer to `eid`.
    pub fn has(&self, eid: &Eid) -> bool {
        self.system() == Some(*eid) || self.has_user(eid)
    }

    fn has_user(&self, eid: &Eid) -> bool {
        self.ueids.iter().any(|it| it.eid() == *eid)
    }

    /// The EID that this server has in common with a client: the system's, if the client `offers`
    /// the same one, else the client's first that is defined here (`smc_clc_match_eid`).
    pub fn negotiate(&self, system: Option<Eid>, offered: &[Eid]) -> Option<Eid> {
        system
            .filter(|it| self.system() == Some(*it))
            .or_else(|| offered.iter().find(|it| self.has_user(it)).copied())
    }
}
