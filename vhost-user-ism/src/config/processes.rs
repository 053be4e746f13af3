// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `name=p,socket=PATH[,groups=g1+g2]…`: a door for host processes, as `--processes` writes it.
//!
//! Invariant: the keys are those of a `[[processes]]` table of the configuration file.

use std::str::FromStr;

use super::ProcessesConfig;
use super::value::Name;
use super::words::{Words, WordsError};

/// The keys, beside those of limits.
const KEYS: [&str; 6] = ["name", "socket", "groups", "uids", "gids", "max"];

impl FromStr for ProcessesConfig {
    type Err = WordsError;

    fn from_str(text: &str) -> Result<Self, WordsError> {
        let words = Words::split(text, &KEYS)?;
        let socket = words.text("socket").ok_or(WordsError::Missing("socket"));
        Ok(Self {
            name: words.value("name")?.ok_or(WordsError::Missing("name"))?,
            socket: socket?.into(),
            groups: words.values("groups")?.unwrap_or_else(|| vec![Name::default_group()]),
            uids: words.numbers("uids")?,
            gids: words.numbers("gids")?,
            max: words.number("max")?.unwrap_or(Self::DEFAULT_MAX),
            quota: words.quota()?,
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
            ("name=a,socket=s,uids=1,uids=2", "occurs twice"),
            ("name=a,socket=s,uids=root", "`root` is no number"),
            ("name=a b,socket=s", "name: `a b` is no name; allowed"),
        ];
        for (text, expected) in table {
            let error = text.parse::<ProcessesConfig>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
