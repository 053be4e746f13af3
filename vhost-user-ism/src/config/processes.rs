// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `name=p,socket=PATH[,groups=g1+g2]…`: a door for host processes, as `--processes` writes it.
//!
//! Invariant: the keys are those of a `[[processes]]` table of the configuration file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::value::{Bytes, Name, ValueError};
use super::{ProcessesConfig, QuotaConfig};

/// The keys, as messages list them.
const KEYS: &str = "name, socket, groups, uids, gids, max, bytes, dmbs, peers, board, \
                    signal-rate, control-rate";

/// What is wrong with the text of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessesError {
    /// A part without `=`.
    NoValue(String),
    /// A key that does not exist.
    UnknownKey(String),
    /// A key that must be there.
    Missing(&'static str),
    /// A value that is not allowed.
    Value(String, ValueError),
    /// A number that is none.
    Number(String, String),
}

impl fmt::Display for ProcessesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue(part) => {
                write!(f, "`{part}` has no value; write key=value, keys: {KEYS}")
            }
            Self::UnknownKey(key) => write!(f, "unknown key `{key}`; allowed: {KEYS}"),
            Self::Missing(key) => write!(f, "key `{key}` is missing"),
            Self::Value(key, error) => write!(f, "{key}: {error}"),
            Self::Number(key, text) => {
                write!(f, "{key}: `{text}` is no number; allowed: 0 to {}", u32::MAX)
            }
        }
    }
}

impl std::error::Error for ProcessesError {}

fn value<T: FromStr<Err = ValueError>>(key: &str, text: &str) -> Result<T, ProcessesError> {
    text.parse().map_err(|error| ProcessesError::Value(key.to_owned(), error))
}

fn number(key: &str, text: &str) -> Result<u32, ProcessesError> {
    text.parse().map_err(|_| ProcessesError::Number(key.to_owned(), text.to_owned()))
}

fn list<T>(
    text: &str,
    each: impl Fn(&str) -> Result<T, ProcessesError>,
) -> Result<Vec<T>, ProcessesError> {
    text.split('+').map(each).collect()
}

impl FromStr for ProcessesConfig {
    type Err = ProcessesError;

    fn from_str(text: &str) -> Result<Self, ProcessesError> {
        let (mut name, mut socket) = (None, None);
        let mut groups = vec![Name::default_group()];
        let (mut uids, mut gids, mut max) = (Vec::new(), Vec::new(), Self::DEFAULT_MAX);
        let mut quota = QuotaConfig::default();
        for part in text.split(',') {
            let no_value = || ProcessesError::NoValue(part.to_owned());
            let (key, text) = part.split_once('=').ok_or_else(no_value)?;
            match key.trim() {
                "name" => name = Some(value::<Name>(key, text)?),
                "socket" => socket = Some(PathBuf::from(text)),
                "groups" => groups = list(text, |group| value(key, group))?,
                "uids" => uids = list(text, |uid| number(key, uid))?,
                "gids" => gids = list(text, |gid| number(key, gid))?,
                "max" => max = number(key, text)?,
                "bytes" => quota.bytes = Some(value::<Bytes>(key, text)?.0),
                "dmbs" => quota.dmbs = Some(number(key, text)?),
                "peers" => quota.peers = Some(number(key, text)?),
                "board" => quota.board = Some(number(key, text)?),
                "signal-rate" => quota.signal_rate = Some(number(key, text)?),
                "control-rate" => quota.control_rate = Some(number(key, text)?),
                _ => return Err(ProcessesError::UnknownKey(key.to_owned())),
            }
        }
        Ok(Self {
            name: name.ok_or(ProcessesError::Missing("name"))?,
            socket: socket.ok_or(ProcessesError::Missing("socket"))?,
            groups,
            uids,
            gids,
            max,
            quota,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_said_and_little_need_be() {
        let door: ProcessesConfig =
            "name=apps,socket=/run/p.sock,groups=web+db,uids=1000+1001,gids=7,max=3,bytes=64M,board=9"
                .parse()
                .expect("valid");
        assert_eq!(door.groups.iter().map(Name::as_str).collect::<Vec<_>>(), ["web", "db"]);
        assert_eq!((door.uids, door.gids, door.max), (vec![1000, 1001], vec![7], 3));
        assert_eq!((door.quota.bytes, door.quota.board), (Some(64 << 20), Some(9)));
        let door: ProcessesConfig = "name=apps,socket=p".parse().expect("valid");
        assert_eq!(door.groups, [Name::default_group()]);
        assert!(door.uids.is_empty() && door.gids.is_empty());
        assert_eq!(door.max, ProcessesConfig::DEFAULT_MAX);
    }

    #[test]
    fn errors_say_what_is_allowed() {
        let table = [
            ("name", "has no value"),
            ("name=a", "`socket` is missing"),
            ("socket=s", "`name` is missing"),
            ("name=a,socket=s,uid=1", "allowed: name, socket, groups, uids"),
            ("name=a,socket=s,uids=root", "`root` is no number"),
            ("name=a b,socket=s", "name: `a b` is no name; allowed"),
        ];
        for (text, expected) in table {
            let error = text.parse::<ProcessesConfig>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
