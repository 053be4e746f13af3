// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `name=a,socket=PATH[,groups=g1+g2]…`: a VM as `--vm` and `ctl add-vm` write it.
//!
//! Invariant: the keys are those of a `[[vm]]` table of the configuration file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::value::{Bytes, Gid, Name, ValueError};
use super::{Listen, QuotaConfig, VmConfig};

/// The keys, as messages list them.
pub const KEYS: &str = "name, socket, groups, gid, bytes, dmbs, peers, board, signal-rate, \
                        control-rate";

/// What is wrong with the text of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmError {
    /// A part without `=`.
    NoValue(String),
    /// A key that does not exist.
    UnknownKey(String),
    /// A key that occurs twice.
    Twice(String),
    /// A key that must be there.
    Missing(&'static str),
    /// A value that is not allowed.
    Value(String, ValueError),
    /// A number that is none.
    Number(String, String),
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValue(part) => {
                write!(f, "`{part}` has no value; write key=value, keys: {KEYS}")
            }
            Self::UnknownKey(key) => write!(f, "unknown key `{key}`; allowed: {KEYS}"),
            Self::Twice(key) => write!(f, "key `{key}` occurs twice"),
            Self::Missing(key) => write!(f, "key `{key}` is missing"),
            Self::Value(key, error) => write!(f, "{key}: {error}"),
            Self::Number(key, text) => {
                write!(f, "{key}: `{text}` is no number; allowed: 0 to {}", u32::MAX)
            }
        }
    }
}

impl std::error::Error for VmError {}

fn value<T: FromStr<Err = ValueError>>(key: &str, text: &str) -> Result<T, VmError> {
    text.parse().map_err(|error| VmError::Value(key.to_owned(), error))
}

fn number(key: &str, text: &str) -> Result<u32, VmError> {
    text.parse().map_err(|_| VmError::Number(key.to_owned(), text.to_owned()))
}

#[derive(Default)]
struct Parts {
    name: Option<Name>,
    socket: Option<PathBuf>,
    groups: Option<Vec<Name>>,
    gid: Option<Gid>,
    quota: QuotaConfig,
}

impl Parts {
    fn set(&mut self, key: &str, text: &str) -> Result<(), VmError> {
        fn once<T>(slot: &mut Option<T>, key: &str, new: T) -> Result<(), VmError> {
            match slot.replace(new) {
                None => Ok(()),
                Some(_) => Err(VmError::Twice(key.to_owned())),
            }
        }
        match key {
            "name" => once(&mut self.name, key, value(key, text)?),
            "socket" => once(&mut self.socket, key, PathBuf::from(text)),
            "groups" => {
                let groups =
                    text.split('+').map(|group| value(key, group)).collect::<Result<_, _>>()?;
                once(&mut self.groups, key, groups)
            }
            "gid" => once(&mut self.gid, key, value(key, text)?),
            "bytes" => once(&mut self.quota.bytes, key, value::<Bytes>(key, text)?.0),
            "dmbs" => once(&mut self.quota.dmbs, key, number(key, text)?),
            "peers" => once(&mut self.quota.peers, key, number(key, text)?),
            "board" => once(&mut self.quota.board, key, number(key, text)?),
            "signal-rate" => once(&mut self.quota.signal_rate, key, number(key, text)?),
            "control-rate" => once(&mut self.quota.control_rate, key, number(key, text)?),
            _ => Err(VmError::UnknownKey(key.to_owned())),
        }
    }
}

impl FromStr for VmConfig {
    type Err = VmError;

    fn from_str(text: &str) -> Result<Self, VmError> {
        let mut parts = Parts::default();
        for part in text.split(',') {
            let (key, text) = part.split_once('=').ok_or(VmError::NoValue(part.to_owned()))?;
            parts.set(key.trim(), text)?;
        }
        let name = parts.name.ok_or(VmError::Missing("name"))?;
        let socket = parts.socket.ok_or(VmError::Missing("socket"))?;
        Ok(Self {
            gid: parts.gid.unwrap_or_else(|| Gid::of_name(&name)),
            name,
            listen: Listen::Path(socket),
            groups: parts.groups.unwrap_or_else(|| vec![Name::default_group()]),
            quota: parts.quota,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_said() {
        let vm: VmConfig = "name=a,socket=/run/a.sock,groups=web+db,\
                            gid=11111111-2222-3333-4444-555555555555,bytes=64M,dmbs=10,peers=2,board=9,\
                            signal-rate=1000,control-rate=20"
            .parse()
            .expect("valid");
        assert_eq!(vm.name.as_str(), "a");
        assert_eq!(vm.listen, Listen::Path("/run/a.sock".into()));
        assert_eq!(vm.groups.iter().map(Name::as_str).collect::<Vec<_>>(), ["web", "db"]);
        assert_eq!(vm.gid.halves()[0], 0x1111_1111_2222_3333);
        assert_eq!(vm.quota.bytes, Some(64 << 20));
        assert_eq!(vm.quota.dmbs, Some(10));
        assert_eq!(vm.quota.peers, Some(2));
        assert_eq!(vm.quota.board, Some(9));
        assert_eq!(vm.quota.signal_rate, Some(1000));
        assert_eq!(vm.quota.control_rate, Some(20));
    }

    #[test]
    fn little_need_be_said() {
        let vm: VmConfig = "name=a,socket=a.sock".parse().expect("valid");
        assert_eq!(vm.groups, [Name::default_group()]);
        assert_eq!(vm.gid, Gid::of_name(&vm.name));
        assert_eq!(vm.quota, QuotaConfig::default());
    }

    #[test]
    fn errors_say_what_is_allowed() {
        let table = [
            ("", "has no value"),
            ("name", "has no value"),
            ("name=a", "`socket` is missing"),
            ("socket=s", "`name` is missing"),
            ("name=a,sock=s", "allowed: name, socket"),
            ("name=a,name=b,socket=s", "occurs twice"),
            ("name=a b,socket=s", "name: `a b` is no name; allowed"),
            ("name=a,socket=s,groups=x++y", "groups: `` is no name"),
            ("name=a,socket=s,gid=7", "gid: `7` is no GID; allowed: a UUID"),
            ("name=a,socket=s,bytes=1T", "bytes: `1T` is no size"),
            ("name=a,socket=s,dmbs=-1", "dmbs: `-1` is no number"),
        ];
        for (text, expected) in table {
            let error = text.parse::<VmConfig>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
