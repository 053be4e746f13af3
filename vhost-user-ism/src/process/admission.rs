// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who is let in at a door.
//!
//! Invariant: the decision is about the user that the kernel says connected (SO_PEERCRED), never about what
//! the process says of itself.

use std::fmt;
use std::os::unix::net::UnixStream;

use unix_peer::Peer;

use crate::config::ProcessesConfig;

/// A process that may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admission {
    /// Its number; none if it is of a PID namespace that is not seen from here.
    pub(super) pid: Option<u32>,
    pub(super) uid: u32,
}

/// Why a process is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its user is not on the lists.
    User { uid: u32, gid: u32, door: String },
    /// As many as allowed are in.
    Full(u32),
    /// The daemon lacks something.
    Lacking(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { uid, gid, door } => write!(
                f,
                "user {uid} (group {gid}) is not let in; add it to uids= or gids= of the daemon's \
                 processes `{door}`"
            ),
            Self::Full(max) => {
                write!(f, "{max} processes are in already, as many as max= of the daemon allows")
            }
            Self::Lacking(what) => write!(f, "the daemon cannot serve one more process: {what}"),
        }
    }
}

impl Admission {
    /// Checks the process at the other end of `client`, when `inside` others are in.
    pub(super) fn check(
        config: &ProcessesConfig,
        client: &UnixStream,
        inside: usize,
    ) -> Result<Self, Refusal> {
        let who = Peer::of(client).map_err(|error| Refusal::Lacking(error.to_string()))?;
        let (uid, gid) = (who.uid, who.gid);
        if !may_enter(config, uid, gid, rustix::process::geteuid().as_raw()) {
            return Err(Refusal::User { uid, gid, door: config.name.to_string() });
        }
        if inside >= usize::try_from(config.max).unwrap_or(usize::MAX) {
            return Err(Refusal::Full(config.max));
        }
        Ok(Self { pid: who.pid, uid })
    }
}

fn may_enter(config: &ProcessesConfig, uid: u32, gid: u32, own: u32) -> bool {
    if config.uids.is_empty() && config.gids.is_empty() {
        return uid == own;
    }
    config.uids.contains(&uid) || config.gids.contains(&gid)
}

/// Whether others than the daemon's own user are let in.
pub(crate) fn is_for_others(config: &ProcessesConfig) -> bool {
    !config.uids.is_empty() || !config.gids.is_empty()
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;

    fn door(text: &str) -> ProcessesConfig {
        format!("name=p,socket=/s{text}").parse().expect("valid")
    }

    #[test]
    fn the_lists_decide_and_without_them_the_daemons_user() {
        let table = [
            ("", 5, 5, true),
            ("", 6, 5, false),
            ("", 0, 5, false),
            (",uids=5+6", 6, 1, true),
            (",uids=5+6", 1, 1, false),
            (",gids=7", 9, 7, true),
            (",gids=7,uids=9", 9, 8, true),
            (",gids=7", 7, 8, false),
        ];
        for (text, uid, gid, expected) in table {
            let own = 5;
            assert_eq!(may_enter(&door(text), uid, gid, own), expected, "{text} {uid} {gid}");
        }
    }

    #[test]
    fn one_more_than_allowed_is_refused_with_the_limit() {
        let (client, _server) = UnixStream::pair().expect("sockets");
        let config = door(",max=2");
        assert!(Admission::check(&config, &client, 1).is_ok());
        let refusal = Admission::check(&config, &client, 2).expect_err("full");
        assert!(refusal.to_string().contains("2 processes"), "{refusal}");
    }

    #[test]
    fn a_stranger_is_told_what_to_change() {
        let (client, _server) = UnixStream::pair().expect("sockets");
        let own = rustix::process::geteuid().as_raw();
        let refusal = Admission::check(&door(&format!(",uids={}", own + 1)), &client, 0);
        let text = refusal.expect_err("another user").to_string();
        assert!(text.contains(&format!("user {own}")) && text.contains("uids="), "{text}");
    }

    /// As of a daemon in a container whose socket is shared with the host: there the process has no number.
    #[test]
    fn a_process_of_another_pid_namespace_may_come_in() {
        const WITHIN: &str = "ISM_TEST_WITHIN";
        if std::env::var_os(WITHIN).is_some() {
            let stdin = std::io::stdin().as_fd().try_clone_to_owned().expect("stdin");
            let admitted = Admission::check(&door(""), &UnixStream::from(stdin), 0);
            assert_eq!(admitted.expect("the daemon's user").pid, None);
            println!("let in");
            return;
        }
        let (client, _server) = UnixStream::pair().expect("sockets");
        let mut within = std::process::Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            within.args(["--user", "--map-root-user"]);
        }
        within.args(["--pid", "--fork"]).arg(std::env::current_exe().expect("this test"));
        within.args(["a_process_of_another_pid_namespace_may_come_in", "--nocapture"]);
        let said = within.env(WITHIN, "1").stdin(OwnedFd::from(client)).output().expect("unshare");
        assert!(String::from_utf8_lossy(&said.stdout).contains("let in"), "{said:?}");
    }
}
