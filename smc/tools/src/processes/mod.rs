// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Processes under `smc-run`: finding them, and asking them.
//!
//! Invariant: a row is shown as a process's only if the kernel says that this process answered, and that
//! it has the row's socket; one that does not answer, or answers nonsense, is named, costs [`PATIENCE`],
//! whatever their number [`LONGEST`], and the others are shown.
//!
//! Each listens on an abstract socket of its network namespace (`smc_snapshot`). Other namespaces are
//! looked into where this program may (root): abstract names are a namespace's own. Any user can bind
//! such a name, so a name says nothing of who answers.

mod ask;
mod find;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smc_snapshot::Snapshot;

/// How long one process is waited for.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long all are waited for, together.
pub const LONGEST: Duration = Duration::from_secs(5);

/// How long is waited for answers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For each.
    pub each: Duration,
    /// For all.
    pub all: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { each: PATIENCE, all: LONGEST }
    }
}

/// The process that something belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// A process that has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub holder: Holder,
    /// What it has told; its texts are printable.
    pub snapshot: Snapshot,
}

/// All processes that could be asked, and what went wrong with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Those that answered, by their numbers.
    pub told: Vec<Told>,
    /// What to tell the user; printable.
    pub problems: Vec<String>,
}

/// Where is looked for processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In all network namespaces that this program may look into.
    Anywhere,
    /// In this program's.
    Here,
}

/// Finds and asks all processes.
pub fn ask_all(place: Where) -> Processes {
    ask_within(place, Limits::default())
}

/// The same, for as long as is said.
pub fn ask_within(place: Where, limits: Limits) -> Processes {
    let mut places = find::places();
    places.retain(|it| it.here || place == Where::Anywhere);
    ask::all(&places, limits)
}
