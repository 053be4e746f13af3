// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reads the policy file.
//!
//! Invariant: a file is taken as a whole or not at all, and a complaint names file and line.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Policy, Prefix, Rule, Transport};

/// Why a policy file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("the policy file {file} cannot be read: {source}", file = file.display())]
    Read {
        /// As given.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says what is not allowed.
    #[error("{file}:{line}: {message}", file = file.display())]
    Content {
        /// As given.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what is allowed.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    default: Option<Transport>,
    #[serde(default)]
    rule: Vec<Rule>,
    #[serde(default)]
    rendezvous: Rendezvous,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rendezvous {
    #[serde(default)]
    unique: Vec<Prefix>,
}

impl Policy {
    /// Reads the rules from a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or holds anything else.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { file: path.into(), source })?;
        Self::parse(&text, path)
    }

    /// Takes the rules from a text; `file` is where it came from, for the message.
    ///
    /// # Errors
    ///
    /// If it is no TOML, or has other keys or values than the module's documentation shows.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Error> {
        let parsed: File = toml::from_str(text).map_err(|error| Error::Content {
            file: file.into(),
            line: line(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        Ok(Self {
            rules: parsed.rule,
            default: parsed.default.unwrap_or(Transport::Smc),
            unique: parsed.rendezvous.unique,
        })
    }
}

/// The number of the line that holds byte `offset`.
fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
