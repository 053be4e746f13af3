// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Writes a scenario's folder: one file a message, lists beside them.
//!
//! Invariant: the folder holds one capture's files and no older ones.

use std::fmt;
use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result};
use smc_golden::Golden;

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Role {
    pub(crate) fn other(self) -> Self {
        match self {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Client => "client",
            Role::Server => "server",
        })
    }
}

/// A message that will be a file.
pub(crate) struct Message {
    pub(crate) step: String,
    pub(crate) role: Role,
    pub(crate) what: String,
    pub(crate) bytes: Vec<u8>,
    notes: Vec<(String, String)>,
}

impl Message {
    pub(crate) fn new(step: &str, role: Role, from: IpAddr, what: String, bytes: Vec<u8>) -> Self {
        let from = if from.is_unspecified() { role.to_string() } else { format!("{role}, {from}") };
        let notes = vec![("step".to_owned(), step.to_owned()), ("from".to_owned(), from)];
        Self { step: step.to_owned(), role, what, bytes, notes }
    }

    /// Adds notes.
    pub(crate) fn with(mut self, notes: Vec<(&str, String)>) -> Self {
        self.notes.extend(notes.into_iter().map(|(key, value)| (key.to_owned(), value)));
        self
    }
}

/// What a scenario's folder is made of.
pub(crate) struct Folder {
    pub(crate) messages: Vec<Message>,
    /// File name and text.
    pub(crate) lists: Vec<(&'static str, String)>,
}

impl Folder {
    /// Replaces the scenario's folder; the number of messages.
    pub(crate) fn write(self, scenario: &str) -> Result<usize> {
        let folder = smc_golden::folder().join(scenario);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let count = self.messages.len();
        let width = count.to_string().len().max(2);
        for (number, message) in (1..).zip(self.messages) {
            let name = format!("{number:0width$}-{}-{}", message.role, message.what);
            let file = folder.join(format!("{name}.hex"));
            let name = format!("{scenario}/{name}");
            let golden = Golden { name, notes: message.notes, bytes: message.bytes };
            fs::write(&file, golden.render()).with_context(|| format!("{}", file.display()))?;
        }
        let says_something = |text: &str| text.lines().any(|line| !line.starts_with('#'));
        for (name, text) in self.lists.into_iter().filter(|(_, text)| says_something(text)) {
            fs::write(folder.join(name), text).with_context(|| name)?;
        }
        Ok(count)
    }
}
