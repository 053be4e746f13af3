// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `name=a,socket=PATH[,groups=g1+g2]…`: a VM as `--vm` and `ctl add-vm` write it.
//!
//! Invariant: the keys are those of a `[[vm]]` table of the configuration file.

use std::str::FromStr;

use super::value::{Gid, Name};
use super::words::{Words, WordsError};
use super::{Listen, VmConfig};

/// The keys, beside those of limits.
const KEYS: [&str; 4] = ["name", "socket", "groups", "gid"];

impl FromStr for VmConfig {
    type Err = WordsError;

    fn from_str(text: &str) -> Result<Self, WordsError> {
        let words = Words::split(text, &KEYS)?;
        let name: Name = words.value("name")?.ok_or(WordsError::Missing("name"))?;
        let socket = words.text("socket").ok_or(WordsError::Missing("socket"))?;
        Ok(Self {
            gid: words.value("gid")?.unwrap_or_else(|| Gid::of_name(&name)),
            name,
            listen: Listen::Path(socket.into()),
            groups: words.values("groups")?.unwrap_or_else(|| vec![Name::default_group()]),
            quota: words.quota()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::QuotaConfig;
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
