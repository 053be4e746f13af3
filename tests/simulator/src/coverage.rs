// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the runs have seen: states, transitions, messages, endings.
//!
//! Invariant: counts only what was there; what was not is not in the report, so a test that wants
//! something names it.

use std::collections::BTreeMap;
use std::fmt;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CLC, CDC and LLC messages, events.
    Message,
    /// A state of a connection after another one.
    Transition,
    /// How a handshake or a connection ended.
    Ending,
    /// A fault that found something to spoil.
    Fault,
}

/// Counts by kind and name.
#[derive(Debug, Clone, Default)]
pub struct Coverage(BTreeMap<(Kind, String), u64>);

impl Coverage {
    /// Something happened.
    pub fn saw(&mut self, kind: Kind, name: impl Into<String>) {
        *self.0.entry((kind, name.into())).or_default() += 1;
    }

    /// How often.
    pub fn count(&self, kind: Kind, name: &str) -> u64 {
        self.0.get(&(kind, name.to_owned())).copied().unwrap_or_default()
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            *self.0.entry(key.clone()).or_default() += count;
        }
    }

    /// Names of one kind.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.0.keys().filter(move |key| key.0 == kind).map(|key| key.1.as_str())
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut last = None;
        for ((kind, name), count) in &self.0 {
            if last != Some(kind) {
                writeln!(f, "{kind:?}s")?;
                last = Some(kind);
            }
            writeln!(f, "{count:>10}  {name}")?;
        }
        Ok(())
    }
}
