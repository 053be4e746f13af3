// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `key=value,…`, as `--vm` and `--processes` take it.
//!
//! Invariant: a key is known and occurs once; an error says what is allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::QuotaConfig;
use super::value::{Bytes, ValueError};

/// The keys of a member's limits.
const QUOTA: [&str; 6] = ["bytes", "dmbs", "peers", "board", "signal-rate", "control-rate"];

/// What is wrong with the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordsError {
    /// A part without `=`; the keys that there are.
    NoValue(String, String),
    /// A key that does not exist; those that do.
    UnknownKey(String, String),
    /// A key that occurs twice.
    Twice(String),
    /// A key that must be there.
    Missing(&'static str),
    /// A value that is not allowed.
    Value(&'static str, ValueError),
    /// A number that is none.
    Number(&'static str, String),
}

impl fmt::Display for WordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue(part, keys) => {
                write!(f, "`{part}` has no value; write key=value, keys: {keys}")
            }
            Self::UnknownKey(key, keys) => write!(f, "unknown key `{key}`; allowed: {keys}"),
            Self::Twice(key) => write!(f, "key `{key}` occurs twice"),
            Self::Missing(key) => write!(f, "key `{key}` is missing"),
            Self::Value(key, error) => write!(f, "{key}: {error}"),
            Self::Number(key, text) => {
                write!(f, "{key}: `{text}` is no number; allowed: 0 to {}", u32::MAX)
            }
        }
    }
}

impl std::error::Error for WordsError {}

/// The values by their keys.
pub(super) struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    /// Splits a text whose keys are `own` and those of a member's limits.
    pub(super) fn split(text: &'a str, own: &[&str]) -> Result<Self, WordsError> {
        let keys = || [own, &QUOTA].concat().join(", ");
        let mut words = BTreeMap::new();
        for part in text.split(',') {
            let word = part.split_once('=');
            let (key, value) = word.ok_or_else(|| WordsError::NoValue(part.to_owned(), keys()))?;
            let key = key.trim();
            if !own.contains(&key) && !QUOTA.contains(&key) {
                return Err(WordsError::UnknownKey(key.to_owned(), keys()));
            }
            if words.insert(key, value).is_some() {
                return Err(WordsError::Twice(key.to_owned()));
            }
        }
        Ok(Self(words))
    }

    /// A text as it is.
    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.0.get(key).copied()
    }

    /// A value of a type with rules of its own.
    pub(super) fn value<T>(&self, key: &'static str) -> Result<Option<T>, WordsError>
    where
        T: FromStr<Err = ValueError>,
    {
        let parse = |text: &str| text.parse().map_err(|error| WordsError::Value(key, error));
        self.text(key).map(parse).transpose()
    }

    /// Several, with `+` between them.
    pub(super) fn values<T>(&self, key: &'static str) -> Result<Option<Vec<T>>, WordsError>
    where
        T: FromStr<Err = ValueError>,
    {
        let parse = |text: &str| text.parse().map_err(|error| WordsError::Value(key, error));
        self.text(key).map(|text| text.split('+').map(parse).collect()).transpose()
    }

    /// A number.
    pub(super) fn number(&self, key: &'static str) -> Result<Option<u32>, WordsError> {
        self.text(key).map(|text| number(key, text)).transpose()
    }

    /// Several, with `+` between them.
    pub(super) fn numbers(&self, key: &'static str) -> Result<Vec<u32>, WordsError> {
        let all = self.text(key).map(|text| text.split('+').map(|it| number(key, it)).collect());
        all.unwrap_or_else(|| Ok(Vec::new()))
    }

    /// A member's limits.
    pub(super) fn quota(&self) -> Result<QuotaConfig, WordsError> {
        Ok(QuotaConfig {
            bytes: self.value::<Bytes>("bytes")?.map(|bytes| bytes.0),
            dmbs: self.number("dmbs")?,
            peers: self.number("peers")?,
            board: self.number("board")?,
            signal_rate: self.number("signal-rate")?,
            control_rate: self.number("control-rate")?,
        })
    }
}

fn number(key: &'static str, text: &str) -> Result<u32, WordsError> {
    text.parse().map_err(|_| WordsError::Number(key, text.to_owned()))
}
