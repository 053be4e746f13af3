// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ways a program is run.
//!
//! Invariant: the ways differ in what is put before the program's name, and in nothing else.

use std::fmt::Debug;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::launcher;

/// How the connections of a test's programs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Without the preload.
    Plain,
    /// With the preload, which looks at all calls and stays with TCP.
    Fallback,
}

impl Way {
    /// All ways, the one that the others are compared with first.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Fallback];

    /// The command that starts `program` this way.
    pub fn command(self, program: &str) -> Command {
        match self {
            Self::Plain => Command::new(program),
            Self::Fallback => {
                let mut command = Command::new(launcher());
                command.args(["-n", program]);
                command
            }
        }
    }
}

/// Runs `test` each way.
///
/// # Panics
/// It fails one way, or its results differ.
pub fn compare<T: Debug + PartialEq>(test: impl Fn(Way) -> Result<T>) {
    let mut first: Option<T> = None;
    for way in Way::ALL {
        let result = test(way).with_context(|| format!("{way:?}"));
        let result = result.unwrap_or_else(|error| panic!("{error:?}"));
        match &first {
            None => first = Some(result),
            Some(first) => assert_eq!(&result, first, "{way:?} differs"),
        }
    }
}
