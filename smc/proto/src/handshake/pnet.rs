// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! PNETIDs: names of physical networks, which say what ISM device or RoCE port an interface reaches.
//!
//! Invariant: a [`PnetId`] is 1 to 16 of A-Z and 0-9; the hardware's own id always comes before one
//! of the table (`smc_pnet.c`).

use std::fmt;

/// The name of a physical network.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PnetId([u8; 16]);

impl PnetId {
    /// Takes 1 to 16 letters and digits, in any case, with blanks around them (`smc_pnetid_valid`).
    ///
    /// # Errors
    /// [`PnetError::Syntax`].
    pub fn new(text: &str) -> Result<Self, PnetError> {
        let name = text.trim_matches(|c: char| c.is_ascii_whitespace()).as_bytes();
        let mut padded = [b' '; 16];
        let room = padded.get_mut(..name.len()).filter(|room| !room.is_empty());
        let alphanumeric = name.iter().all(u8::is_ascii_alphanumeric);
        match room {
            Some(room) if alphanumeric => {
                room.copy_from_slice(name);
                padded.make_ascii_uppercase();
                Ok(Self(padded))
            }
            _ => Err(PnetError::Syntax),
        }
    }
}

impl fmt::Display for PnetId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.trim_ascii_end().escape_ascii().fmt(f)
    }
}

impl fmt::Debug for PnetId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "PnetId({self})")
    }
}

/// Why the PNET table was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PnetError {
    /// Not a PNETID.
    #[error("a PNETID is 1 to 16 letters and digits")]
    Syntax,
    /// The table has a line for that interface or port.
    #[error("the PNET table has an entry for it already")]
    Exists,
    /// No line has that PNETID.
    #[error("the PNET table has no entry with that PNETID")]
    Missing,
}

/// What a line of the table gives a PNETID to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A network interface, by its name; there may be none of that name yet.
    Interface(String),
    /// An ISM device, or a port of a RoCE adapter, by the device's or its parent's name.
    Device {
        /// The name, such as `rxe0` or `0000:00:05.0`.
        name: String,
        /// The port, from 1; an ISM device is found by its name alone.
        port: u8,
    },
}

/// The PNET table, as the user wrote it.
#[derive(Debug, Clone, Default)]
pub struct PnetTable(Vec<(Named, PnetId)>);

impl PnetTable {
    /// Adds a line.
    ///
    /// # Errors
    /// [`PnetError::Exists`] if `named` has one.
    pub fn add(&mut self, named: Named, id: PnetId) -> Result<(), PnetError> {
        if self.0.iter().any(|(there, _)| *there == named) {
            return Err(PnetError::Exists);
        }
        self.0.push((named, id));
        Ok(())
    }

    /// Removes each line with that PNETID.
    ///
    /// # Errors
    /// [`PnetError::Missing`] if there was none.
    pub fn remove(&mut self, id: PnetId) -> Result<(), PnetError> {
        let before = self.0.len();
        self.0.retain(|(_, there)| *there != id);
        if self.0.len() == before { Err(PnetError::Missing) } else { Ok(()) }
    }

    /// Removes every line.
    pub fn flush(&mut self) {
        self.0.clear();
    }

    /// The lines, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &(Named, PnetId)> {
        self.0.iter()
    }

    /// The PNETID of the interface of that name (`smc_pnet_find_ndev_pnetid_by_table`).
    pub fn of_interface(&self, name: &str) -> Option<PnetId> {
        let found = |named: &Named| matches!(named, Named::Interface(it) if it == name);
        self.0.iter().find(|(named, _)| found(named)).map(|(_, id)| *id)
    }

    /// The PNETID of the ISM device with one of these names (`smc_pnetid_by_table_smcd`).
    pub fn of_ism(&self, name: &str, parent: &str) -> Option<PnetId> {
        let found = |named: &Named| matches!(named, Named::Device { name: it, .. } if it == name || (it == parent && !it.is_empty()));
        self.0.iter().find(|(named, _)| found(named)).map(|(_, id)| *id)
    }

    /// The PNETID of a RoCE port (`smc_pnetid_by_table_ib`).
    pub fn of_port(&self, name: &str, port: u8) -> Option<PnetId> {
        let found = |named: &Named| matches!(named, Named::Device { name: it, port: at } if it == name && *at == port);
        self.0.iter().find(|(named, _)| found(named)).map(|(_, id)| *id)
    }
}
